"""Stitching as a whole: from photos on disk, through the command line, to files, with photos that do not belong."""

import csv
import json
import math
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from petroscope import synth
from petroscope.cli.main import main
from petroscope.io.images import read_image, write_image, write_mask
from petroscope.panorama.panorama import Panorama
from petroscope.panorama.positions import read_positions
from petroscope.panorama.stitch import stitch

tifffile = pytest.importorskip("tifffile")
ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "data" / "stitching"
ROWS, COLS, SHAPE = 3, 3, (300, 400)


@pytest.fixture(scope="module")
def section():
    return synth.fields(ROWS, COLS, SHAPE, overlap=0.25, jitter_px=6, rotation_deg=0.2, seed=3)


@pytest.fixture
def scan(section, tmp_path):
    "The fields as files, and where the stage meant them to be."
    folder = tmp_path / "scan"
    folder.mkdir()
    paths = [folder / f"f{i:02d}.png" for i in range(len(section.images))]
    for path, image in zip(paths, section.images, strict=True):
        write_image(path, image)
    return paths


def stage(section, names):
    return {str(name): tuple(place) for name, place in zip(names, section.nominal.tolist(), strict=True)}


def matrices(row, col, theta_deg):
    "From (x, y, 1) of a field to (x, y) of the panorama, by the definition of the table."
    t = np.radians(theta_deg)
    return np.array([[np.cos(t), -np.sin(t), col], [np.sin(t), np.cos(t), row]])


def errors(found, section, fields=None):
    "Mean distance of 5 x 5 points of each field from where they should be, after one rigid fit."
    fields = list(range(len(section.images))) if fields is None else fields
    y, x = np.meshgrid(np.linspace(0, SHAPE[0] - 1, 5), np.linspace(0, SHAPE[1] - 1, 5), indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), np.ones(25)])
    got = np.stack([(matrices(*pose) @ points).T for pose in found])
    true = np.stack([(matrices(*section.positions[i], section.theta_deg[i]) @ points).T for i in fields])
    a, b = true.reshape(-1, 2), got.reshape(-1, 2)
    u, _, vt = np.linalg.svd((a - a.mean(0)).T @ (b - b.mean(0)))
    turn = (u @ np.diag([1, np.linalg.det(u @ vt)]) @ vt).T
    return np.linalg.norm((true - a.mean(0)) @ turn.T + b.mean(0) - got, axis=-1).mean(1)


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def poses(rows):
    return [[float(row[name]) for name in ("row", "col", "theta_deg")] for row in rows]


# The command line, and what it writes


def test_stitch_with_positions_writes_everything(scan, section, tmp_path, capsys):
    positions = tmp_path / "stage.csv"
    lines = [f"{p.name},{r},{c}" for p, (r, c) in zip(scan, section.nominal, strict=True)]
    positions.write_text("field,row,col\n" + "\n".join(lines) + "\n")
    out = tmp_path / "a.ome.tif"
    assert (
        main(["stitch", *map(str, scan), "--out", str(out), "--positions", str(positions), "--pixel-size-um", "0.5"])
        == 0
    )
    for name in ("a.ome.tif", "a_positions.csv", "a_report.html", "a_preview.jpg", "a_geometry.json"):
        assert (tmp_path / name).stat().st_size > 0
    rows = table(tmp_path / "a_positions.csv")
    assert list(rows[0]) == ["field", "row", "col", "theta_deg", "residual_px", "component"]
    assert [row["field"] for row in rows] == [str(p) for p in scan]
    assert {row["component"] for row in rows} == {"0"}
    assert errors(poses(rows), section).max() < 0.15
    assert "9 of 9 fields" in capsys.readouterr().out
    page = (tmp_path / "a_report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") == page.count("<img ") == 2
    with tifffile.TiffFile(out) as file:
        assert 'PhysicalSizeX="0.5"' in file.ome_metadata


def test_a_pixel_of_a_field_lands_where_the_table_says(scan, section, tmp_path):
    out = tmp_path / "a.ome.tif"
    stitch(scan, out, positions=stage(section, scan), flatfield="none")
    picture = tifffile.imread(out, level=0).astype(float)
    for row, image in zip(table(tmp_path / "a_positions.csv"), section.images, strict=True):
        matrix = matrices(*poses([row])[0])
        y, x = np.mgrid[60:240:7, 60:340:7]
        at = np.rint(np.stack([x.ravel(), y.ravel(), np.ones(x.size)]).T @ matrix.T).astype(int)
        seen, field = picture[at[:, 1], at[:, 0]].mean(-1), image[y, x].mean(-1).ravel()
        assert np.corrcoef(seen, field)[0, 1] > 0.97


