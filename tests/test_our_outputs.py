"The output of one command is the input of the next: what belongs to a mask is no mask, and no photo."

import csv
import shutil

import numpy as np
import pytest
import tifffile

from petroscope.analysis.section import analyse
from petroscope.cli import main as cli
from petroscope.io.images import read_mask, write_image, write_mask
from petroscope.segmentation.classes import LumenStoneClasses
from petroscope.segmentation.evaluate import SegmDetailedTester
from petroscope.synth.rock import scene

S1 = LumenStoneClasses.S1v1


def run(capsys, *argv):
    status = cli.main([*map(str, argv)])
    said = capsys.readouterr()
    return status, said.out, said.err


def shares(folder):
    with open(folder / "modal.csv", newline="", encoding="utf-8-sig") as file:
        return {row["label"]: float(row["pixels"]) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    "Photos of two sections, their truths, and what `segment` makes of them."
    pytest.importorskip("torch", reason="PyTorch is not installed")
    root = tmp_path_factory.mktemp("chain")
    for part in ("photos", "truth"):
        (root / part).mkdir()
    for seed, name in enumerate("ab"):
        section = scene((160, 220), seed=seed, scale=0.5)
        write_image(root / "photos" / f"{name}.png", section.image)
        write_mask(root / "truth" / f"{name}.png", section.mask)
    argv = ["segment", root / "photos", "--out", root / "masks", "--scale", "0.5", "--confidence"]
    assert cli.main([*map(str, argv)]) == 0
    return root


def test_a_folder_of_results_is_analysed_as_its_masks_alone(segmented, tmp_path, capsys):
    status, _, errors = run(capsys, "analyse", segmented / "masks", "--out", tmp_path / "all")
    assert status == 0 and errors.count("left out") == 1 and "a_colored.png" in errors
    masks = [segmented / "masks" / f"{name}_mask.png" for name in "ab"]
    assert run(capsys, "analyse", *masks, "--out", tmp_path / "named")[0] == 0
    assert shares(tmp_path / "all") == shares(tmp_path / "named")
    counted = sum((read_mask(path) == 6).sum() for path in masks)
    assert shares(tmp_path / "all")["Py/Mrc"] == counted


def test_a_copy_without_the_record_is_understood_by_names(segmented, tmp_path, capsys):
    shutil.copytree(segmented / "masks", tmp_path / "copy", ignore=shutil.ignore_patterns("petroscope_files*"))
    assert run(capsys, "analyse", tmp_path / "copy", "--out", tmp_path / "copied")[0] == 0
    assert run(capsys, "analyse", segmented / "masks", "--out", tmp_path / "first")[0] == 0
    assert shares(tmp_path / "copied") == shares(tmp_path / "first")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_masks_of_segment_are_predictions(segmented, tmp_path, capsys, suffix):
    shutil.copytree(segmented / "masks", tmp_path / "masks")
    if suffix == ".tif":
        for path in (tmp_path / "masks").glob("*_mask.png"):
            tifffile.imwrite(path.with_suffix(".tif"), read_mask(path), photometric="minisblack")
            path.unlink()
    argv = ("--target", segmented / "truth", "--classes", "S1v1", "--out", tmp_path / "scores")
    with pytest.warns(UserWarning, match=r"left out what belongs to masks: a_colored\.png, a_confidence\.png"):
        result = SegmDetailedTester(tmp_path / "api", S1).test_predictions(tmp_path / "masks", segmented / "truth")
    assert [record.stem for record in result.records] == ["a", "b"]
    assert run(capsys, "evaluate", "--pred", tmp_path / "masks", *argv)[0] == 0


def test_own_plots_beside_predictions_are_no_predictions(segmented, tmp_path, capsys):
    for path in (segmented / "masks").glob("*_mask.png"):
        shutil.copy(path, tmp_path)
    argv = ("--target", segmented / "truth", "--classes", "S1v1", "--out", tmp_path)
    assert run(capsys, "evaluate", "--pred", tmp_path, *argv)[0] == 0
    assert list(tmp_path.glob("confusion.png"))
    status, _, errors = run(capsys, "evaluate", "--pred", tmp_path, *argv)
    assert status == 0, errors


def test_two_predictions_of_one_name_are_refused(segmented, tmp_path):
    for name in "ab":
        mask = read_mask(segmented / "masks" / f"{name}_mask.png")
        write_mask(tmp_path / f"{name}_mask.png", mask)
        tifffile.imwrite(tmp_path / f"{name}_mask.tif", mask, photometric="minisblack")
    with pytest.raises(ValueError, match=r"both a_mask\.(png|tif) and a_mask\.(png|tif)"):
        SegmDetailedTester(tmp_path / "out", S1).test_predictions(tmp_path, segmented / "truth")


def test_results_are_no_photos(segmented, tmp_path, capsys):
    status, _, errors = run(capsys, "segment", segmented / "masks", "--out", tmp_path / "o", "--scale", 0.5)
    assert status == 1 and "got only masks and their companions" in errors and not (tmp_path / "o").exists()
    shutil.copytree(segmented / "masks", tmp_path / "mixed")
    shutil.copy(segmented / "photos/a.png", tmp_path / "mixed")
    status, _, errors = run(capsys, "segment", *sorted((tmp_path / "mixed").glob("*.*g")), "--out", tmp_path / "o",
                            "--scale", 0.5)  # fmt: skip
    assert status == 0 and errors.count("left out") == 1
    assert {path.name for path in (tmp_path / "o").glob("*_mask.png")} == {"a_mask.png"}


def test_a_mask_drawn_by_hand_beside_its_photo_is_no_photo(tmp_path, capsys, monkeypatch):
    section = scene((60, 80), seed=1, scale=0.5)
    write_image(tmp_path / "a.jpg", section.image)
    write_mask(tmp_path / "a_mask.png", section.mask)
    write_image(tmp_path / "lens_overlay.jpg", section.image)  # a photo that is called so, without any mask beside it
    seen = []
    monkeypatch.setattr("petroscope.cli.segment.load_model", lambda args: None)
    monkeypatch.setattr("petroscope.cli.segment._segment_photo", lambda model, path, *_: seen.append(path.name) or [])
    status, _, errors = run(capsys, "segment", tmp_path, "--out", tmp_path / "o")
    assert status == 0 and seen == ["a.jpg", "lens_overlay.jpg"] and "a_mask.png" in errors


def test_masks_and_photos_in_one_call_are_refused(tmp_path, capsys):
    section = scene((60, 80), seed=1, scale=0.5)
    write_image(tmp_path / "a.png", section.image)
    write_mask(tmp_path / "b.png", section.mask)

    def by_light(image):
        return np.where(image.mean(axis=2) > 120, np.uint8(6), np.uint8(0))

    with pytest.raises(ValueError, match=r"got both \(masks: b; photos: a\); name one kind only"):
        analyse([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "o", model=by_light)
    status, _, errors = run(capsys, "analyse", tmp_path / "a.png", tmp_path / "b.png", "--out", tmp_path / "o")
    assert status == 1 and "got both" in errors and not list((tmp_path / "o").glob("*.csv"))
    analyse([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "o", model=by_light, kind="photo")
    # A file that cannot be read is told in its turn; it is neither.
    (tmp_path / "c.png").write_bytes(b"not a picture")
    section = analyse([tmp_path / "b.png", tmp_path / "c.png"], tmp_path / "p")
    assert list(section.failures) == ["c"] and [field.kind for field in section.fields] == ["mask"]


def test_a_stitched_panorama_is_a_photo_and_its_preview_is_none(tmp_path, capsys, monkeypatch):
    for name in ("s.ome.tif", "s_preview.jpg", "s_geometry.json", "old_preview.jpg"):
        (tmp_path / name).touch()
    seen = []
    monkeypatch.setattr("petroscope.cli.segment.load_model", lambda args: None)
    monkeypatch.setattr("petroscope.cli.segment._is_section", lambda path: seen.append(path.name))
    monkeypatch.setattr("petroscope.cli.segment._segment_photo", lambda *_: [])
    assert run(capsys, "segment", tmp_path, "--out", tmp_path / "o")[0] == 0
    assert sorted(seen) == ["old_preview.jpg", "s.ome.tif"]
