"One reader whatever the size: a photo read by rows is the photo read whole, or both are refused for one reason."

import csv
import itertools

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from petroscope.io import raster as room
from petroscope.io.images import read_image, read_mask, read_photo, write_mask
from petroscope.io.raster import open_raster
from petroscope.synth.rock import scene

SECTION = scene((150, 210), seed=3, scale=0.25).image
GREY = SECTION[..., 1]
ALPHA = np.full((150, 210, 1), 255, np.uint8)
ALPHA[:20, 30:], ALPHA[90:, :40] = 0, 77
DEEP = SECTION.astype(np.uint16) * 257
PLAIN = {"rgb": (SECTION, {"photometric": "rgb"}), "grey": (GREY, {"photometric": "minisblack"})}
LAYOUTS = {
    "one strip": {},
    "strips": {"rowsperstrip": 7},
    "tiles": {"tile": (32, 48)},
    "large tiles": {"tile": (256, 256)},
    "big endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True, "tile": (64, 64)},
}
PACKED = [None, "zlib", "lzw", "packbits", "zstd", "lzma"]


def variants():
    "Name -> how a TIFF of the section is written."
    for (kind, (pixels, how)), (layout, where), packing in itertools.product(PLAIN.items(), LAYOUTS.items(), PACKED):
        yield f"{kind}, {layout}, {packing}", pixels, {**how, **where, "compression": packing}
    for turn in range(1, 9):
        tag = [(274, 3, 1, turn, True)]
        yield f"turned {turn}", SECTION, {"photometric": "rgb", "rowsperstrip": 11, "extratags": tag}
        yield f"deep, turned {turn}", DEEP, {"photometric": "rgb", "tile": (32, 32), "extratags": tag}
    yield "predictor", SECTION, {"photometric": "rgb", "compression": "zlib", "predictor": True, "tile": (64, 64)}
    yield "white as zero", 255 - GREY, {"photometric": "miniswhite", "rowsperstrip": 9}
    yield "planes", np.moveaxis(SECTION, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}
    yield "deep grey", DEEP[..., 0], {"photometric": "minisblack"}
    yield "deep white as zero", DEEP[..., 0], {"photometric": "miniswhite"}
    yield "deep planes", np.moveaxis(DEEP, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}
    for name in ("unassalpha", "assocalpha", "unspecified"):
        yield f"alpha: {name}", np.dstack([SECTION, ALPHA]), {"photometric": "rgb", "extrasamples": [name]}
    yield "inks", np.dstack([SECTION, ALPHA]), {"photometric": "separated"}
    yield "CIE L*a*b*", SECTION, {"photometric": "cielab"}
    yield "YCbCr", SECTION, {"photometric": "ycbcr"}
    yield "signed", GREY.astype(np.int16), {"photometric": "minisblack"}
    yield "float", SECTION / np.float32(255), {"photometric": "rgb"}
    yield "32 bits", GREY.astype(np.uint32), {"photometric": "minisblack"}
    yield "one bit", GREY > 99, {"photometric": "minisblack"}
    yield "JPEG inside", SECTION, {"photometric": "rgb", "compression": "jpeg", "tile": (64, 64)}
    yield "JPEG inside, YCbCr", SECTION, {"photometric": "ycbcr", "compression": "jpeg", "tile": (64, 64)}
    yield "palette", GREY, {"photometric": "palette", "colormap": np.random.default_rng(0).integers(0, 2**16, (3, 256))}


VARIANTS = {name: (pixels, how) for name, pixels, how in variants()}


def written(folder, name):
    pixels, how = VARIANTS[name]
    how = {k: v.astype(np.uint16) if k == "colormap" else v for k, v in how.items()}
    options = {k: how.pop(k) for k in ("byteorder", "bigtiff") if k in how}
    tifffile.imwrite(folder / "v.tif", pixels, metadata=None, **options, **how)
    return folder / "v.tif"


def read_whole(path):
    try:
        return read_photo(path)
    except ValueError as error:
        return str(error)


