"`petroscope stitch` as it is used: twice into the folder of the photos, with odd names, with strangers among them."

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from petroscope import synth
from petroscope.cli.main import main
from petroscope.io.images import read_image, write_image
from petroscope.panorama.stitch import own_results, stitch


@pytest.fixture(scope="module")
def section():
    return synth.fields(2, 3, field_shape=(300, 400), overlap=0.3, jitter_px=6, seed=1)


@pytest.fixture
def scan(section, tmp_path):
    folder = tmp_path / "scan"
    folder.mkdir()
    for i, image in enumerate(section.images):
        write_image(folder / f"f{i}.png", image)
    return folder


@pytest.mark.parametrize("command", ["stitch", "calibrate"])
def test_a_missing_folder_is_told_before_the_work(command, scan, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("petroscope.panorama.fields.read_image", lambda *_: pytest.fail("measured first"))
    assert main([command, str(scan), "--out", str(tmp_path / "none" / "a.tif")]) == 1
    assert "expected the folder" in capsys.readouterr().err


def test_an_output_that_is_a_folder_is_told_before_the_work(scan, tmp_path, capsys):
    (tmp_path / "a.tif").mkdir()
    assert main(["stitch", str(scan), "--out", str(tmp_path / "a.tif")]) == 1
    assert "got a folder" in capsys.readouterr().err


def test_a_second_run_takes_the_same_photos(scan, capsys):
    turned = [scan.with_name(f"turned{i}.png") for i in range(3)]  # a flat field asks for eight photos or more
    for i, path in enumerate(turned):
        write_image(path, read_image(scan / f"f{i}.png")[::-1, ::-1].copy())
    photos = [str(path) for path in (scan, *turned)]
    assert main(["calibrate", *photos, "--fields", "--out", str(scan / "light.tif")]) == 0
    for _ in range(2):
        assert main(["stitch", str(scan), "--out", str(scan / "a.ome.tif")]) == 0
        told = capsys.readouterr()
        assert "6 of 6 fields are in one panorama" in told.out
    assert "left out, for petroscope wrote it: a.ome.tif, a_preview.jpg, light.png, ..." in told.err
    assert main(["stitch", str(scan), "--out", str(scan / "b.ome.tif")]) == 0  # nor another run's
    assert "6 of 6" in capsys.readouterr().out


def test_photos_are_not_taken_for_results(scan):
    write_image(scan / "g.tif", synth.scene((64, 64)).image)
    (scan / "g_geometry.json").write_text("{}")
    assert own_results(scan.iterdir()) == set()


def test_a_folder_of_results_alone_is_said_to_be_one(scan, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    stitch(sorted(scan.glob("*.png")), tmp_path / "out" / "a.ome.tif")
    assert main(["stitch", str(tmp_path / "out"), "--out", str(tmp_path / "b.tif")]) == 1
    assert "only what petroscope wrote" in capsys.readouterr().err


@pytest.mark.parametrize("as_folder", [True, False])
def test_what_macos_keeps_beside_photos_is_left_out(as_folder, scan, tmp_path, capsys):
    for i in range(6):
        (scan / f"._f{i}.png").write_bytes(b"\0\5\x16\7")
    given = [str(scan)] if as_folder else [str(p) for p in sorted(scan.iterdir())]
    assert main(["stitch", *given, "--out", str(tmp_path / "a.tif")]) == 0
    told = capsys.readouterr()
    assert "6 of 6" in told.out and "._f0.png" in told.err and "as macOS keeps it" in told.err


def test_strangers_are_no_panorama(tmp_path, capsys):
    for i in range(4):
        write_image(tmp_path / f"t{i}.png", synth.scene((300, 400), seed=20 + i).image)
    assert main(["stitch", str(tmp_path), "--out", str(tmp_path / "a.tif")]) == 1
    told = capsys.readouterr().err
    assert "no two of 4 photos show the same place (t0.png: " in told and "field 1" not in told
    assert {p.name for p in tmp_path.iterdir()} == {f"t{i}.png" for i in range(4)}


def test_one_photo_is_a_panorama_when_it_is_all_there_is(scan, tmp_path):
    assert main(["stitch", str(scan / "f0.png"), "--out", str(tmp_path / "a.tif")]) == 0


def test_each_piece_is_written_and_named(section, scan, tmp_path, capsys):
    other = synth.fields(1, 3, field_shape=(300, 400), overlap=0.3, jitter_px=4, seed=8)
    for i, image in enumerate(other.images):
        write_image(scan / f"g{i}.png", image)
    assert main(["stitch", str(scan), "--out", str(tmp_path / "a.ome.tif")]) == 0
    told = capsys.readouterr().out
    assert "Component 1 is a panorama of its own, of 3 fields: g0.png, g1.png, g2.png." in told
    assert "a_component1.ome.tif" in told and (tmp_path / "a_component1.ome.tif").exists()
    assert (tmp_path / "a_component1_preview.jpg").exists()


@pytest.mark.parametrize("name", ["größe 字 🪨.png", "\udcfc.png"])
def test_a_name_that_the_console_cannot_print_fails_no_run(name, scan, tmp_path):
    if os.name == "nt" and "\udcfc" in name:
        pytest.skip("names of files are UTF-16 there")
    (scan / "f3.png").rename(scan / name)
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "MPLBACKEND": "agg"}
    command = [sys.executable, "-c", "import sys; from petroscope.cli.main import main; sys.exit(main())"]
    done = subprocess.run([*command, "stitch", str(scan), "--out", str(tmp_path / "a.tif")], capture_output=True,
                          env=environment, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr.decode("cp1252")
    assert b"6 of 6 fields" in done.stdout
    assert json.loads((tmp_path / "a_geometry.json").read_text(encoding="utf-8"))["fields"]
    assert Path(tmp_path / "a_positions.csv").read_text(encoding="utf-8").count("\n") == 7


def test_errors_on_such_a_console_are_told_too(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252:strict"}
    command = [sys.executable, "-c", "import sys; from petroscope.cli.main import main; sys.exit(main())"]
    started = time.monotonic()
    done = subprocess.run([*command, "stitch", str(tmp_path / "字.png"), "--out", str(tmp_path / "a.tif")],
                          capture_output=True, env=environment, check=False)  # fmt: skip
    assert done.returncode == 1 and b"petroscope: error" in done.stderr and b"Traceback" not in done.stderr
    assert time.monotonic() - started < 60
