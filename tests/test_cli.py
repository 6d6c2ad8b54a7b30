"The command line as a user meets it: a process, files, one line for each error, and nothing lost."

import csv
import json
import os
import shutil
import subprocess

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from petroscope.io.files import RunFolder  # noqa: E402
from petroscope.io.images import read_image, read_mask, write_image, write_mask  # noqa: E402
from petroscope.segmentation.classes import LumenStoneClasses  # noqa: E402
from petroscope.synth.rock import scene  # noqa: E402


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "рудный шлиф 1.jpg"
    write_image(path, scene((120, 170), seed=11).image)
    return path


def one_line(err):
    assert len(err.splitlines()) == 1, err
    assert err.startswith("petroscope: error: ")
    assert "Traceback" not in err
    return err


def test_segment_writes_three_files_that_agree(petroscope, photo, tmp_path):
    status, _, err = petroscope("segment", photo, "--out", tmp_path / "out", "--scale", 0.5)
    assert (status, err) == (0, "")
    mask = read_mask(tmp_path / "out" / f"{photo.stem}_mask.png")
    assert mask.shape == (120, 170) and np.isin(mask, LumenStoneClasses.S1v1.codes).all()
    assert read_image(tmp_path / "out" / f"{photo.stem}_overlay.jpg").shape[0] >= 120
    with open(tmp_path / "out" / f"{photo.stem}_minerals.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["label", "name", "pixels", "area %", "area % without label shift", "kind of photo"]
    for row, mineral in zip(rows, LumenStoneClasses.S1v1, strict=True):
        assert (row["label"], row["name"]) == (mineral.label, mineral.name)
        assert int(row["pixels"]) == (mask == mineral.code).sum()
        assert float(row["area %"]) == pytest.approx(100 * int(row["pixels"]) / mask.size, abs=1e-3)


def broken_photos(folder):
    "Every broken photo that a user has ever sent, by what the message must name."
    whole = folder / "whole.jpg"
    write_image(whole, scene((120, 170), seed=3).image)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (folder / "text.png").write_text("this is a letter, not a photo")
    return [folder / name for name in ("missing.jpg", "empty.jpg", "truncated.jpg", "text.png")]


def test_each_broken_photo_is_one_line_and_the_good_one_is_done(petroscope, tmp_path):
    broken = broken_photos(tmp_path)
    status, _, err = petroscope("segment", *broken, tmp_path / "whole.jpg", "--out", tmp_path / "out")
    assert status == 1
    lines = err.splitlines()
    assert len(lines) == len(broken) + 1 and "Traceback" not in err
    for path, line in zip(broken, lines):
        assert path.name in line
    assert (tmp_path / "out/whole_mask.png").exists()


def test_a_single_pixel_is_a_photo(here, tmp_path):
    write_image(tmp_path / "dot.png", np.full((1, 1, 3), (200, 190, 150), np.uint8))
    status, _, err = here("segment", tmp_path / "dot.png", "--out", tmp_path / "out")
    assert (status, err) == (0, "")
    assert read_mask(tmp_path / "out/dot_mask.png").shape == (1, 1)


def test_two_photos_of_one_stem_are_refused_before_work(here, photo, tmp_path):
    (tmp_path / "b").mkdir()
    shutil.copy(photo, tmp_path / "b" / photo.name)
    status, _, err = here("segment", photo, tmp_path / "b" / photo.name, "--out", tmp_path / "out")
    assert status == 1 and "same name" in one_line(err)
    assert not (tmp_path / "out").exists()


def test_a_photo_of_half_size_without_scale_is_warned_of(here, tmp_path, monkeypatch):
    monkeypatch.setattr("petroscope.segmentation.tiling.LUMENSTONE_SHAPE", (180, 240))  # smaller than any is
    write_image(tmp_path / "half.jpg", np.full((90, 120, 3), (90, 84, 78), np.uint8))
    status, _, err = here("segment", tmp_path / "half.jpg", "--out", tmp_path / "out")
    assert status == 0 and "warning" in err and "--scale 0.5" in err
    status, _, err = here("segment", tmp_path / "half.jpg", "--out", tmp_path / "out", "--scale", 0.5)
    assert status == 0 and "--scale" not in err


def test_a_photo_unlike_the_training_photos_is_warned_of_and_refused_if_asked(here, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    write_image(tmp_path / "noise.png", noise)
    status, _, err = here("segment", tmp_path / "noise.png", "--out", tmp_path / "out")
    assert status == 0 and "noise.png: unlike the photos that the model was trained on: more colourful" in err
    refused = tmp_path / "refused"
    status, _, err = here("segment", tmp_path / "noise.png", "--out", refused, "--strict")
    assert status == 1 and "leave --strict (strict=True) out" in one_line(err)
    assert not (refused / "noise_mask.png").exists()


@pytest.fixture
def dataset(tmp_path):
    for n in range(2):
        drawn = scene((150, 200), ("BG", "Sph", "Py/Mrc"), seed=20 + n)
        for part, write, name, picture in (
            ("imgs", write_image, f"{n}.jpg", drawn.image),
            ("masks", write_mask, f"{n}.png", drawn.mask),
        ):
            (tmp_path / "set" / part / "test").mkdir(parents=True, exist_ok=True)
            write(tmp_path / "set" / part / "test" / name, picture)
    return tmp_path / "set"


def test_evaluate_writes_the_agreed_figures(here, dataset, tmp_path, plain_plots):
    argv = ("evaluate", dataset, "--split", "test", "--classes", "S1v1", "--out", tmp_path / "out", "--scale", 0.5)
    status, out, err = here(*argv)
    assert (status, err) == (0, "")
    figures = json.loads((tmp_path / "out/metrics.json").read_text())
    assert set(figures) == {"iou", "mean_iou", "accuracy", "void_borders", "images"}
    assert set(figures["void_borders"]) == {"iou", "mean_iou", "accuracy"}
    assert list(figures["iou"]) == list(LumenStoneClasses.S1v1.labels)
    present = [x for x in figures["iou"].values() if x is not None]
    assert figures["mean_iou"] == pytest.approx(np.mean(present))
    assert figures["images"] == 2 and f"{figures['mean_iou']:.4f}" in out


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda s: write_mask(s / "masks/test/0.png", np.zeros((9, 9), np.uint8)), "the mask is 9 x 9 px"),
        (lambda s: write_mask(s / "masks/test/0.png", np.full((150, 200), 77, np.uint8)), "code 77"),
        (lambda s: (s / "masks/test/1.png").unlink(), "has no mask"),
        (lambda s: (s / "imgs/test/1.jpg").write_bytes(b"\xff\xd8\xff"), "1.jpg"),
    ],
)
def test_a_damaged_dataset_is_told_before_any_work(here, dataset, tmp_path, damage, named):
    damage(dataset)
    status, _, err = here("evaluate", dataset, "--out", tmp_path / "out")
    assert status == 1 and named in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_pickle_that_runs_code_is_refused(here, photo, tmp_path):
    import torch

    class Trap:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/sprung",)

    torch.save({"out.weight": Trap()}, tmp_path / "trap.pth")
    argv = ("segment", photo, "--out", tmp_path / "out", "--weights", tmp_path / "trap.pth")
    status, _, err = here(*argv)
    assert status == 1 and "refused" in one_line(err)
    assert not (tmp_path / "sprung").exists()


