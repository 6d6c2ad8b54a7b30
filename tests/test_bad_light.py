"What bad calibrations and contradictory photos get: one clear line each, through the command line."

import cv2
import numpy as np
import pytest
from PIL import Image

from petroscope.cli.main import main
from petroscope.io.images import write_image
from petroscope.optics.flatfield import FlatField
from petroscope.synth.rock import scene

PHOTO = scene((96, 128), seed=4, scale=0.5).image


def refused(capsys, *argv):
    "The line that a command is refused with."
    assert main([*map(str, argv)]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("petroscope: error:")]
    assert len(errors) == 1, errors
    return errors[0]


def mirror(level=200.0):
    y, x = np.mgrid[-1:1:96j, -1:1:128j]
    return np.repeat((level - 30 * (x * x + y * y))[..., None], 3, axis=2).astype(np.uint8)


@pytest.fixture
def photo(tmp_path):
    write_image(tmp_path / "photo.png", PHOTO)
    return tmp_path / "photo.png"


def test_a_flat_field_of_another_size(photo, tmp_path, capsys):
    FlatField(np.ones((90, 128, 3), np.float32), source="mirror").save(tmp_path / "light.tif")
    for command in ("segment", "analyse"):
        more = ["--photos"] if command == "analyse" else []
        argv = (command, photo, "--flatfield", tmp_path / "light.tif", "--scale", 0.5, "--out", tmp_path / command)
        said = refused(capsys, *argv, *more)
        assert "photo has 128 x 96 px, but the flat field" in said and "128 x 90 px, which is another view" in said


@pytest.mark.parametrize("first", [48, 64, 80])
def test_a_mirror_that_is_covered_by_half(tmp_path, capsys, first):
    image = mirror()
    image[:, first:] = 8
    write_image(tmp_path / "m.png", image)
    said = refused(capsys, "calibrate", tmp_path / "m.png", "--out", tmp_path / "light.tif")
    assert "m.png: " in said and ("something covers the mirror" in said or "something covers part of it" in said)
    assert not (tmp_path / "light.tif").exists()


def test_a_dark_frame_brighter_than_the_photo(tmp_path, capsys):
    write_image(tmp_path / "m.png", mirror(120))
    write_image(tmp_path / "d.png", mirror(180))
    argv = ("calibrate", tmp_path / "m.png", "--dark", tmp_path / "d.png", "--out", tmp_path / "light.tif")
    said = refused(capsys, *argv)
    assert "m.png: the dark frame is as bright as the photo or brighter in 100 % of the pixels" in said


def test_too_few_photos_to_find_a_flat_field_from(photo, tmp_path, capsys):
    said = refused(capsys, "calibrate", photo, "--fields", "--out", tmp_path / "light.tif")
    assert "8" in said and "photos" in said


def test_photos_of_two_microscopes(photo, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    write_image(tmp_path / "other/b.png", PHOTO)
    (tmp_path / "other/petroscope.toml").write_text("scale = 0.5\n")
    said = refused(capsys, "segment", photo, tmp_path / "other/b.png", "--out", tmp_path / "o")
    assert "one call takes photos of one microscope" in said
    write_image(tmp_path / "c.png", cv2.resize(PHOTO, (100, 96)))
    said = refused(capsys, "calibrate", *[photo] * 7, tmp_path / "c.png", "--fields", "--out", tmp_path / "l.tif")
    assert "c.png has 100 x 96 px, but the first has 128 x 96" in said


def test_contradictory_pixel_sizes(tmp_path, capsys):
    across = 2.54 * 10000 / 0.5
    Image.fromarray(PHOTO).save(tmp_path / "p.png", dpi=(across, across))
    size = ("--pixel-size-um", 1.2, "--scale", 0.5)
    said = refused(capsys, "segment", tmp_path / "p.png", *size, "--out", tmp_path / "s")
    assert "p.png: its file says 0.5 um a pixel, but 1.2 is stated" in said and "one of them is wrong" in said
    said = refused(capsys, "analyse", tmp_path / "p.png", "--photos", *size, "--out", tmp_path / "a")
    assert "p.png: its file says 0.5 um a pixel, but 1.2 is stated" in said and "one of them is wrong" in said


@pytest.mark.parametrize("what", ["unobtainium", ""])
def test_a_reference_mineral_that_is_not_there(photo, tmp_path, capsys, what):
    said = refused(capsys, "calibrate", "--reference", f"{what}={photo}", "--out", tmp_path / "r.json")
    assert ("unobtainium" in said and "pyrite" in said) if what else "expected MINERAL=PHOTO" in said
