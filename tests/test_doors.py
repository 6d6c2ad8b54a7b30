"What is applied to a photo, and whether the model knows it: the same through segment, evaluate and analyse."

import csv
import json
import warnings

import numpy as np
import pytest

import petroscope as ps
from petroscope.analysis.section import analyse
from petroscope.cli.main import main
from petroscope.io.files import RECORD, RunFolder
from petroscope.io.images import write_image, write_mask
from petroscope.segmentation.classes import LumenStoneClasses
from petroscope.segmentation.domain import Domain, photo_features
from petroscope.segmentation.evaluate import SegmDetailedTester
from petroscope.segmentation.model import CallableModel
from petroscope.synth.rock import scene

TWO = LumenStoneClasses.S1v1.subset(["BG", "Py/Mrc"])
SECTION = scene((260, 340), seed=4, scale=0.5)
STRANGE = np.random.default_rng(0).integers(0, 256, (260, 340, 3), dtype=np.uint8)
HOW = {"flatfield": "none", "white_balance": "grey-world+exposure"}


def brightness(batch):
    light = batch.mean(axis=-1) / 255
    return np.stack([1 - light, light], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def knowing():
    "A model that knows drawn sections, their light and their pixel size."
    model = CallableModel(TWO, brightness)
    model.mean_color, model.pixel_size_um = (120.0, 110.0, 90.0), (0.5, 0.005)
    photos = [scene((260, 340), seed=seed, scale=0.5).image for seed in range(20, 36)]
    model.domain = Domain.learn(photo_features(photo) for photo in photos)
    return model


@pytest.fixture
def data(tmp_path):
    "Two photos with masks, one that the model knows and one of noise, of two pixel sizes."
    from PIL import Image

    for kind in ("imgs", "masks"):
        (tmp_path / f"data/{kind}/test").mkdir(parents=True)
    mask = np.where(SECTION.mask == 6, np.uint8(6), np.uint8(0))
    for name, image, size in (("a", SECTION.image, 0.5), ("b", STRANGE, 0.4)):
        across = 10000 / size
        Image.fromarray(image).save(tmp_path / f"data/imgs/test/{name}.png", dpi=(2.54 * across, 2.54 * across))
        write_mask(tmp_path / f"data/masks/test/{name}.png", mask)
    return tmp_path / "data"


def test_every_door_writes_the_same_record(knowing, data, tmp_path):
    photos = data / "imgs/test"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found in ps.segment(photos, knowing, **HOW):
            found.save(tmp_path / "s")
        evaluation = ps.evaluate(data, knowing, tmp_path / "e", pictures=False, **HOW)
        # Fields of one section have one pixel size.
        for name in "ab":
            analyse(photos / f"{name}.png", tmp_path / name, TWO, model=knowing, kind="photo", **HOW)
    scored = json.loads((tmp_path / "e/figures.json").read_text(encoding="utf-8"))["applied"]
    for name, scale in (("a", 1.0), ("b", 1.25)):
        record = json.loads((tmp_path / f"s/{name}_applied.json").read_text(encoding="utf-8"))
        section = json.loads((tmp_path / name / "analysis.json").read_text(encoding="utf-8"))["result"]
        assert record == scored[name]
        assert section["fields"][0]["applied"]["domain"] == record["domain"]
        assert section["fields"][0]["applied"]["white_balance"] == record["white_balance"]
        assert record["white_balance"]["name"] == "grey-world+exposure" and record["flat_field"] is None
        assert record["scale"]["value"] == pytest.approx(scale, rel=1e-3)
        assert record["scale"]["origin"].startswith(f"scale {scale:.3g}, from 0.")
        assert record["domain"]["known"] == (name == "a")
    assert evaluation.about["white balance"] == "grey-world+exposure"
    assert evaluation.about["scale of the photos"] == "1 to 1.25"
    assert evaluation.about["pixel size"] == "scale 1, from 0.5 um/px to scale 1.25, from 0.4 um/px"


def column(path, name):
    with open(path, newline="", encoding="utf-8-sig") as file:
        return [row[name] for row in csv.DictReader(file)]


def test_a_column_says_which_photos_the_model_knows(knowing, data, tmp_path):
    photos = sorted((data / "imgs/test").iterdir())
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for found in ps.segment(photos, knowing):
            found.save(tmp_path / "s")
        ps.evaluate(data, knowing, tmp_path / "e", pictures=False)
        arrays = [SECTION.image, STRANGE]
        analyse(arrays, tmp_path / "a", TWO, model=knowing, geojson=False)
    tables = [column(tmp_path / f"s/{name}_minerals.csv", "kind of photo")[0] for name in "ab"]
    assert tables[0] == "known" and "texture unknown in 100%" in tables[1] and len(tables[1]) < 100
    assert column(tmp_path / "e/photos.csv", "kind of photo") == tables
    kinds = column(tmp_path / "a/fields.csv", "kind of photo")
    assert kinds[0] == "known" and "texture unknown" in kinds[1]
    assert "texture unknown" in (tmp_path / "e/report.html").read_text(encoding="utf-8")
    assert "photo: known" in (tmp_path / "a/report.html").read_text(encoding="utf-8")
    said = [str(one.message) for one in heard]
    assert (
        sum(text.startswith("1 of 2 photos are unlike the photos that the model was trained on: b (") for text in said)
        == 1
    )
    assert sum(text.startswith("field_2: unlike the photos that the model was trained on") for text in said) == 1


def test_strict_leaves_strangers_out(knowing, data, tmp_path):
    with pytest.raises(ValueError, match=r"unlike the photos .*leave --strict"):
        ps.segment(STRANGE, knowing, strict=True)
    assert ps.segment(SECTION.image, knowing, strict=True).verdict.known
    with pytest.warns(UserWarning, match=r"1 photos are not in the figures: b \(unlike"):
        assert list(ps.evaluate(data, knowing, tmp_path / "e", pictures=False, strict=True).failures) == ["b"]
    section = analyse([SECTION.image, STRANGE], tmp_path / "a", TWO, model=knowing, geojson=False, strict=True)
    assert list(section.failures) == ["field_2"] and [one.name for one in section.fields] == ["field_1"]
    with pytest.raises(ValueError, match="strict is for a model"):
        SegmDetailedTester(tmp_path, TWO).test_on_set([(SECTION.image, SECTION.mask)], lambda image: 0, strict=True)


def test_the_commands_take_the_same_options(tmp_path, capsys):
    write_image(tmp_path / "noise.png", STRANGE)
    options = ["--white-balance", "grey-world", "--strict", "--scale", "1"]
    assert main(["segment", str(tmp_path / "noise.png"), "--out", str(tmp_path / "s"), *options]) == 1
    assert "unlike the photos that the model was trained on" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()  # nothing is left of what was refused
    assert main(["analyse", str(tmp_path / "noise.png"), "--photos", "--out", str(tmp_path / "a"), *options]) == 1
    assert "unlike the photos that the model was trained on" in capsys.readouterr().err
    for kind in ("imgs", "masks"):
        (tmp_path / f"{kind}/test").mkdir(parents=True)
    write_image(tmp_path / "imgs/test/n.png", STRANGE)
    write_mask(tmp_path / "masks/test/n.png", np.where(SECTION.mask == 6, np.uint8(6), np.uint8(0)))
    assert main(["evaluate", str(tmp_path), "--out", str(tmp_path / "e"), "--no-pictures", *options]) == 1
    assert "no photo could be evaluated: n (unlike the photos" in capsys.readouterr().err


def test_a_folder_in_which_nothing_was_written_is_not_left_behind(tmp_path):
    with (
        pytest.raises(ValueError, match="refused"),
        RunFolder(tmp_path / "o", "segment") as run,
        run.writing(["a.txt"]),
    ):
        raise ValueError("refused")
    assert not (tmp_path / "o").exists()
    with RunFolder(tmp_path / "o", "segment") as run:
        with run.writing(["a.txt"]):
            (tmp_path / "o/a.txt").write_text("whole")
        with pytest.raises(ValueError, match="refused"), run.writing(["b.txt"]):
            raise ValueError("refused")
    assert (tmp_path / "o" / RECORD).exists()