def read_in_parts(path, cuts):
    try:
        with open_raster(path) as raster:
            edges = [0, *cuts, raster.shape[0]]
            parts = [raster.read(a, b) for a, b in itertools.pairwise(edges)]
            shape = raster.shape
    except ValueError as error:
        return str(error)
    clear = [np.zeros(c.shape[:2], bool) if t is None else t for c, t in parts]
    image, transparent = np.concatenate([c for c, _ in parts]), np.concatenate(clear)
    assert image.shape[:2] == shape
    return image, transparent if transparent.any() else None


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_are_those_of_the_whole_photo_or_both_are_refused_alike(tmp_path, name):
    path = written(tmp_path, name)
    whole, parts = read_whole(path), read_in_parts(path, [1, 63, 64, 140])
    if isinstance(whole, str):
        assert parts == whole and str(path) in whole
        return
    assert not isinstance(parts, str), parts
    assert np.array_equal(parts[0], whole[0])
    assert (parts[1] is None) == (whole[1] is None) and (whole[1] is None or np.array_equal(parts[1], whole[1]))


@pytest.mark.parametrize(
    "name", ["rgb, strips, zlib", "rgb, tiles, lzw", "turned 3", "alpha: unassalpha", "JPEG inside"]
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_rows(tmp_path, name, data):
    path = written(tmp_path, name)
    image, _ = read_photo(path)
    with open_raster(path) as raster:
        first = data.draw(st.integers(0, 149))
        last = data.draw(st.integers(first + 1, 150))
        assert np.array_equal(raster.rows(first, last), image[first:last])


def test_what_the_variants_show_is_the_section(tmp_path):
    "The readers are not alike by being wrong alike."
    turned = [None, SECTION, SECTION[:, ::-1], SECTION[::-1, ::-1], SECTION[::-1]]
    turned += [np.swapaxes(s, 0, 1) for s in (SECTION, SECTION[::-1], SECTION[::-1, ::-1], SECTION[:, ::-1])]
    for turn in range(1, 9):
        for name in (f"turned {turn}", f"deep, turned {turn}"):
            assert np.array_equal(read_in_parts(written(tmp_path, name), [50])[0], turned[turn]), name
    for name in ("planes", "predictor", "rgb, BigTIFF, zstd", "deep, turned 1"):
        assert np.array_equal(read_in_parts(written(tmp_path, name), [50])[0], SECTION), name
    image, transparent = read_in_parts(written(tmp_path, "alpha: unassalpha"), [50])
    assert np.array_equal(transparent, ALPHA[..., 0] == 0) and np.array_equal(image, SECTION)
    inks = Image.fromarray(np.dstack([SECTION, ALPHA]), "CMYK").convert("RGB")
    assert np.array_equal(read_in_parts(written(tmp_path, "inks"), [50])[0], np.array(inks))


def test_beyond_the_limit_what_cannot_be_read_by_rows_is_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "WHOLE_PX", 10_000)
    for name, what in (
        ("inks", "inks"),
        ("planes", "separate planes"),
        ("palette", "palette"),
        ("turned 6", "its side"),
    ):
        with (
            pytest.raises(ValueError, match=f"{what}.*export it as RGB of 8 bits"),
            open_raster(written(tmp_path, name)),
        ):
            pass
    for name in ("rgb, tiles, zlib", "turned 3", "deep, turned 1", "alpha: unassalpha"):
        with open_raster(written(tmp_path, name)) as raster:
            assert raster.rows(0, 1).shape == (1, 210, 3)


def test_thumbnails_stacks_and_cut_files_are_refused_by_both(tmp_path):
    path = tmp_path / "v.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(SECTION[::4, ::4], photometric="rgb")
        tiff.write(SECTION, photometric="rgb")
    assert "smaller than a later one" in read_whole(path) and read_in_parts(path, []) == read_whole(path)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(SECTION, photometric="rgb", tile=(64, 64))
        tiff.write(SECTION, photometric="rgb", tile=(64, 64))
    assert "stack of several pages" in read_whole(path) and read_in_parts(path, []) == read_whole(path)
    written(tmp_path, "rgb, strips, zlib")
    data = path.read_bytes()
    path.write_bytes(data[:-2000])
    assert "cut off" in read_whole(path) and read_in_parts(path, []) == read_whole(path)


