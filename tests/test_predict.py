"Prediction as a whole: the folded network, views, confidence, and a section from file to file."

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from petroscope.segmentation.classes import VOID, LumenStoneClasses
from petroscope.segmentation.illumination import WHITE_BALANCES, apply_gains, outside, white_balance_gains
from petroscope.segmentation.model import CallableModel
from petroscope.segmentation.predict import predict_file
from petroscope.synth.rock import scene

torch = pytest.importorskip("torch")
from petroscope.segmentation.resunet import ResUnet  # noqa: E402
from petroscope.segmentation.weights import weights_folder  # noqa: E402

TWO = LumenStoneClasses.S1v1.subset(["BG", "Py/Mrc"])


def brightness(batch):
    light = batch.mean(axis=-1) / 255
    return np.stack([1 - light, light], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def shipped():
    return ResUnet.pretrained("s1v1", precision="float32")


@pytest.fixture(scope="module")
def section():
    return scene((320, 400), seed=9200, scale=0.5)


def test_the_shipped_weights_say_how_to_use_them():
    import safetensors

    with safetensors.safe_open(weights_folder() / "s1v1.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()["petroscope"])
    model = ResUnet.pretrained("s1v1")
    for name in ("presence", "adaptation", "temperature"):
        assert getattr(model, name) == about[name], name
    assert list(model.mean_color) == about["light"] and 0.5 < model.temperature < 3


def test_shipped_answers_are_those_of_the_plain_network(shipped, section):
    "Folding, tiles and layout change nothing: the plain forward of the same weights gives the same probabilities."
    image = section.image[:, :, :]
    plain = CallableModel(shipped.classes, lambda b: _plain(shipped.net, b), shipped.scale)
    plain.multiple, plain.prior = 16, shipped.prior
    plain.presence, plain.adaptation, plain.temperature = shipped.presence, shipped.adaptation, shipped.temperature
    assert np.abs(plain.predict_probs(image, 0.5) - shipped.predict_probs(image, 0.5)).max() < 1e-3
    assert (plain.predict_image(image, 0.5) == shipped.predict_image(image, 0.5)).mean() > 0.9999


@torch.inference_mode()
def _plain(net, batch):
    x = torch.from_numpy(np.ascontiguousarray(batch)).permute(0, 3, 1, 2).contiguous().float() / 255
    return torch.softmax(net.eval()(x), dim=1).numpy()


def test_training_goes_on_with_the_network_that_predicted(shipped):
    "Predicting leaves the network as it is, and a changed weight is seen at once."
    model = ResUnet(TWO, filters=2, depth=1, precision="float32")
    patch = np.full((1, 8, 8, 3), 90, np.uint8)
    before = model.predict_batch(patch)
    model.net.train()
    truth = torch.zeros(2, 8, 8, dtype=torch.long)
    torch.nn.functional.cross_entropy(model.net(torch.rand(2, 3, 8, 8)), truth).backward()
    assert all(p.grad is not None for p in model.net.parameters())
    torch.optim.SGD(model.net.parameters(), 0.5).step()
    assert np.abs(model.predict_batch(patch) - before).max() > 1e-3


@pytest.mark.parametrize("views", [4, 8])
def test_views_of_a_mirrored_photo_are_mirrored(shipped, section, views):
    image = section.image[:128, :192]
    straight = shipped.predict_batch(image[None])
    assert straight.shape == (1, 7, 128, 192)
    from petroscope.segmentation.tiling import average_views

    predict = average_views(shipped.predict_batch, views)
    mirrored = predict(np.ascontiguousarray(image[None, ::-1, ::-1]))[..., ::-1, ::-1]
    assert np.abs(predict(image[None]) - mirrored).max() < 1e-4


def test_confidence_is_that_of_the_mask(shipped, section):
    said = shipped.predict(section.image, 0.5, probs=True)
    picked = np.take_along_axis(said.probs, shipped.classes.to_index(said.mask)[None].astype(int), 0)[0]
    assert np.array_equal(picked, said.confidence)
    assert np.allclose(said.probs.sum(axis=0), 1, atol=1e-4)
    assert np.array_equal(said.mask, shipped.predict_image(section.image, 0.5))


def test_a_large_photo_is_not_held(monkeypatch, shipped, section):
    "Label-shift correction from a sample, where the probabilities are too many to be held."
    import petroscope.segmentation.predict as pipeline

    held = shipped.predict_image(section.image, 0.5)
    monkeypatch.setattr(pipeline, "HELD", 1)
    assert (shipped.predict_image(section.image, 0.5) == held).mean() > 0.95


@pytest.mark.parametrize("layout", [{}, {"tile": (128, 64), "compression": "zlib"}, {"rowsperstrip": 7}])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_a_section_from_file_to_file_is_the_photo_in_memory(tmp_path, section, layout, scale):
    model = CallableModel(TWO, brightness, scale=1.0)
    tifffile.imwrite(tmp_path / "in.tif", section.image, photometric="rgb", **layout)
    how = {"tile": 128, "overlap": 32}
    predict_file(model, tmp_path / "in.tif", tmp_path / "out.tif", scale, **how)
    found, expected = tifffile.imread(tmp_path / "out.tif"), model.predict_image(section.image, scale, **how)
    assert found.shape == expected.shape and np.array_equal(found, expected)


def test_outside_of_a_mosaic(tmp_path, section):
    image = section.image.copy()
    image[:100, :150] = 0
    model = CallableModel(TWO, brightness, scale=0.5)
    for what, code in (("void", VOID), ("background", 0)):
        done = predict_file(model, image, tmp_path / "out.tif", 1.0, outside=what, confidence=tmp_path / "sure.tif")
        mask = tifffile.imread(tmp_path / "out.tif")
        assert (mask[:100, :150] == code).all() and (mask[110:, 160:] != VOID).all()
        assert (tifffile.imread(tmp_path / "sure.tif")[:100, :150] == 0).all()
        assert sum(done.pixels.values()) == mask.size
    assert outside(np.zeros((1, 1, 3), np.uint8)).all()


def test_memory_does_not_grow_with_the_height(tmp_path):
    "A section three times as high takes no more memory: rows are made as they are asked for."
    code = (
        "import resource, sys, numpy as np; sys.path.insert(0, {root!r})\n"
        "from petroscope.io.raster import Raster\n"
        "from petroscope.segmentation.predict import predict_file\n"
        "import petroscope.segmentation.predict as w\n"
        "from petroscope.segmentation.model import CallableModel\n"
        "from petroscope.segmentation.classes import LumenStoneClasses\n"
        "from contextlib import contextmanager\n"
        "two = LumenStoneClasses.S1v1.subset(['BG', 'Py/Mrc'])\n"
        "def f(b):\n    l = b[..., 0].astype(np.float32) / 255\n    return np.stack([1 - l, l], axis=1)\n"
        "@contextmanager\ndef rows(*_):\n"
        "    yield Raster(({height}, 1000), lambda a, b: (np.full((b - a, 1000, 3), 90, np.uint8), None))\n"
        "w.open_raster = rows\n"
        "predict_file(CallableModel(two, f, scale=0.25), np.zeros((1, 1, 3), np.uint8), {target!r}, 1.0)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    root = str(Path(__file__).parents[1])

    def peak(height):
        line = code.format(root=root, height=height, target=str(tmp_path / "out.tif"))
        return float(subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout)

    low, high = peak(2000), peak(10000)
    assert high < low + 15, (low, high)  # whole it would be 24 MB more as a photo, and 8 as a mask


def test_a_failed_run_leaves_the_mask_that_was_there(tmp_path):
    target = tmp_path / "mask.tif"
    predict_file(CallableModel(TWO, brightness), np.full((64, 64, 3), 200, np.uint8), target)
    before = target.read_bytes()

    def broken(batch):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        predict_file(CallableModel(TWO, broken), np.full((640, 640, 3), 200, np.uint8), target)
    assert target.read_bytes() == before and os.listdir(tmp_path) == ["mask.tif"]


def test_light():
    image = scene((120, 160), seed=1).image
    mean = image.reshape(-1, 3).mean(axis=0)
    warm = apply_gains(image, np.array([1.2, 1.0, 0.8]))
    for light in WHITE_BALANCES[2:]:
        back = apply_gains(warm, white_balance_gains(warm.reshape(-1, 3).mean(axis=0), light, mean))
        assert np.abs(back.reshape(-1, 3).mean(axis=0) - mean).max() < 8
    assert np.array_equal(apply_gains(image, np.ones(3)), image)
