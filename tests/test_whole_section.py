"Sections of several tiles, from file to file: what is counted and shown is what was written."

import csv

import numpy as np
import pytest
import tifffile

from petroscope.io.images import write_image
from petroscope.io.ometiff import TILE
from petroscope.segmentation.classes import VOID, LumenStoneClasses
from petroscope.segmentation.model import CallableModel
from petroscope.segmentation.predict import predict_file
from petroscope.synth.rock import scene

TWO = LumenStoneClasses.S1v1.subset(["BG", "Py/Mrc"])


def bright(batch):
    light = batch.mean(axis=-1) / 255
    return np.stack([1 - light, light], axis=1).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1), (200, 340), (TILE, TILE), (TILE + 1, 700), (2 * TILE, 300), (1300, 1100)])
@pytest.mark.parametrize("confidence", [False, True])
def test_counts_and_preview_are_those_of_the_written_mask(tmp_path, shape, confidence):
    image = np.random.default_rng(0).integers(1, 256, (*shape, 3), np.uint8)
    image[: shape[0] // 3, : shape[1] // 2] = 0
    sure = tmp_path / "sure.tif" if confidence else None
    done = predict_file(
        CallableModel(TWO, bright), image, tmp_path / "mask.tif", 1.0, confidence=sure, preview_px=400, outside="void"
    )
    mask = tifffile.imread(tmp_path / "mask.tif")
    assert mask.shape == shape
    assert done.pixels == {int(code): int(n) for code, n in zip(*np.unique(mask, return_counts=True), strict=True)}
    assert sum(done.pixels.values()) == mask.size
    assert done.preview_mask.shape == done.preview.shape[:2] and max(done.preview_mask.shape) == min(400, max(shape))
    height, width = done.preview_mask.shape
    rows = ((np.arange(height) + 0.5) * shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * shape[1] / width).astype(int)
    assert (done.preview_mask == mask[rows][:, columns]).all()


def test_no_preview_where_none_is_wanted(tmp_path):
    image = np.full((40, 50, 3), 200, np.uint8)
    done = predict_file(CallableModel(TWO, bright), image, tmp_path / "mask.tif", 1.0, preview_px=0)
    assert done.preview.size == done.preview_mask.size == 0 and done.pixels == {6: 2000}


@pytest.mark.parametrize("outside", ["void", "background", "keep"])
def test_segment_writes_mask_overlay_and_table_of_a_section_of_several_tiles(tmp_path, here, outside, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.setattr("petroscope.cli.segment.SECTION_PX", 0)
    write_image(tmp_path / "s.tif", scene(shape=(600, 700), seed=1, scale=0.5).image)
    status, _, errors = here(
        "segment", tmp_path / "s.tif", "--out", tmp_path / "o", "--scale", 0.5, "--outside", outside
    )
    assert status == 0, errors
    mask = tifffile.imread(tmp_path / "o" / "s_mask.tif")
    assert (tmp_path / "o" / "s_overlay.jpg").exists()
    with open(tmp_path / "o" / "s_minerals.csv", newline="", encoding="utf-8-sig") as file:
        counted = {row["label"]: int(row["pixels"]) for row in csv.DictReader(file)}
    expected = {m.label: int((mask == m.code).sum()) for m in LumenStoneClasses.S1v1}
    assert {label: n for label, n in counted.items() if n} == {label: n for label, n in expected.items() if n}
    assert sum(counted.values()) == (mask != VOID).sum() > 0


def test_what_no_one_foresaw_is_called_a_bug(tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from petroscope.cli import main as cli

    def broken(*_):
        raise AssertionError

    write_image(tmp_path / "p.png", np.full((40, 40, 3), 90, np.uint8))
    monkeypatch.setattr("petroscope.cli.segment._segment_photo", broken)
    assert cli.main(["segment", str(tmp_path / "p.png"), "--out", str(tmp_path / "o")]) == 1
    assert "AssertionError" in (said := capsys.readouterr().err) and "a bug; --debug shows where" in said


@pytest.mark.parametrize("height", [100, 256, 300, 700])
def test_black_outside_of_fields_is_void_in_a_section_of_any_height(tmp_path, height):
    "Also where the sample for the label shift has read all rows before."
    image = np.random.default_rng(0).integers(1, 256, (height, 300, 3), np.uint8)
    image[:, 180:] = 0
    model = CallableModel(TWO, bright)
    model.prior = np.array([0.5, 0.5])
    done = predict_file(model, image, tmp_path / "mask.tif", 1.0, outside="void")
    mask = tifffile.imread(tmp_path / "mask.tif")
    assert ((mask == VOID) == (np.arange(300) >= 180)).all() and done.pixels[VOID] == 120 * height