@pytest.mark.parametrize("name", ["rgb, strips, zlib", "rgb, tiles, lzw", "rgb, tiles, zstd", "JPEG inside"])
def test_spoiled_bytes_raise_nothing_but_a_line_that_names_the_file(tmp_path, name):
    path = written(tmp_path, name)
    data, rng = path.read_bytes(), np.random.default_rng(1)
    for _ in range(60):
        spoiled = bytearray(data)
        for place in rng.integers(8, len(data), 6):
            spoiled[place] = int(rng.integers(256))
        path.write_bytes(spoiled)
        for read in (read_whole, lambda p: read_in_parts(p, [75])):
            said = read(path)
            assert not isinstance(said, str) or (str(path) in said and "\n" not in said)


@pytest.mark.parametrize("how", ["inks", "turned 3", "deep, turned 1"])
def test_a_photo_and_a_section_get_the_same_mask(tmp_path, here, monkeypatch, how):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    path = written(tmp_path, how)
    for out, most in (("photo", 10**8), ("section", 0)):
        monkeypatch.setattr("petroscope.cli.segment.SECTION_PX", most)
        status, _, errors = here("segment", path, "--out", tmp_path / out, "--scale", 0.5)
        assert status == 0, errors
    photo, section = read_mask(tmp_path / "photo/v_mask.png"), read_mask(tmp_path / "section/v_mask.tif")
    assert np.array_equal(photo, section)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_what_is_transparent_is_void_in_every_table(tmp_path, here, suffix, plain_plots):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    image, alpha = scene((256, 340), seed=1, scale=0.5).image.copy(), np.full((256, 340, 1), 255, np.uint8)
    image[:, 200:], alpha[:, 200:] = 255, 0
    path = tmp_path / f"p.{suffix}"
    if suffix == "png":
        Image.fromarray(np.dstack([image, alpha])).save(path)
    else:
        tifffile.imwrite(path, np.dstack([image, alpha]), photometric="rgb", extrasamples=["unassalpha"])
    status, _, errors = here("segment", path, "--out", tmp_path / "o", "--scale", 0.5, "--confidence")
    assert status == 0 and "41.2% of the photo is transparent" in errors
    mask = read_mask(tmp_path / "o/p_mask.png")
    assert (mask[:, 200:] == 255).all() and (mask[:, :200] != 255).all()
    assert (read_mask(tmp_path / "o/p_confidence.png")[:, 200:] == 0).all()
    with open(tmp_path / "o/p_minerals.csv", newline="", encoding="utf-8-sig") as file:
        assert sum(int(row["pixels"]) for row in csv.DictReader(file)) == 256 * 200
    status, _, errors = here("analyse", path, "--out", tmp_path / "a", "--scale", 0.5)
    assert status == 0 and "41.2% of the photo is transparent" in errors
    assert np.array_equal(read_mask(tmp_path / "a/p_mask.png") == 255, alpha[..., 0] == 0)
    with pytest.raises(ValueError, match=r"41\.18% is transparent.*read_photo"):
        read_image(path)


def test_one_broken_photo_does_not_stop_an_analysis(tmp_path, here, plain_plots):
    write_mask(tmp_path / "good.png", scene((256, 340), seed=1, scale=0.5).mask)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[282] = TiffImagePlugin.IFDRational(1, 0)
    Image.fromarray(GREY).save(tmp_path / "zero.tif", tiffinfo=tags)
    data = written(tmp_path, "grey, strips, zlib").read_bytes()
    (tmp_path / "v.tif").unlink()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) // 2])
    files = [tmp_path / name for name in ("zero.tif", "cut.tif", "good.png")]
    status, _, errors = here("analyse", *files, "--out", tmp_path / "a", "--masks")
    assert status == 1 and (tmp_path / "a/report.html").exists() and (tmp_path / "a/good_minerals.png").exists()
    assert "cut.tif" in errors and "Traceback" not in errors and "a bug" not in errors
