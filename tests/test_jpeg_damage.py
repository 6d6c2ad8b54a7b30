"Bytes that are missing inside a JPEG are told, whoever wrote it; a whole one is never refused."

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from conftest import needs_data
from petroscope.io.images import read_image
from petroscope.synth.rock import scene

IMAGE = scene((301, 403), seed=5, scale=0.5).image
PILLOW = {
    "plain": {},
    "quality 1": {"quality": 1},
    "quality 100": {"quality": 100, "subsampling": 0},
    "4:2:0": {"subsampling": 2},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "restarts, progressive": {"restart_marker_blocks": 3, "progressive": True},
    "comment": {"comment": b"a comment \xff\xd9 with a mark in it"},
}


def pillow(name, mode="RGB"):
    file = io.BytesIO()
    Image.fromarray(IMAGE).convert(mode).save(file, "JPEG", **{"quality": 92, **PILLOW[name]})
    return file.getvalue()


def opencv(*options):
    return cv2.imencode(".jpg", IMAGE[..., ::-1], options)[1].tobytes()


FILES = {
    **{f"Pillow, {name}": lambda name=name: pillow(name) for name in PILLOW},
    **{f"Pillow, {mode}": lambda mode=mode: pillow("plain", mode) for mode in ("L", "CMYK")},
    "OpenCV": opencv,
    "OpenCV, progressive": lambda: opencv(cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "OpenCV, restarts": lambda: opencv(cv2.IMWRITE_JPEG_RST_INTERVAL, 7),
    "with another picture behind it": lambda: pillow("plain") + pillow("4:2:0"),
    "with zeros behind it": lambda: pillow("plain") + bytes(1000),
    "with filling before its end": lambda: pillow("plain")[:-2] + b"\xff\xff\xd9",
}


@pytest.mark.parametrize("name", FILES)
def test_a_whole_jpeg_is_read(tmp_path, name):
    (tmp_path / "a.jpg").write_bytes(FILES[name]())
    assert read_image(tmp_path / "a.jpg").shape == IMAGE.shape


@pytest.mark.parametrize("size, least", [(30, 0.15), (100, 0.4), (400, 0.95), (3000, 0.95)])
@pytest.mark.parametrize("name", [name for name in FILES if "behind" not in name and "quality 1" != name[-9:]])
def test_missing_bytes_are_told(tmp_path, name, size, least):
    data, rng, told = FILES[name](), np.random.default_rng(0), 0
    first = data.find(b"\xff\xda") + 20
    for place in rng.integers(first, len(data) - size - 2, 20):
        (tmp_path / "a.jpg").write_bytes(data[:place] + data[place + size :])
        try:
            read_image(tmp_path / "a.jpg")
        except ValueError as error:
            assert str(error).startswith(f"{tmp_path / 'a.jpg'}: expected a photo") and "\n" not in str(error)
            told += 1
    # What is missing from a late pass of a progressive file may leave no trace.
    assert told >= (min(least, 0.7) if "progressive" in name else least) * 20


def test_no_real_photo_is_refused():
    from petroscope.io.damage import check_jpeg

    files = sorted(needs_data("LumenStone_x05").rglob("*.jpg")) + sorted(needs_data("stitching").rglob("*.jpg"))
    assert len(files) > 80
    for file in files:
        check_jpeg(file.read_bytes())
