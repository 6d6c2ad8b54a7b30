"A training whose photos are divided by a flat field: what the weights keep, and where they use it."

from dataclasses import replace

import numpy as np
import pytest

import petroscope as ps

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from petroscope.io.images import read_image, write_image  # noqa: E402
from petroscope.optics.flatfield import FlatField  # noqa: E402
from petroscope.segmentation.classes import LumenStoneClasses  # noqa: E402
from petroscope.segmentation.dataset import LumenStone  # noqa: E402
from petroscope.segmentation.domain import Domain, photo_features  # noqa: E402
from petroscope.segmentation.resunet import ResUnet  # noqa: E402
from petroscope.segmentation.train import train  # noqa: E402
from petroscope.segmentation.training.config import TrainConfig  # noqa: E402
from petroscope.synth.rock import scene  # noqa: E402

S1 = LumenStoneClasses.S1v1
QUICK = TrainConfig(steps=2, batch_size=1, patch_size=16, validate_every=1, scale=0.5, sampling="uniform")

pytestmark = pytest.mark.filterwarnings("ignore:no pixel of")


def uneven():
    "A gain that polynomials describe to the last digit, for photos of 64 x 48 px."
    y, x = np.meshgrid(np.linspace(-1, 1, 48), np.linspace(-1, 1, 64), indexing="ij")
    gain = np.repeat(np.exp(-0.2 * (y * y + x * x))[..., None], 3, axis=2)
    return FlatField((gain / gain.mean((0, 1))).astype(np.float32), source="a formula")


def small_model():
    torch.manual_seed(0)
    return ResUnet(S1, filters=2, depth=1, scale=0.5, precision="float32")


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.net.parameters()])


def trained(root, model=None, **options):
    pairs, model = list(LumenStone(root, S1)), model or small_model()
    train(model, pairs[:2], QUICK, held_out=pairs[2:], progress=False, **options)
    return model


def test_it_is_a_training_on_photos_that_are_even(data, tmp_path):
    "In memory and on disk; the weights keep what the photos were divided by."
    flat = uneven()
    model = trained(data, flatfield=flat, out=tmp_path / "a")
    assert model.flatfield.shape == (96, 128) and model.flatfield.source == "a formula"
    options = {"memory_budget_gb": 0.0, "cache_dir": tmp_path / "cache"}
    assert torch.equal(weights(trained(data, flatfield=flat, **options)), weights(model))
    plain = trained(data, out=tmp_path / "plain")
    assert plain.flatfield is None and not torch.equal(weights(plain), weights(model))
    for path in (data / "imgs/train").glob("*.png"):
        write_image(path, model.flatfield.apply(read_image(path)))
    even = trained(data)
    assert torch.equal(weights(even), weights(model))


def test_the_weights_use_it_for_photos_of_the_same_camera(data, tmp_path):
    model = trained(data, flatfield=uneven(), out=tmp_path / "a")
    photo = read_image(data / "imgs/train/a.png")
    for known in (model, ResUnet.load(tmp_path / "a/best.safetensors"), model.with_classes(S1.subset(["BG", "Gl"]))):
        said = known.predict(photo, 0.5)
        assert said.applied.flatfield.startswith("a formula (gain ")
        assert np.array_equal(said.mask, known.predict(known.flatfield.apply(photo), 0.5, flatfield="none").mask)
        assert not known.predict(photo, 1.0).applied.flatfield and not known.predict(photo[:40], 0.5).applied.flatfield
    assert model.record["flatfield"].startswith("a formula (gain ")


def test_photos_are_judged_as_the_network_sees_them(data):
    model = trained(data, flatfield=uneven())
    model.domain = Domain.learn(photo_features(scene((48, 64), seed=seed).image) for seed in range(12))
    photo = read_image(data / "imgs/train/a.png")
    judged = model.judge(photo, 0.5)
    assert repr(judged) == repr(model.judge(model.flatfield.apply(photo), 0.5, flatfield="none"))
    assert repr(judged) != repr(model.judge(photo, 0.5, flatfield="none"))


def test_a_training_that_goes_on_keeps_it(data, tmp_path):
    first = trained(data, flatfield=uneven(), out=tmp_path / "a")
    again = trained(data, ResUnet.load(tmp_path / "a/best.safetensors"))
    assert np.allclose(again.flatfield.gain, first.flatfield.gain, atol=1e-3)
    assert trained(data, ResUnet.load(tmp_path / "a/best.safetensors"), flatfield="none").flatfield is None


def test_a_resumed_training_takes_up_the_flat_field_that_it_began_with(data, tmp_path):
    first = trained(data, flatfield=uneven(), out=tmp_path / "a")
    again = trained(data, out=tmp_path / "a", resume=True)
    assert np.array_equal(again.flatfield.gain, first.flatfield.gain) and again.record == first.record
    with pytest.raises(ValueError, match=r"flatfield was 'a formula \(gain .*, is ''"):
        trained(data, out=tmp_path / "a", flatfield="none", resume=True)
    other = FlatField(uneven().gain, source="another formula")
    with pytest.raises(ValueError, match=r"flatfield was 'a formula \(gain .*, is 'another formula \(gain"):
        trained(data, out=tmp_path / "a", flatfield=other, resume=True)
    # Weights that training begins with do not change what a run goes on with.
    trained(data, out=tmp_path / "b")
    assert (
        trained(data, ResUnet.load(tmp_path / "a/best.safetensors"), out=tmp_path / "b", resume=True).flatfield is None
    )


def test_training_learns_the_mean_colour_of_its_photos(data, tmp_path):
    model = trained(data, out=tmp_path / "a")
    photos = [read_image(data / f"imgs/train/{name}.png") for name in "ab"]
    shown = [photo[photo.max(axis=2) > 0].mean(axis=0) for photo in photos]
    np.testing.assert_allclose(model.mean_color, np.mean(shown, axis=0), atol=1.5)
    assert ResUnet.load(tmp_path / "a/best.safetensors").mean_color == model.mean_color
    found = ps.segment(photos[0], model, scale=0.5, white_balance="grey-world")
    assert "grey-world" in found.applied.white_balance


def test_photos_of_another_frame_are_refused(data):
    pairs, model = list(LumenStone(data, S1)), small_model()
    with pytest.raises(ValueError, match="expected at least 8 photos to find a flat field from, got 2"):
        train(model, pairs[:2], QUICK, flatfield="auto", progress=False)
    image, mask = pairs[2].read()
    held = [replace(pairs[2], image=image[:40], mask=mask[:40])]
    with pytest.raises(
        ValueError, match=r"c: has 64 x 40 px, but the flat field \(a formula\) is of photos that have 64 x"
    ):
        train(model, pairs[:2], QUICK, held_out=held, flatfield=uneven(), progress=False)
    assert model.flatfield is None


def test_damaged_metadata_are_refused(data, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    trained(data, flatfield=uneven(), out=tmp_path / "a")
    with safe_open(tmp_path / "a/best.safetensors", "pt") as file:
        about = file.metadata()["petroscope"]
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(state, tmp_path / "b.safetensors", {"petroscope": about.replace('"log_gain"', '"gone"')})
    with pytest.raises(ValueError, match=r"b.safetensors: its flat field is damaged"):
        ResUnet.load(tmp_path / "b.safetensors")