def test_a_folder_that_cannot_be_written_is_one_line(here, photo):
    # Nobody may make a folder there, not even root.
    status, _, err = here("segment", photo, "--out", "/proc/petroscope")
    assert status == 1 and "/proc/petroscope" in one_line(err)


@pytest.fixture
def small_disk(tmp_path):
    "A disk of 64 KiB."
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here: that takes root's rights")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_line_and_keeps_what_was_there(here, photo, small_disk):
    with RunFolder(small_disk, "segment") as run, run.writing([f"{photo.stem}_mask.png"]):
        write_mask(small_disk / f"{photo.stem}_mask.png", np.zeros((120, 170), np.uint8))
    before = (small_disk / f"{photo.stem}_mask.png").read_bytes()
    (small_disk / "filler").write_bytes(bytes(56 * 1024))
    large = photo.with_name(f"{photo.stem}.png")
    rng = np.random.default_rng(0)
    write_image(large, rng.integers(0, 256, (900, 900, 3), dtype=np.uint8))
    status, _, err = here("segment", large, "--out", small_disk)
    assert status == 1 and "space" in one_line(err.splitlines()[-1])
    # Either the old mask or a whole new one stands there, and no half of anything.
    kept = read_mask(small_disk / f"{photo.stem}_mask.png")
    assert kept.shape == (900, 900) or (small_disk / f"{photo.stem}_mask.png").read_bytes() == before
    assert not [p for p in small_disk.iterdir() if p.name.startswith((".", "tmp"))]


