"Training: what settings mean, and when a run may be resumed."

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from petroscope.images import write_image, write_mask  # noqa: E402
from petroscope.segmentation.classes import LumenStoneClasses  # noqa: E402
from petroscope.segmentation.dataset import LumenStone  # noqa: E402
from petroscope.segmentation.resunet import ResUnet  # noqa: E402
from petroscope.segmentation.train import TrainConfig, fit  # noqa: E402
from petroscope.synth import scene  # noqa: E402

S1 = LumenStoneClasses.S1v1
QUICK = TrainConfig(steps=1, batch_size=1, patch_size=16, validate_every=1, scale=0.5, sampling="uniform")


def small_model():
    torch.manual_seed(0)
    return ResUnet(S1, filters=2, depth=1, scale=0.5, precision="float32")


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.net.parameters()])


@pytest.fixture(scope="module")
def section():
    return scene((64, 96), seed=3)


@pytest.fixture
def data(tmp_path):
    "Three photos with their masks, as files."
    for name in ("a", "b", "c"):
        drawn = scene((48, 64), seed=ord(name))
        for part in ("imgs/train", "masks/train"):
            (tmp_path / "set" / part).mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / f"set/imgs/train/{name}.png", drawn.image)
        write_mask(tmp_path / f"set/masks/train/{name}.png", drawn.mask)
    return tmp_path / "set"


pytestmark = pytest.mark.filterwarnings("ignore:no pixel of")


def train(root, out, resume=False, model=None):
    pairs = LumenStone(root, S1).pairs
    model = model or small_model()
    fit(model, pairs[:2], QUICK, held_out=pairs[2:], out=out, resume=resume, progress=False)
    return model


# ---- the gradient


def test_a_clip_of_0_is_no_clip(section):
    moved = {}
    for clip in (0, 1e6, 1e-3):
        model = small_model()
        before = weights(model)
        config = TrainConfig.from_dict({**vars(QUICK), "gradient_clip": clip, "weight_decay": 0})
        history = fit(model, [section], config, progress=False)
        moved[clip] = weights(model) - before
        assert history[-1]["step"] == 1
    assert moved[0].abs().max() > 1e-4, "nothing was learned"
    torch.testing.assert_close(moved[0], moved[1e6], rtol=0, atol=0)


@pytest.mark.parametrize("settings, message", [
    ({"gradient_clip": -1}, "gradient_clip must be a number >= 0, got -1"),
    ({"gradient_clip": "off"}, "gradient_clip: expected a number, got 'off'"),
    ({"steps": 2.5}, "steps: expected a whole number, got 2.5"),
    ({"noise": None}, "noise: expected a number, got None"),
    ({"seed": True}, "seed: expected a whole number, got True"),
])  # fmt: skip
@pytest.mark.parametrize("make", [lambda settings: TrainConfig(**settings), TrainConfig.from_dict])
def test_a_setting_that_means_nothing_is_refused(make, settings, message):
    with pytest.raises(ValueError) as refused:
        make(settings)
    assert message in str(refused.value)


# ---- what a run leaves behind that could not begin


def broken(root):
    (root / "imgs/train/a.png").write_bytes(b"no picture")


def test_a_run_that_cannot_begin_leaves_model_and_folder_alone(data, tmp_path):
    model = small_model()
    model.record = {"seed": 7}
    broken(data)
    with pytest.raises(ValueError, match=r"a\.png"):
        train(data, tmp_path / "run", model=model)
    assert model.record == {"seed": 7} and model.prior is None
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_go_on_leaves_the_model_alone(data, tmp_path):
    train(data, tmp_path / "run")
    model = small_model()
    model.record, before = {"seed": 7}, weights(model).clone()
    broken(data)
    with pytest.raises(ValueError, match=r"these photos or their masks were changed: a \(trained on\)"):
        train(data, tmp_path / "run", resume=True, model=model)
    assert model.record == {"seed": 7} and torch.equal(weights(model), before)


# ---- the photos of a run


def change_a_pixel(root):
    mask = scene((48, 64), seed=ord("b")).mask
    mask[0, 0] = 8 if mask[0, 0] != 8 else 6
    write_mask(root / "masks/train/b.png", mask)
    return "these photos or their masks were changed: b (trained on)"


def change_held_out(root):
    write_image(root / "imgs/train/c.png", np.zeros((48, 64, 3), np.uint8))
    return "these photos or their masks were changed: c (held out)"


def change_places(root):
    "The same two names with each other's content."
    for part in ("imgs", "masks"):
        a, b = (root / part / f"train/{name}.png" for name in "ab")
        a.rename(root / "x")
        b.rename(a)
        (root / "x").rename(b)
    return "these photos or their masks were changed: a (trained on), b (trained on)"


@pytest.mark.parametrize("change", [change_a_pixel, change_held_out, change_places])
def test_photos_of_another_content_are_not_gone_on_with(data, tmp_path, change):
    train(data, tmp_path / "run")
    message = change(data)
    with pytest.raises(ValueError) as refused:
        train(data, tmp_path / "run", resume=True)
    assert message in str(refused.value)


def test_another_order_of_the_photos_is_another_run(data, tmp_path):
    pairs = LumenStone(data, S1).pairs
    fit(small_model(), pairs, QUICK, out=tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="the photos come in another order"):
        fit(small_model(), pairs[::-1], QUICK, out=tmp_path / "run", resume=True, progress=False)


def test_a_folder_that_was_moved_holds_the_same_photos(data, tmp_path):
    first = train(data, tmp_path / "run")
    moved = shutil.move(data, tmp_path / "elsewhere")
    again = train(moved, tmp_path / "run", resume=True)
    assert torch.equal(weights(first), weights(again))
    np.testing.assert_array_equal(first.prior, again.prior)


def test_files_without_a_name_are_named_by_their_files(data, tmp_path):
    pairs = [(str(pair.image), str(pair.mask)) for pair in LumenStone(data, S1).pairs]
    model = small_model()
    fit(model, pairs, QUICK, out=tmp_path / "run", progress=False)
    assert model.record["trained_on"] == ["a", "b", "c"]
    assert json.loads((tmp_path / "run/config.json").read_text())["gradient_clip"] == 1.0


def test_a_state_of_an_earlier_version_is_refused(data, tmp_path):
    train(data, tmp_path / "run")
    file = tmp_path / "run/state.pt"
    state = torch.load(file, weights_only=True)
    del state["contents"]
    torch.save(state, file)
    with pytest.raises(ValueError, match=r"state\.pt: was written by an earlier version"):
        train(data, tmp_path / "run", resume=True)
