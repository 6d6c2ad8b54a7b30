"""A reference photo of a known mineral: measured, written, and applied before a photo is segmented."""

import json

import numpy as np
import pytest

from petroscope.cli.main import main
from petroscope.io.images import read_mask, write_image
from petroscope.optics.reference import Reference, calibrate_reference, measure_reference
from petroscope.optics.reflectance import REFLECTANCES, WAVELENGTHS, reflectance
from petroscope.segmentation.classes import LumenStoneClasses
from petroscope.segmentation.illumination import (
    LUMENSTONE_MEAN,
    MINERAL_COLORS,
    apply_gains,
    given_white_balance,
    training_color,
    white_balance_gains,
)
from petroscope.segmentation.model import CallableModel
from petroscope.segmentation.predict import predict_file
from petroscope.synth.rock import scene

GAINS = [(0.7, 0.7, 0.7), (1.15, 1.15, 1.15), (1.08, 1.0, 0.92), (0.92, 1.0, 1.08)]


def drawn_face(color, rng, shape=(120, 160)):
    "A polished face of one mineral: noise, pits, and corners 15 % darker than the middle."
    rows, columns = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    face = np.array(color) * (1 - 0.075 * (rows**2 + columns**2))[..., None] + rng.normal(0, 2, (*shape, 3))
    face[rng.random(shape) < 0.02] = 15
    return face.clip(0, 255).round().astype(np.uint8)


def brightness_model():
    "Two classes by the red channel, with the light of LumenStone."
    two = LumenStoneClasses.S1v1.subset(["BG", "Py/Mrc"])

    def probs(batch):
        bright = (batch[..., 0] > 100).astype(np.float32)
        return np.stack([1 - bright, bright], axis=1)

    model = CallableModel(two, probs)
    model.mean_color = LUMENSTONE_MEAN
    return model


@pytest.mark.parametrize("gains", GAINS)
@pytest.mark.parametrize("name", ["pyrite", "sphalerite", "magnetite", "silicon carbide"])
def test_known_gains_come_back(name, gains):
    known = reflectance(name)
    usual = training_color(Reference(name, known.percent, (1, 1, 1), ""), LUMENSTONE_MEAN)
    box = (50, 70, 20, 20)  # in the middle, where the drawn light is 1
    seen = measure_reference(drawn_face(np.array(usual) * gains, np.random.default_rng(1)), known, box)
    found = white_balance_gains(np.zeros(3), seen, LUMENSTONE_MEAN)
    np.testing.assert_allclose(found * gains, 1, atol=0.01)
    section = scene((120, 160), seed=3, variation=0).image
    changed = apply_gains(section, np.array(gains))
    back, whole = apply_gains(changed, found).astype(float), (changed < 255).all(axis=2) & (section.max(axis=2) < 250)
    np.testing.assert_allclose(back[whole].mean(axis=0) / section[whole].mean(axis=0), 1, atol=0.01)


def test_the_table_is_of_passive_surfaces_in_the_order_of_brightness():
    assert WAVELENGTHS == (470, 546, 589, 650)
    for row in REFLECTANCES.values():
        assert len(row.percent) == 4 and all(row.uncertainty < value < 100 for value in row.percent) and row.source
    green = {name: row.channels[1] for name, row in REFLECTANCES.items()}
    order = ["pyrite", "pentlandite", "galena", "pyrrhotite", "tetrahedrite", "magnetite", "sphalerite"]
    assert [green[name] for name in order] == sorted((green[name] for name in order), reverse=True)
    red, _, blue = reflectance("chalcopyrite").channels
    assert red > 1.3 * blue  # yellow
    assert set(MINERAL_COLORS) <= set(REFLECTANCES)


def test_record_of_what_was_applied(tmp_path):
    model, image = brightness_model(), np.full((64, 64, 3), 90, np.uint8)
    light = Reference(
        "pyrite", reflectance("pyrite").percent, tuple(0.5 * c for c in MINERAL_COLORS["pyrite"]), "p.jpg"
    )
    light.save(tmp_path / "light.json")
    plain, found = model.predict(image), model.predict(image, white_balance=tmp_path / "light.json")
    assert plain.applied.white_balance == "" and (plain.mask == 0).all()
    assert (
        found.applied.white_balance == "pyrite of p.jpg: red x 2.00, green x 2.00, blue x 2.00"
        and (found.mask == 6).all()
    )
    written = predict_file(model, image, tmp_path / "mask.tif", white_balance=light)
    assert written.applied.white_balance == found.applied.white_balance
    assert model.predict(image, white_balance="none").applied.white_balance == ""


