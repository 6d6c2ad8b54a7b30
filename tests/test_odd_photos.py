"Photos that are odd without being wrong: grey ones, and those that a note in their file turns but not their mask."

import warnings

import numpy as np
import pytest
from PIL import Image

from petroscope.io.images import stored_size, write_image, write_mask
from petroscope.segmentation.dataset import DatasetError, LumenStone, Sample
from petroscope.synth.rock import scene

SECTION = scene((120, 160), seed=1, scale=0.5)


def grey(image):
    return np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("how", ["photo", "section"])
def test_a_grey_photo_is_named(tmp_path, here, monkeypatch, suffix, how):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    if how == "section":
        monkeypatch.setattr("petroscope.cli.segment.SECTION_PX", 0)
    for name, image in (("grey", grey(SECTION.image)), ("colour", SECTION.image)):
        write_image(tmp_path / f"{name}{suffix}", image)
    files = [tmp_path / f"{name}{suffix}" for name in ("grey", "colour")]
    status, _, errors = here("segment", *files, "--out", tmp_path / "o", "--scale", 0.5)
    lines = [line for line in errors.splitlines() if "the photo is grey" in line]
    assert status == 0 and len(lines) == 1 and f"grey{suffix}" in lines[0]


def test_noise_and_a_scale_bar_are_no_colour():
    from petroscope.segmentation.preparation import warn_of_grey

    rng = np.random.default_rng(0)
    image = grey(SECTION.image).clip(2, 252) + rng.integers(0, 4, SECTION.image.shape, np.uint8)
    image[100:104, 20:40] = 255, 0, 0
    with pytest.warns(UserWarning, match="the photo is grey"):
        warn_of_grey(image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_grey(SECTION.image)
        warn_of_grey(np.zeros((5, 5, 3), np.uint8))


def test_a_model_that_needs_no_colour_takes_grey_photos():
    from petroscope.segmentation.classes import LumenStoneClasses
    from petroscope.segmentation.model import CallableModel

    two = LumenStoneClasses.S1v1.subset(["BG", "Py/Mrc"])

    def bright(batch):
        light = batch.mean(axis=-1) / 255
        return np.stack([1 - light, light], axis=1).astype(np.float32)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CallableModel(two, bright).predict_image(grey(SECTION.image), 1.0)


def dataset(folder, turn, mask):
    for part in ("imgs", "masks"):
        (folder / part / "train").mkdir(parents=True)
    exif = Image.Exif()
    exif[274] = turn
    Image.fromarray(SECTION.image).save(folder / "imgs/train/a.jpg", exif=exif)
    write_mask(folder / "masks/train/a.png", mask)
    return folder


@pytest.mark.parametrize("turn", [2, 3, 4])
def test_a_photo_turned_in_its_own_size_is_warned_of(tmp_path, turn):
    root = dataset(tmp_path, turn, SECTION.mask)
    with pytest.warns(UserWarning, match=rf"a\.png; .*a\.jpg is turned upright .*EXIF orientation {turn}"):
        LumenStone(root, "S1v1").check()
    with pytest.warns(UserWarning, match=f"EXIF orientation {turn}"):
        Sample("a", root / "imgs/train/a.jpg", root / "masks/train/a.png").read()


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_a_photo_on_its_side_is_named_where_the_sizes_differ(tmp_path, turn):
    root = dataset(tmp_path / "stored", turn, SECTION.mask)
    with pytest.raises(DatasetError, match=f"the mask is 160 x 120 px, but its photo is 120 x 160 px.*{turn}"):
        LumenStone(root, "S1v1").check()
    with pytest.raises(ValueError, match=f"EXIF orientation {turn}.*take the note out"):
        Sample("a", root / "imgs/train/a.jpg", root / "masks/train/a.png").read()
    with warnings.catch_warnings():  # a mask of another stored size was drawn on the photo as it is shown
        warnings.simplefilter("error")
        LumenStone(dataset(tmp_path / "shown", turn, np.rot90(SECTION.mask).copy()), "S1v1").check()


def test_upright_photos_are_not_spoken_of(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LumenStone(dataset(tmp_path, 1, SECTION.mask), "S1v1").check()
    assert stored_size(tmp_path / "imgs/train/a.jpg") == ((120, 160), 1)
