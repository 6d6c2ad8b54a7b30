"The writer of OME-TIFF: any picture, any bands, any bad luck."

import errno
import os
from itertools import pairwise

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from petroscope.io.ometiff import CODECS, OmeTiff, pack_bands, write_bands, write_tiles

PIXELS = st.one_of(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 90), st.integers(1, 70), st.just(3))),
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 90), st.integers(1, 70))),
    arrays.arrays(np.uint32, st.tuples(st.integers(1, 90), st.integers(1, 70))),
)


def cut(pixels, heights):
    "A picture in bands of the heights that were drawn, over and over."
    top = turn = 0
    while top < len(pixels):
        height = heights[turn % len(heights)]
        yield top, pixels[top : top + height]
        top, turn = top + height, turn + 1


def levels_of(path):
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome and len(tiff.series) == len(tiff.pages) == 1
        return [level.asarray() for level in tiff.series[0].levels]


@settings(max_examples=60)
@given(
    pixels=PIXELS,
    heights=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    codec=st.sampled_from(["deflate", "zstd", "none"]),
)
def test_any_picture_in_any_bands(tmp_path_factory, pixels, heights, codec):
    path = tmp_path_factory.mktemp("tiff") / "a.ome.tif"
    picture = OmeTiff(pixels.shape, pixels.dtype, codec=codec, tile=16)
    write_bands(path, cut(pixels, heights), picture)
    found = levels_of(path)
    assert [level.shape for level in found] == picture.levels and max(found[-1].shape[:2]) <= 16
    assert found[0].dtype == pixels.dtype and (found[0] == pixels).all()
    for fine, coarse in pairwise(found):
        p = np.pad(fine, [(0, fine.shape[0] % 2), (0, fine.shape[1] % 2)] + [(0, 0)] * (fine.ndim - 2), mode="edge")
        p = p.astype(int) if p.ndim == 3 else p
        mean = (p[::2, ::2] + p[1::2, ::2] + p[::2, 1::2] + p[1::2, 1::2] + 2) // 4 if p.ndim == 3 else p[::2, ::2]
        assert (coarse == mean).all()
    if pixels.dtype == np.uint8 and codec != "zstd":  # OpenCV's libtiff as a second reader
        seen = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert (seen == (pixels[..., ::-1] if pixels.ndim == 3 else pixels)).all()


def test_a_jpeg_is_near(tmp_path):
    pixels = np.dstack([np.add.outer(np.arange(70), np.arange(90))] * 3).astype(np.uint8)
    write_bands(tmp_path / "a.tif", cut(pixels, [7]), OmeTiff(pixels.shape, codec="jpeg", tile=32, quality=95))
    assert np.abs(levels_of(tmp_path / "a.tif")[0].astype(int) - pixels).max() <= 4


@pytest.mark.parametrize("codec", list(CODECS))
def test_a_large_file_is_bigtiff(tmp_path, codec, monkeypatch):
    seen = {}

    class Noted(tifffile.TiffWriter):
        def __init__(self, file, **options):
            seen.update(options)
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tifffile, "TiffWriter", Noted)
    for side, big in ((30_000, False), (40_000, True)):
        picture = OmeTiff((side, side, 3), codec=codec)
        with pytest.raises(OSError, match=r"a\.tif: could not be written: no space left on device; free some space"):
            write_bands(tmp_path / "a.tif", [], picture)
        assert seen["bigtiff"] is big
        assert os.listdir(tmp_path) == []


def test_whoever_makes_the_tiles_is_told_of_an_error(tmp_path):
    closed = []

    def tiles(picture):
        try:
            yield from pack_bands([(0, np.zeros((20, 40), np.uint8))], picture)
            raise ZeroDivisionError
        finally:
            closed.append(True)

    with pytest.raises(ValueError, match="expected bands of 40 rows in all, got 20"):
        picture = OmeTiff((40, 40), tile=16)
        write_tiles(tmp_path / "a.tif", tiles(picture), picture)
    assert closed == [True] and os.listdir(tmp_path) == []
