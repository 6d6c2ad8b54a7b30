"Photos of 12 bits in 16: commands that segment have the option that their advice names, and write no empty mask."

import numpy as np
import pytest
import tifffile
from PIL import Image

from petroscope.io.images import has_16_bits, read_image, read_mask, write_image, write_mask
from petroscope.segmentation.classes import LumenStoneClasses
from petroscope.segmentation.dataset import DatasetError, LumenStone
from petroscope.segmentation.model import CallableModel
from petroscope.segmentation.predict import predict_file
from petroscope.synth.rock import scene

TWO = LumenStoneClasses.S1v1.subset(["BG", "Py/Mrc"])
SECTION = scene((256, 340), seed=1, scale=0.5)


@pytest.fixture
def twelve(tmp_path):
    counts = SECTION.image.astype(np.uint32) * 4095 // 255
    tifffile.imwrite(tmp_path / "p.tif", counts.astype(np.uint16), photometric="rgb")
    return tmp_path / "p.tif"


@pytest.mark.parametrize("command, most", [("segment", 10**8), ("segment", 0), ("analyse", 10**8)])
def test_a_nearly_black_photo_gives_an_error_and_with_its_white_level_a_mask(
    tmp_path, here, monkeypatch, twelve, command, most
):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.setattr("petroscope.cli.segment.SECTION_PX", most)
    argv = (command, twelve, "--out", tmp_path / "o", "--scale", 0.5)
    status, _, errors = here(*argv)
    assert status == 1 and "nothing but background" in errors and "--white" in errors
    assert not list((tmp_path / "o").glob("*_mask*"))
    status, _, errors = here(*argv, "--white", 4095)
    assert status == 0, errors
    (mask,) = (tmp_path / "o").glob("p_mask.*")
    assert (read_mask(mask) == SECTION.mask).mean() > 0.8


def test_an_honest_dark_photo_of_8_bits_may_hold_nothing(tmp_path):
    def none(batch):
        return np.stack([np.ones(batch.shape[:3]), np.zeros(batch.shape[:3])], axis=1).astype(np.float32)

    Image.fromarray(np.full((40, 50, 3), 14, np.uint8)).save(tmp_path / "resin.tif")
    done = predict_file(CallableModel(TWO, none), tmp_path / "resin.tif", tmp_path / "m.tif", 1.0)
    assert done.pixels == {0: 2000}
    tifffile.imwrite(tmp_path / "deep.tif", np.full((40, 50, 3), 900, np.uint16), photometric="rgb")
    with (
        pytest.warns(UserWarning, match="nearly black"),
        pytest.raises(ValueError, match=r"deep\.tif: nothing but background.*--white"),
    ):
        predict_file(CallableModel(TWO, none), tmp_path / "deep.tif", tmp_path / "n.tif", 1.0)
    assert not (tmp_path / "n.tif").exists()


def test_bits_are_told_by_the_head_of_a_file(tmp_path):
    eight, deep = np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint16)
    for name, pixels, expected in (("a.png", eight, False), ("b.png", deep, True), ("c.tif", eight, False),
                                   ("d.tif", deep, True), ("e.jpg", eight, False)):  # fmt: skip
        Image.fromarray(pixels).save(tmp_path / name)
        assert has_16_bits(tmp_path / name) is expected, name


def test_a_dataset_of_nearly_black_photos_is_refused_with_the_way_out(tmp_path, twelve):
    for part in ("imgs", "masks"):
        (tmp_path / part / "train").mkdir(parents=True)
    photo = twelve.rename(tmp_path / "imgs/train/p.tif")
    write_mask(tmp_path / "masks/train/p.png", SECTION.mask)
    with pytest.raises(
        DatasetError, match=r"p\.tif: a photo of 16 bits whose brightest level is 1. of 255.*white=4095"
    ):
        LumenStone(tmp_path, "S1v1").check()
    write_image(photo, read_image(photo, white=4095))
    LumenStone(tmp_path, "S1v1").check()