@pytest.mark.parametrize("order", ["row", "column", "snake"])
def test_a_grid_needs_only_the_order_even_where_the_overlap_is_wrong(section, tmp_path, order):
    number = np.arange(ROWS * COLS).reshape(ROWS, COLS)
    walk = {
        "row": number,
        "column": number.T,
        "snake": np.where(np.arange(ROWS)[:, None] % 2, number[:, ::-1], number),
    }[order]
    paths = []
    for k, i in enumerate(walk.ravel()):
        paths.append(tmp_path / f"{k}.png")
        write_image(paths[-1], section.images[i])
    panorama = Panorama.from_fields(paths, grid=(ROWS, COLS), order=order, overlap=0.2).align()  # it is 0.25
    found = poses(panorama.report().fields())
    assert (panorama.alignment.component == 0).all()
    assert errors(found, section, list(walk.ravel())).max() < 0.15


def test_nothing_known_and_files_shuffled(section, tmp_path):
    order = list(range(9))
    random.Random(1).shuffle(order)
    paths = []
    for k, i in enumerate(order):
        paths.append(tmp_path / f"{k}.png")
        write_image(paths[-1], section.images[i])
    panorama = Panorama.from_fields(paths).align()
    assert (panorama.alignment.component == 0).all()
    assert errors(poses(panorama.report().fields()), section, order).max() < 0.15


