"Scales that follow from pixel sizes: in Python, on the command line, and in weights."

import json

import numpy as np
import pytest
from PIL import Image

import petroscope as ps
from petroscope.segmentation.model import CallableModel
from petroscope.segmentation.stated_scale import stated_scale
from petroscope.synth.rock import scene


def model(known):
    "A model by brightness that notes how large the tiles were that it saw."
    seen = []

    def probabilities(batch):
        seen.append(batch.shape)
        bright = batch.mean(axis=3, dtype=np.float32)[:, None] / 255
        return np.concatenate([1 - bright, bright], axis=1)

    made = CallableModel(ps.LumenStoneClasses.S1v1.subset(["BG", "Py/Mrc"]), probabilities)
    made.pixel_size_um, made.seen = known, seen
    return made


def saved(path, image, size_um=None):
    "A TIFF that states its pixel size in pixels per centimetre."
    how = {} if size_um is None else {"resolution": 1e4 / size_um, "resolution_unit": 3}
    Image.fromarray(image).save(path, **how)
    return path


@pytest.fixture(scope="module")
def photo():
    return scene((90, 120), seed=2, scale=0.25).image


@pytest.mark.parametrize("size, side", [(0.25, (45, 60)), (0.5, (90, 120)), (1.0, (180, 240))])
def test_a_photo_is_brought_to_the_pixel_size_of_the_training_photos(photo, size, side, tmp_path):
    "Half the pixel size is twice the detail: the photo is halved. File and option say the same."
    for given in (
        {"photos": photo, "pixel_size_um": size},
        {"photos": saved(tmp_path / "a.tif", photo, size)},
        {"photos": saved(tmp_path / "b.tif", photo), "pixel_size_um": size},
    ):
        known = model((0.5, 0.0))
        found = ps.segment(model=known, label_shift=0, **given)
        assert known.seen[0][1:3] == side
        assert found.pixel_size_um == pytest.approx(size, rel=1e-4) and found.mask.shape == photo.shape[:2]


def test_a_stated_scale_is_taken_as_it_is(photo, tmp_path):
    known = model((0.5, 0.0))
    found = ps.segment(saved(tmp_path / "a.tif", photo, 0.25), known, scale=1.0, label_shift=0)
    assert known.seen[0][1:3] == photo.shape[:2] and found.pixel_size_um == pytest.approx(0.25, rel=1e-4)


def test_weights_that_know_no_pixel_size_leave_a_photo_as_it_is(photo, tmp_path):
    known = model(None)
    ps.segment(saved(tmp_path / "a.tif", photo, 0.25), known, label_shift=0)
    assert known.seen[0][1:3] == photo.shape[:2]
    with pytest.raises(ValueError, match="these weights do not know the pixel size"):
        ps.segment(photo, known, pixel_size_um=0.25)
    assert ps.segment(photo, known, scale=1.0, pixel_size_um=0.25, label_shift=0).pixel_size_um == 0.25


def test_contradictory_pixel_sizes_are_refused(photo, tmp_path):
    path = saved(tmp_path / "a.tif", photo, 0.5)
    with pytest.raises(ValueError, match=r"a\.tif: its file says 0\.5 um a pixel, but 0\.52 is stated"):
        ps.segment(path, model((0.5, 0.0)), pixel_size_um=0.52)
    assert ps.segment(path, model((0.5, 0.0)), pixel_size_um=0.505, label_shift=0).pixel_size_um == 0.505


def test_the_uncertainty_is_said_where_it_matters():
    assert stated_scale((0.567, 0.002), pixel_size_um=0.9).said == "scale 0.63, from 0.9 um/px"
    assert stated_scale((0.567, 0.0567), pixel_size_um=0.9).said == "scale 0.63 ± 0.063, from 0.9 um/px"


def test_an_evaluation_takes_the_scale_from_the_pixel_size(photo, tmp_path):
    from petroscope.segmentation.evaluate import SegmDetailedTester

    known = model((0.5, 0.0))
    tester = SegmDetailedTester(tmp_path / "out", known.classes, pictures=False)
    result = tester.test_on_set([(photo, np.zeros(photo.shape[:2], np.uint8))], known, pixel_size_um=0.25)
    assert known.seen[0][1:3] == (45, 60)
    assert result.about["pixel size"] == "scale 2, from 0.25 um/px" and result.about["scale of the photos"] == 2


def test_an_analysis_takes_the_scale_from_the_pixel_size(photo, tmp_path):
    known = model((0.5, 0.0))
    path = tmp_path / "a.png"
    Image.fromarray(photo).save(path)
    found = ps.analyse([path], tmp_path / "out", known, classes=known.classes, pixel_size_um=0.25, kind="photo")
    assert known.seen[0][1:3] == (45, 60) and found.about["scale"] == "scale 2, from 0.25 um/px"


def test_weights_keep_the_pixel_size_of_their_training_photos(tmp_path, photo, here):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[:, 60:] = 6
    settings = {"steps": 1, "batch_size": 2, "patch_size": 32, "validate_every": 1, "sampling": "uniform"}
    trained = ps.train([(photo, mask)], tmp_path / "run", held_out=(), scale=0.5, pixel_size_um=0.8,
                       pixel_size_error_um=0.04, progress=False, **settings)  # fmt: skip
    assert trained.pixel_size_um == pytest.approx((0.4, 0.02))  # at scale 1, photos have twice as many pixels
    assert json.loads((tmp_path / "run/config.json").read_text())["pixel_size_um"] == 0.8
    again = ps.load_model(tmp_path / "run/best.safetensors")
    assert again.pixel_size_um == pytest.approx((0.4, 0.02))
    fewer = again.classes.subset(["BG", "Py/Mrc"])
    assert again.with_classes(fewer).pixel_size_um == again.pixel_size_um
    path, weights = saved(tmp_path / "a.tif", photo), tmp_path / "run/best.safetensors"
    status, out, _ = here("segment", path, "--out", tmp_path / "masks", "--weights", weights, "--pixel-size-um", "0.4")
    assert status == 0 and "scale 1 ± 0.05, from 0.4 um/px" in out
    status, _, said = here("segment", path, "--out", tmp_path / "m", "--pixel-size-um", "0.4")
    assert status == 1 and "these weights do not know the pixel size" in said and said.count("\n") == 1