def test_debug_shows_the_traceback(petroscope, tmp_path):
    status, _, err = petroscope("segment", tmp_path / "gone.jpg", "--out", tmp_path / "out", "--debug")
    assert status != 0 and "Traceback" in err


def test_train_writes_weights_that_segment(petroscope, here, dataset, photo, tmp_path):
    small = ("--filters", 2, "--depth", 1, "--set", "steps=2", "--set", "batch_size=2", "--set", "patch_size=32")
    run = tmp_path / "run"
    status, out, err = petroscope("train", dataset, "--split", "test", "--hold-out", 0.5, "--out", run, *small)
    assert status == 0, err
    assert "best mean IoU" in out and (run / "best.safetensors").exists()
    status, _, err = here("segment", photo, "--out", tmp_path / "out", "--weights", run / "best.safetensors")
    assert status == 0, err
    status, _, err = here("train", dataset, "--split", "test", "--hold-out", 0.5, "--out", run, *small)
    assert status == 1 and "holds a training run already" in err
    kept = (run / "best.safetensors").read_bytes()
    again = ("train", dataset, "--split", "test", "--hold-out", 0.5, "--out", run)
    status, _, err = here(*again, "--resume", "--filters", 4, "--depth", 1)
    assert status == 1 and "network was" in err and len(err.splitlines()) == 1
    status, _, err = here(*again[:-1], tmp_path / "other", "--init", run / "best.safetensors", "--depth", 2)
    assert status == 1 and "leave them out" in err
    assert (run / "best.safetensors").read_bytes() == kept
    more = ("--set", "steps=4", "--resume")
    status, _, err = here("train", dataset, "--split", "test", "--hold-out", 0.5, "--out", run, *small, *more)
    assert status == 1 and "steps was 2, is 4" in err
    assert json.loads((run / "run.json").read_text())["starts"][0]["command"][:2] == ["petroscope", "train"]


def test_crossval_goes_fold_by_fold(here, dataset, tmp_path):
    small = ("--filters", 2, "--depth", 1, "--set", "steps=2", "--set", "batch_size=2", "--set", "patch_size=32")
    small += ("--split", "test", "--tensorboard", "off")
    argv = ("crossval", dataset, "--folds", 2, "--out", tmp_path / "cv", *small)
    status, out, err = here(*argv, "--fold", 1)
    assert status == 0 and "not scored yet: fold 0" in out, err
    status, out, err = here(*argv, "--select", "inner")
    assert status == 1 and "select was 'last', is 'inner'" in err
    status, out, err = here(*argv)
    assert status == 0 and "0.8373" in out and "not scored yet" not in out, err
    status, collected, err = here("crossval", "--collect", tmp_path / "cv")
    assert status == 0 and collected.strip() in out, err
    status, beside, err = here("crossval", "--collect", tmp_path / "cv", tmp_path / "cv")
    assert status == 0 and "runs that have scored a fold: fold 0: 2, fold 1: 2" in beside, err
    scores = json.loads((tmp_path / "cv/scores.json").read_text())
    assert scores["missing"] == [] and set(scores["void_borders"]["intervals"]) >= {"Gl", "mean"}