def test_the_same_fields_give_the_same_bytes(scan, section, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()  # the file's name is in its metadata
        stitch(scan, tmp_path / name / "a.ome.tif", positions=stage(section, scan))
    for end in (".ome.tif", "_positions.csv", "_geometry.json", "_preview.jpg"):
        assert (tmp_path / f"one/a{end}").read_bytes() == (tmp_path / f"two/a{end}").read_bytes(), end


def test_calibrate_then_stitch(scan, tmp_path, capsys):
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    mirror = np.repeat((200 * (1 - 0.125 * (x * x + y * y)))[..., None], 3, 2)
    write_image(tmp_path / "mirror.png", mirror.astype(np.uint8))
    assert main(["calibrate", str(tmp_path / "mirror.png"), "--out", str(tmp_path / "light.tif")]) == 0
    assert (tmp_path / "light.png").exists() and "%" in capsys.readouterr().out
    out = tmp_path / "a.ome.tif"
    assert main(["stitch", *map(str, scan), "--out", str(out), "--grid", "3x3", "--overlap", "0.25",
                 "--flatfield", str(tmp_path / "light.tif")]) == 0  # fmt: skip
    assert out.exists()


# The geometry as a file, and masks on the same pixels


def test_geometry_read_back_is_the_same_and_composes_the_same(scan, section, tmp_path):
    made = Panorama.from_fields(scan, positions=stage(section, scan)).align()
    made.save(tmp_path / "g.json")
    json.loads((tmp_path / "g.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    again = Panorama.load(tmp_path / "g.json")
    for name in ("offset", "linear", "component", "residual_px", "carried", "pairs", "used"):
        np.testing.assert_array_equal(getattr(again.alignment, name), getattr(made.alignment, name))
    for name, panorama in (("one", made), ("two", again)):
        (tmp_path / name).mkdir()
        panorama.compose(tmp_path / name / "a.ome.tif")
    assert (tmp_path / "one/a.ome.tif").read_bytes() == (tmp_path / "two/a.ome.tif").read_bytes()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_masks_of_the_fields_become_the_mask_of_the_panorama(scan, section, tmp_path):
    panorama = Panorama.from_fields(scan, positions=stage(section, scan)).align()
    paths = [tmp_path / f"m{i}.png" for i in range(9)]
    for path, mask in zip(paths, section.masks, strict=True):
        write_mask(path, mask)
    made = panorama.compose_masks(paths, tmp_path / "mask.ome.tif")
    mask = tifffile.imread(tmp_path / "mask.ome.tif", level=0)
    assert mask.shape == made.shape and set(np.unique(mask)) <= {*np.unique(section.masks), 255}
    row, col = np.rint(panorama.alignment.offset[4]).astype(int)
    here = mask[row + 100 : row + 200, col + 100 : col + 300]
    assert (here == section.masks[4][100:200, 100:300]).mean() > 0.98
    with pytest.raises(ValueError, match="a mask for each of 9 fields"):
        panorama.compose_masks(paths[:3], tmp_path / "no.ome.tif")
    with pytest.warns(UserWarning, match=r"f00\.png"), pytest.raises(ValueError, match="none of the masks can be read"):
        panorama.compose_masks(scan, tmp_path / "no.ome.tif")  # photos in place of masks
    assert not (tmp_path / "no.ome.tif").exists()
    write_mask(paths[2], section.masks[2][:50])
    with pytest.raises(ValueError, match=r"m2\.png"):
        panorama.compose_masks(paths, tmp_path / "no.ome.tif")


def test_fiji_reads_and_gives_positions(scan, section, tmp_path):
    panorama = Panorama.from_fields(scan, positions=stage(section, scan)).align()
    panorama.to_tile_configuration(tmp_path / "TileConfiguration.registered.txt")
    found = read_positions(tmp_path / "TileConfiguration.registered.txt")
    for path, place in zip(scan, panorama.alignment.offset, strict=True):
        np.testing.assert_allclose(found[path.name], place, atol=1e-3)


# Bad input: named, and the rest is done


def test_one_field_is_a_panorama_of_one(scan, tmp_path):
    done = stitch(scan[:1], tmp_path / "a.ome.tif", flatfield="none")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.ome.tif", level=0), read_image(scan[0]))
    (row,) = table(tmp_path / "a_positions.csv")
    assert [float(row[k]) for k in ("row", "col", "theta_deg")] == [0, 0, 0] and math.isnan(float(row["residual_px"]))
    assert len(done.composed) == 1


def test_a_copy_lies_where_its_twin_lies(scan, section, tmp_path):
    copy = tmp_path / "copy.png"
    shutil.copy(scan[4], copy)
    panorama = Panorama.from_fields([*scan, copy]).align()
    assert panorama.alignment.component[9] == 0 and "copy of" in panorama.alignment.reasons[9]
    np.testing.assert_allclose(panorama.alignment.offset[9], panorama.alignment.offset[4], atol=0.02)
    assert errors(poses(panorama.report().fields())[:9], section).max() < 0.15


@pytest.mark.parametrize("known", [True, False])
def test_a_field_of_another_section_stays_apart(scan, section, tmp_path, known):
    foreign = synth.scene(SHAPE, seed=77).image
    write_image(scan[5], foreign)
    panorama = Panorama.from_fields(scan, positions=stage(section, scan) if known else None).align()
    assert (np.delete(panorama.alignment.component, 5) == 0).all()
    assert panorama.alignment.reasons[5]
    if not known:
        assert panorama.alignment.component[5] > 0
    rest = [i for i in range(9) if i != 5]
    assert errors([poses(panorama.report().fields())[i] for i in rest], section, rest).max() < 0.2


@pytest.mark.parametrize("fault", ["size", "depth", "damaged", "missing", "text"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_field_that_cannot_be_used_is_named_and_the_rest_is_done(scan, section, tmp_path, fault, capsys):
    import cv2

    if fault == "size":
        write_image(scan[4], section.images[4][:200])
    elif fault == "depth":
        cv2.imwrite(str(scan[4]), section.images[4][..., ::-1].astype(np.uint16) * 257)
    elif fault == "damaged":
        data = bytearray(scan[4].read_bytes())
        data[len(data) // 2] ^= 0xFF
        scan[4].write_bytes(data)
    elif fault == "missing":
        scan[4].unlink()
    else:
        scan[4].write_text("not a photo")
    out = tmp_path / "a.ome.tif"
    status = main(["stitch", *map(str, scan), "--out", str(out), "--grid", "3x3", "--overlap", "0.25"])
    told = capsys.readouterr()
    assert status == 1 and "f04.png" in told.err and "8 of 9 fields" in told.out
    rows = table(tmp_path / "a_positions.csv")
    assert len(rows) == 9 and math.isnan(float(rows[4]["row"])) and rows[4]["component"] != "0"
    rest = [i for i in range(9) if i != 4]
    assert [rows[i]["component"] for i in rest] == ["0"] * 8
    assert errors(poses([rows[i] for i in rest]), section, rest).max() < 0.2 and out.exists()


def test_positions_of_other_photos(scan, section, tmp_path):
    positions = stage(section, [f"f{i:02d}.tif" for i in range(9)])  # found by their stems
    positions["f99.tif"] = (0, 0)
    with pytest.warns(UserWarning, match="1 positions belong to no field: f99.tif"):
        panorama = Panorama.from_fields(scan, positions=positions).align()
    assert errors(poses(panorama.report().fields()), section).max() < 0.15
    del positions["f99.tif"], positions["f03.tif"]
    with pytest.warns(UserWarning, match=r"1 fields have no position: .*f03\.png"):
        panorama = Panorama.from_fields(scan, positions=positions).align()
    assert errors(poses(panorama.report().fields()), section).max() < 0.15  # it is found by what it shows
    with pytest.raises(ValueError, match="no position for any of the fields"):
        Panorama.from_fields(scan, positions={"other.png": (0, 0)})


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--grid", "2x3"], "a grid of 2 x 3 (rows x columns) has 6 fields, got 9"),
        (["--grid", "three"], "expected ROWSxCOLUMNS"),
        (["--order", "snake"], "give --grid"),
        (["--positions", "nowhere.csv"], "nowhere.csv"),
        (["--flatfield", "nowhere.tif"], "nowhere.tif"),
        (["--grid", "3x3", "--overlap", "1.5"], "overlap"),
    ],
)
def test_wrong_options_are_one_line(scan, tmp_path, options, why, capsys):
    assert main(["stitch", *map(str, scan), "--out", str(tmp_path / "a.ome.tif"), *options]) in (1, 2)
    assert why in capsys.readouterr().err
    assert not list(tmp_path.glob("a*"))


def test_what_no_panorama_can_be_made_of(tmp_path, capsys):
    assert main(["stitch", str(tmp_path), "--out", str(tmp_path / "a.ome.tif")]) == 1
    assert "expected photos" in capsys.readouterr().err
    assert main(["stitch", str(tmp_path / "no.png"), "--out", str(tmp_path / "a.ome.tif")]) == 1
    assert "no.png" in capsys.readouterr().err
    assert main(["stitch", str(tmp_path / "no.png"), "--out", str(tmp_path / "a.png")]) == 1
    assert "ends in .ome.tif" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_full_disk_while_composing_leaves_the_positions(scan, section, tmp_path, monkeypatch):
    code = f"""
import resource, sys
sys.path.insert(0, {str(ROOT)!r})
from petroscope.cli.main import main
import petroscope.panorama.panorama as rooms
compose = rooms.compose
def full(*args, **options):
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))  # a file may not grow beyond this: EFBIG
    return compose(*args, **options)
rooms.compose = full
sys.exit(main(sys.argv[1:]))
"""
    out = tmp_path / "a.ome.tif"
    command = [
        sys.executable,
        "-c",
        code,
        "stitch",
        *map(str, scan),
        "--out",
        str(out),
        "--grid",
        "3x3",
        "--overlap",
        ".25",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "a.ome.tif" in done.stderr and "Traceback" not in done.stderr
    assert not out.exists() and len(table(tmp_path / "a_positions.csv")) == 9
    assert sorted(p.name for p in tmp_path.glob("a*")) == ["a_files.jsonl", "a_geometry.json", "a_positions.csv"]


def test_a_pair_without_a_patch_that_agrees_stops_nothing(tmp_path):
    light = {"vignetting": 0.35, "gain": 0.08, "noise_sd": 2.5, "blank": 0.25}
    made = synth.fields(3, 4, SHAPE, overlap=0.25, jitter_px=8, rotation_deg=0.3, seed=11, **light)
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for path, image in zip(paths, made.images, strict=True):
        write_image(path, image)
    panorama = Panorama.from_fields(paths, grid=(3, 4), overlap=0.25).align()
    assert (panorama.alignment.component == 0).all()


# What people try first


def test_fields_are_photos_and_nothing_else_is_taken_for_them(scan, section):
    folder = scan[0].parent
    with pytest.raises(ValueError, match=r"scan: is a folder; expected photos, such as sorted\(Path"):
        Panorama.from_fields([folder])
    with pytest.raises(ValueError, match=r"expected files, got an array \(300, 400, 3\)"):
        Panorama.from_fields(section.images)
    for nothing in ([], [*scan, None]):
        with pytest.raises(ValueError, match="expected"):
            Panorama.from_fields(nothing)


@pytest.mark.parametrize("grid", ["3x3", 9, (9,), (3, 3, 1), ("3", "3"), (3.0, 3.5), None])
def test_a_grid_is_two_numbers(scan, grid):
    if grid is None:
        assert Panorama.from_fields(scan, grid=grid).stage is None
        return
    with pytest.raises(ValueError, match=r"expected a grid \(rows, columns\), such as \(3, 4\), got"):
        Panorama.from_fields(scan, grid=grid)


def test_what_is_no_geometry_is_said_in_a_line(scan, tmp_path):
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "empty.json").write_text("")
    for path in (scan[0], tmp_path / "list.json", tmp_path / "empty.json"):
        with pytest.raises(ValueError, match="expected the geometry of a panorama") as told:
            Panorama.load(path)
        assert path.name in str(told.value) and len(str(told.value)) < 300
    with pytest.raises(FileNotFoundError, match=r"no\.json"):
        Panorama.load(tmp_path / "no.json")


def test_positions_that_are_all_the_same_are_refused(scan):
    with pytest.raises(ValueError, match=r"all 9 fields have one position, row 5, column 7; .*leave the positions out"):
        Panorama.from_fields(scan, positions=np.tile([5.0, 7.0], (9, 1)))
    with pytest.raises(ValueError, match="one position"):
        Panorama.from_fields(scan, positions={path.name: (0, 0) for path in scan})
    one = Panorama.from_fields(scan[:1], positions=np.zeros((1, 2)))
    assert one.align().components() == [[0]]


def test_one_unknown_position_is_named_for_it_changes_how_all_are_found(scan, section):
    positions = section.nominal.astype(float)
    positions[3] = np.nan
    panorama = Panorama.from_fields(scan, positions=positions)
    with pytest.warns(UserWarning, match=r"1 of 9 fields has no position .*f03\.png.*what they show"):
        panorama.align()
    assert any("f03.png" in note and "no position" in note for note in panorama.report().notes())
    assert errors(poses(panorama.report().fields()), section).max() < 0.15


def test_without_gains_and_light_the_pixels_stay_as_they_are(scan, section, tmp_path):
    panorama = Panorama.from_fields(scan, positions=stage(section, scan), flatfield="none").align("translation")
    here = section.images[4][140:160, 190:210].mean((0, 1))
    row, col = np.rint(panorama.alignment.offset[4]).astype(int)
    off = {}
    for name, options in (("as it is", {"flatfield": None, "gains": None}), ("evened", {})):
        made = panorama.compose(tmp_path / f"{name}.ome.tif", blend="none", **options)
        picture = tifffile.imread(made.path, level=0)
        off[name] = np.abs(picture[row + 140 : row + 160, col + 190 : col + 210].mean((0, 1)) - here).max()
    assert off["as it is"] < 0.3 < off["evened"], off  # grey levels; "none" finds no light, but the overlaps tell some


def test_fields_and_panorama_say_what_they_are(scan):
    scan[4].write_text("not a photo")
    with pytest.warns(UserWarning, match="f04"):
        panorama = Panorama.from_fields(scan, grid=(3, 3), overlap=0.25)
    assert repr(panorama.fields) == "FieldFiles(9 files of 400 x 300 px, f00.png to f08.png; 1 set aside)"
    assert repr(panorama) == (
        "Panorama(9 fields of 400 x 300 px, f00.png to f08.png; 1 set aside; positions known; not aligned yet)"
    )
    assert "8 of 9 fields in one panorama" in repr(panorama.align())


# Real fields


@pytest.mark.skipif(not REAL.exists(), reason="the real fields (shared/data/stitching) are not here")
def test_the_zircon_row_hangs_together(tmp_path):
    paths = sorted((REAL / "zircon_mount_reflected_light").glob("*.jpg"))
    random.Random(5).shuffle(paths)
    panorama = Panorama.from_fields(paths).align()
    assert len(paths) == 11 and (panorama.alignment.component == 0).all()
    by_name = sorted((p.name, *panorama.alignment.offset[i]) for i, p in enumerate(paths))
    cols = np.array([col for _, _, col in by_name])
    assert (np.diff(cols) < -1500).all() and (np.diff(cols) > -2400).all()  # one row, from the right to the left


@pytest.mark.skipif(not REAL.exists(), reason="the real fields (shared/data/stitching) are not here")
def test_the_metal_grid_hangs_together(tmp_path):
    folder = REAL / "lscm_metal_grid_3x4"
    paths = sorted(folder.glob("*.png"))
    panorama = Panorama.from_fields(paths, positions=folder / "TileConfiguration.txt").align()
    assert len(paths) == 12 and (panorama.alignment.component == 0).all()
