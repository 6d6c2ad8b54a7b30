"Fields of a camera that counts 12 bits in files of 16: one word of it, and the option that mends it."

import json
import warnings

import cv2
import numpy as np
import pytest
import tifffile

from petroscope import synth
from petroscope.cli.main import main
from petroscope.optics.calibrate import calibrate
from petroscope.panorama.panorama import Panorama
from petroscope.panorama.stitch import stitch


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("dark")
    section = synth.fields(3, 4, field_shape=(300, 400), overlap=0.3, jitter_px=4, seed=1)
    paths = [tmp_path / f"f{i:02}.png" for i in range(12)]
    for path, image in zip(paths, section.images, strict=True):
        cv2.imwrite(str(path), image[..., ::-1].astype(np.uint16) * 16)  # 0..4080
    return paths


def told(work):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    return [str(one.message) for one in caught if "nearly black" in str(one.message)]


def test_twelve_dark_fields_earn_one_warning(fields, tmp_path):
    texts = told(lambda: stitch(fields, tmp_path / "a.ome.tif", cache_mb=1))
    assert len(texts) == 1 and "white=4095" in texts[0] and "11 more of 12 files alike" in texts[0]
    assert texts[0].count("f0") + texts[0].count("f1") >= 1 and str(tmp_path) not in texts[0]


def test_white_makes_the_panorama_as_bright_as_its_fields(fields, tmp_path):
    assert told(lambda: stitch(fields, tmp_path / "a.ome.tif", white=4095)) == []
    mosaic = tifffile.imread(tmp_path / "a.ome.tif", level=0)
    expected = np.mean([cv2.imread(str(path), cv2.IMREAD_UNCHANGED).mean() / 4095 * 255 for path in fields])
    assert mosaic[(mosaic > 0).any(2)].mean() == pytest.approx(expected, rel=0.08)


def test_a_saved_geometry_keeps_white(fields, tmp_path):
    panorama = Panorama.from_fields(fields, white=4095).align()
    panorama.save(tmp_path / "geometry.json")
    loaded = Panorama.load(tmp_path / "geometry.json")
    assert loaded.white == 4095 and Panorama.load(tmp_path / "geometry.json", white=2047).white == 2047
    assert (loaded.fields[0] == panorama.fields[0]).all() and (loaded.preview(200) == panorama.preview(200)).all()
    older = json.loads((tmp_path / "geometry.json").read_text())
    del older["white"]
    (tmp_path / "older.json").write_text(json.dumps(older))
    assert Panorama.load(tmp_path / "older.json").white == 65535


def test_a_level_above_white_is_named(fields, tmp_path):
    with (
        pytest.warns(UserWarning, match="above white=1023; give white=4095"),
        pytest.raises(ValueError, match="none of"),
    ):
        Panorama.from_fields(fields, white=1023).align()


@pytest.mark.parametrize("kind", ["fields", "reference"])
def test_lights_are_measured_alike(kind, fields, tmp_path):
    if kind == "reference":
        y, x = np.mgrid[-1:1:300j, -1:1:400j]
        mirror = (3200 * (1 - 0.15 * (x**2 + y**2))).astype(np.uint16)
        fields = [tmp_path / "m.png"]
        cv2.imwrite(str(fields[0]), cv2.merge([mirror] * 3))
    assert told(lambda: calibrate(fields, tmp_path / "l.tif", kind, white=4095)) == []
    assert (tmp_path / "l.tif").exists()


def test_calibrating_from_twelve_dark_fields_earns_one_warning(fields, tmp_path):
    def work():
        try:
            calibrate(fields, tmp_path / "l.tif", "fields")
        except ValueError as error:  # so dark that no light is seen
            assert "spots" in str(error)

    assert len(told(work)) <= 1


def test_the_command_line_takes_the_level(fields, tmp_path, capsys):
    assert main(["stitch", *map(str, fields), "--out", str(tmp_path / "a.tif"), "--white", "4095"]) == 0
    assert "nearly black" not in capsys.readouterr().err