def test_auto_finds_the_exposure_under_which_a_model_is_sure():
    "A model that is sure of two levels; the brightness that brings a photo to them is found to within a step."
    two = LumenStoneClasses.S1v1.subset(["BG", "Py/Mrc"])

    def probs(batch):
        off = [(batch[..., 0].astype(np.float32) - level) / 20 for level in (60, 180)]
        near = np.exp(-(np.stack(off, axis=1) ** 2)) + 0.05
        return near / near.sum(axis=1, keepdims=True)

    model = CallableModel(two, probs)
    levels = np.random.default_rng(0).choice([60, 180], (64, 64, 1)).repeat(3, axis=2).astype(np.uint8)
    for gain in (0.76, 1.0, 1.3):
        found = model.predict(apply_gains(levels, np.full(3, gain)), white_balance="auto")
        assert np.array_equal(found.mask == 6, levels[..., 0] == 180)
        factor = float(found.applied.white_balance.split("red x ")[1].split(",")[0])
        assert abs(factor * gain - 1) < 0.05, (gain, found.applied.white_balance)
    with pytest.raises(ValueError, match="asks a model what it is surest of"):
        white_balance_gains(np.ones(3), "auto", LUMENSTONE_MEAN)


def test_commands(tmp_path, capsys):
    rng = np.random.default_rng(0)
    write_image(tmp_path / "pyrite.png", drawn_face((150, 140, 120), rng))
    write_image(tmp_path / "photo.png", scene((96, 128), seed=1).image)
    light = tmp_path / "light.json"
    assert main(["calibrate", "--reference", f"Py={tmp_path / 'pyrite.png'}", "--out", str(light)]) == 0
    told = json.loads(light.read_text())
    assert told["mineral"] == "pyrite" and told["white"] is None and "--white-balance" in capsys.readouterr().out
    np.testing.assert_allclose(told["color"], (150, 140, 120), rtol=0.03)
    pytest.importorskip("torch")
    options = ["--scale", "0.25", "--weights", "s1v1-small", "--out", str(tmp_path / "out")]
    assert main(["segment", str(tmp_path / "photo.png"), *options, "--white-balance", str(light)]) == 0
    assert "white balance pyrite of pyrite.png: red x 1.4" in capsys.readouterr().out
    assert read_mask(tmp_path / "out" / "photo_mask.png").shape == (96, 128)
    assert main(["segment", str(tmp_path / "photo.png"), *options, "--white-balance", "sunny"]) != 0
    assert "expected none, auto, grey-world" in capsys.readouterr().err
    assert (
        main(["segment", str(tmp_path / "photo.png"), *options, "--white-balance", str(light), "--white", "4095"]) != 0
    )
    assert "has 8 bits, but the photos with 4095" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reference", "pyrite"], "expected MINERAL=PHOTO"),
        (["--reference", "pirite=even.png"], "nearest: pyrite"),
        (["--reference", "pyrite=none.png"], "none.png"),
        (["--reference", "pyrite=bright.png"], "bright.png: 100% of the reference is saturated"),
        (["--reference", "pyrite=black.png"], "black.png: the reference is nearly black"),
        (["--reference", "pyrite=mixed.png"], "mixed.png: too uneven to be pyrite alone: 33%"),
        (["--reference", "pyrite=even.png", "--box", "0", "0", "900", "9"], "expected a box of at least 8 x 8 px"),
        (["--reference", "WTiC=even.png", "--reflectance", "46", "47", "0", "50"], "expected reflectances of WTiC"),
        (["--reference", "pyrite=even.png", "--fields"], "a calibration of its own"),
        (["even.png", "--box", "0", "0", "9", "9"], "--box is of a reference photo"),
        ([], "expected photos of a mirror or of sections"),
    ],
)
def test_bad_input_gets_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mixed = np.full((80, 80, 3), 150, np.uint8)
    mixed[:, :32] = 90
    pictures = {"even": np.full_like(mixed, 150), "bright": np.full_like(mixed, 255), "black": np.full_like(mixed, 5)}
    for name, image in {**pictures, "mixed": mixed}.items():
        write_image(tmp_path / f"{name}.png", image)
    assert main(["calibrate", *arguments, "--out", "light.json"]) != 0
    said = capsys.readouterr().err.strip()
    assert message in said and len(said.splitlines()) == 1
    assert not (tmp_path / "light.json").exists()


def test_certificate_and_white_level(tmp_path):
    face = drawn_face((150, 140, 120), np.random.default_rng(0))
    write_image(tmp_path / "face.png", face)
    out = tmp_path / "light.json"
    made = calibrate_reference(tmp_path / "face.png", "WTiC", out, percent=(46, 47, 48, 50))
    assert given_white_balance(out) == made and made.percent == (46, 47, 48, 50)
    assert all(np.isfinite(training_color(made, LUMENSTONE_MEAN)))
    with pytest.raises(ValueError, match="not LumenStone's"):
        training_color(made, (50, 50, 50))
