"What `petroscope segment` takes and writes, as a user meets it."

import csv
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from petroscope.cli import main as cli
from petroscope.cli.parser import parser
from petroscope.cli.train import _settings
from petroscope.io.files import atomic_path
from petroscope.io.images import read_image, read_mask, write_mask
from petroscope.io.scale import pixel_size_um
from petroscope.segmentation.classes import LumenStoneClasses
from petroscope.synth.rock import scene
from petroscope.view.plot import colorize

S1 = LumenStoneClasses.S1v1


def run(capsys, *argv):
    status = cli.main([*map(str, argv)])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.fixture
def photos(tmp_path):
    "A folder with two photos whose files tell the pixel size, and what macOS keeps beside one."
    pytest.importorskip("torch", reason="PyTorch is not installed")
    (tmp_path / "photos").mkdir()
    for seed, name in enumerate("ab"):
        image = Image.fromarray(scene((160, 220), seed=seed, scale=0.5).image)
        image.save(tmp_path / "photos" / f"{name}.png", dpi=(25400 / 0.8,) * 2)
    (tmp_path / "photos" / "._a.png").write_bytes(b"\0\5\26\7")
    return tmp_path / "photos"


def test_a_folder_goes_beside_itself_with_all_that_was_promised(photos, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    status, out, errors = run(capsys, "segment", photos, "--scale", 0.5, "--confidence")
    assert status == 0 and "._a.png: left out" in errors
    folder = photos / "petroscope"
    ends = [
        "_applied.json",
        "_colored.png",
        "_confidence.jpg",
        "_confidence.png",
        "_mask.png",
        "_minerals.csv",
        "_overlay.jpg",
    ]
    assert sorted(path.name for path in folder.glob("[ab]_*")) == [f"{name}{end}" for name in "ab" for end in ends]
    for name in "ab":
        mask = read_mask(folder / f"{name}_mask.png")
        assert np.array_equal(read_image(folder / f"{name}_colored.png"), colorize(mask, S1))
        assert pixel_size_um(folder / f"{name}_mask.png") == pytest.approx(0.8, rel=1e-4)
        with open(folder / f"{name}_minerals.csv", newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        sure = read_mask(folder / f"{name}_confidence.png")
        for row in rows:
            there = mask == S1[row["label"]].code
            assert int(row["pixels"]) == there.sum() and 0 <= float(row["doubtful %"]) <= 100
            # Doubtful is below 60 %, but for places that are too small to be seen.
            assert float(row["doubtful %"]) <= 100 * (sure[there] < 61).mean() + 1e-3 if there.any() else True
            assert not there.any() or f"{row['name']}  " in out
    # Another run replaces its own files and takes none of them for photos.
    status, _, errors = run(capsys, "segment", photos, "--scale", 0.5, "--confidence")
    assert status == 0, errors


def test_analysis_knows_the_pixel_size_of_the_photo_by_its_mask(photos, capsys):
    assert run(capsys, "segment", photos / "a.png", "--scale", 0.5)[0] == 0
    status, out, _ = run(capsys, "analyze", photos / "petroscope", "--out", photos / "section")
    assert status == 0 and "0.8" in out


def test_photos_of_two_folders_need_a_place_for_results(tmp_path, capsys):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / name / f"{name}.png")
    status, _, errors = run(capsys, "segment", tmp_path / "x", tmp_path / "y")
    assert status == 1 and "2 folders" in errors and "--out DIR" in errors


def test_unknown_weights_are_answered_with_the_known_ones(photos, capsys):
    status, _, errors = run(capsys, "segment", photos, "--weights", "nosuch", "--out", photos / "o")
    assert status == 1 and errors.count("\n") == 2 and "lumenstone, s1v1, s1v1-small" in errors
    status, _, errors = run(capsys, "segment", photos, "--weights", "nosuch.pth", "--out", photos / "o")
    assert status == 1 and "nosuch.pth" in errors


@given(size_um=st.floats(0.05, 20))
def test_a_mask_keeps_its_pixel_size(tmp_path_factory, size_um):
    path = tmp_path_factory.mktemp("size") / "m.png"
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write_mask(path, mask, size_um)
    assert np.array_equal(read_mask(path), mask) and np.array_equal(np.array(Image.open(path)), mask)
    known = pixel_size_um(path)
    assert known is None or known == pytest.approx(size_um, rel=1e-4)  # None: the usual step of a scanner, by chance


@pytest.mark.parametrize("text", ["mineral,share\nGl,1\n", "mineral,size µm\nBlende,2\n", "", "имя\nполе\n"])
def test_tables_with_other_letters_begin_with_the_mark_that_spreadsheets_need(tmp_path, text):
    for _ in range(2):
        with atomic_path(tmp_path / "t.csv") as temporary:
            temporary.write_text(text, encoding="utf-8")
    data = (tmp_path / "t.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf") == (not text.isascii()) and data.decode("utf-8-sig") == text
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    with atomic_path(tmp_path / "t.json") as temporary:
        temporary.write_text(text, encoding="utf-8")
    assert (tmp_path / "t.json").read_text(encoding="utf-8") == text


def test_settings_of_an_editor_that_marks_utf_8(tmp_path):
    (tmp_path / "c.json").write_text('{"steps": 7}', encoding="utf-8-sig")
    argv = ["train", str(tmp_path), "--out", str(tmp_path / "o"), "--config", str(tmp_path / "c.json")]
    assert _settings(parser().parse_args(argv)) == {"steps": 7}
