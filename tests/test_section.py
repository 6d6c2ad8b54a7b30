"A section from masks or photos to its folder of results: real masks, the command line, and what bad input gets."

import csv
import json
import re

import numpy as np
import pytest
import shapely.geometry
import tifffile

from petroscope.analysis.contacts import contacts, ore_contacts
from petroscope.analysis.exchange import read_geojson, write_label_tiff
from petroscope.analysis.grains import find_grains
from petroscope.analysis.inputs import kind_of
from petroscope.analysis.job import STATE, segment_photo
from petroscope.analysis.palettes import write_colored
from petroscope.analysis.result import pooled_curves, pooled_grains
from petroscope.analysis.section import analyse
from petroscope.analysis.sizes import size_curves
from petroscope.cli.main import main
from petroscope.io.files import RECORD, RunFolder
from petroscope.io.images import VOID, read_image, read_mask, write_image, write_mask
from petroscope.segmentation.classes import LumenStoneClasses
from petroscope.segmentation.model import CallableModel
from petroscope.synth.rock import scene

S1 = LumenStoneClasses.S1v1
TABLES = {"modal.csv", "grains.csv", "contacts.csv", "sizes.csv", "ore_contact.csv", "inclusions.csv"}


def rows(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def mask(tmp_path):
    path = tmp_path / "шлиф 1.png"
    write_mask(path, scene((180, 240), seed=5, variation=0).mask)
    return path


def squares(codes, size=(30, 200)):
    "Squares of 10 px in resin, 10 px apart."
    mask = np.zeros(size, np.uint8)
    for i, code in enumerate(codes):
        mask[10:20, 10 + 20 * i : 20 + 20 * i] = code
    return mask


def test_real_mask(s1, tmp_path):
    path = sorted((s1 / "masks/train").glob("*.png"))[4]
    mask, photo = read_mask(path), s1 / "imgs/train" / f"{path.stem}.jpg"
    section = analyse(path, tmp_path / "out", photos=[photo])
    features = json.loads((tmp_path / f"out/{path.stem}.geojson").read_text(encoding="utf-8"))["features"]
    polygons = [shapely.geometry.shape(f["geometry"]) for f in features]
    assert all(p.is_valid for p in polygons)
    assert sum(p.area for p in polygons) == pytest.approx((mask != 0).sum(), rel=1e-3)
    np.testing.assert_array_equal(read_geojson(tmp_path / f"out/{path.stem}.geojson", S1), mask)
    table = rows(tmp_path / "out/grains.csv")
    for m in S1.minerals[1:]:
        mine = [int(row["area_px"]) for row in table if row["mineral"] == m.label]
        assert 0 <= (mask == m.code).sum() - sum(mine) < 0.02 * mask.size  # what lacks is below the smallest grain
    assert [int(row["pixels"]) for row in rows(tmp_path / "out/modal.csv")] == [(mask == c).sum() for c in S1.codes]
    assert read_image(tmp_path / f"out/{path.stem}_overlay.jpg").shape[0] >= mask.shape[0]
    assert section.grains.unit == "px" and "The size of a pixel is not known" in report_text(tmp_path / "out")


def report_text(folder):
    return re.sub(r"data:image[^\"]+", "", (folder / "report.html").read_text(encoding="utf-8"))


def test_two_fields_by_hand(tmp_path):
    # Chalcopyrite free in one field, beside nothing; pyrite in both: 3 squares of 100 px at 2 um.
    parts = squares([1, 6]), squares([6, 6])
    for name, part in zip("ab", parts):
        write_label_tiff(tmp_path / f"{name}.ome.tif", part, pixel_size_um=2)
    section = analyse([tmp_path / "a.ome.tif", tmp_path / "b.ome.tif"], tmp_path / "out")
    assert section.grains.pixel_size_um == 2
    table = {row["label"]: row for row in rows(tmp_path / "out/modal.csv")}
    assert float(table["Py/Mrc"]["percent_of_minerals"]) == pytest.approx(75)
    assert float(table["Ccp"]["area_mm2"]) == pytest.approx(100 * 4e-6)
    sizes = {row["mineral"]: row for row in rows(tmp_path / "out/sizes.csv")}
    assert set(sizes) == {"Ccp", "Py/Mrc"} and sizes["Py/Mrc"]["grains"] == "3"
    assert float(sizes["Py/Mrc"]["D50_by_area_um"]) == pytest.approx(2 * 2 * (100 / np.pi) ** 0.5)
    free = {row["mineral"]: row for row in rows(tmp_path / "out/ore_contact.csv")}
    assert float(free["Py/Mrc"]["free_of_ore"]) == 1 and float(free["Py/Mrc"]["ore_contact"]) == 0
    grains = rows(tmp_path / "out/grains.csv")
    assert [(g["field"], g["grain"]) for g in grains] == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    assert rows(tmp_path / "out/inclusions.csv") == []
    parquet = pytest.importorskip("pyarrow.parquet")
    kept = parquet.read_table(tmp_path / "out/grains.parquet").to_pylist()
    assert [str(line["area_um2"]) for line in kept] == [line["area_um2"] for line in grains]


def test_pooled_fields_are_as_one_picture():
    parts = [scene((90, 120), seed=seed, variation=0).mask for seed in (1, 2, 3)]
    gap = np.full((90, 1), VOID, np.uint8)
    whole = find_grains(np.concatenate([x for part in parts for x in (part, gap)][:-1], axis=1), S1)
    each = [find_grains(part, S1) for part in parts]
    pooled = pooled_grains(each)
    np.testing.assert_allclose(contacts(pooled).length, contacts(whole).length)
    for a, b in zip(ore_contacts(pooled), ore_contacts(whole)):
        assert a[:2] == b[:2]
        np.testing.assert_allclose(a[2:], b[2:], equal_nan=True)
    for correction in "none", "whole":
        mine, theirs = pooled_curves(each, correction=correction), size_curves(whole, correction=correction)
        assert list(mine) == list(theirs)
        for label, curve in mine.items():
            assert curve.cut == theirs[label].cut and len(curve.size) == len(theirs[label].size)
            assert curve.d(50) == pytest.approx(theirs[label].d(50), nan_ok=True)


def test_a_panorama_in_bands_is_as_a_mask_in_memory(tmp_path, monkeypatch):
    codes = scene((200, 280), seed=9, variation=0).mask
    write_label_tiff(tmp_path / "a.ome.tif", codes, tile=64)
    whole = analyse(tmp_path / "a.ome.tif", tmp_path / "whole", geojson=True)
    monkeypatch.setattr("petroscope.analysis.job.LARGE_PX", 1000)
    bands = analyse(tmp_path / "a.ome.tif", tmp_path / "bands")
    assert not (tmp_path / "bands/a.geojson").exists()
    for name in TABLES:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "bands" / name).read_bytes()
    assert str(whole) == str(bands)


def test_photos_through_a_model(tmp_path):
    def network(batch):
        light = batch.mean(axis=3)[:, None] / 255
        return np.concatenate([1 - light, light], axis=1).astype(np.float32)

    two = S1.subset(["BG", "Py/Mrc"])
    model = CallableModel(two, network)
    image = scene((150, 200), seed=4).image
    write_image(tmp_path / "p.png", image)
    section = analyse(tmp_path / "p.png", tmp_path / "out", two, model=model)
    codes = read_mask(tmp_path / "out/p_mask.png")
    np.testing.assert_array_equal(codes, model.predict_image(image))
    np.testing.assert_allclose(section.modal.expected, model.predict_probs(image).sum((1, 2)), rtol=1e-4)
    assert "expected %" in report_text(tmp_path / "out") and "CallableModel, scale 1" in report_text(tmp_path / "out")
    # Cut off after the photo, before the tables: the mask is not made again.
    state = json.loads((tmp_path / "out" / STATE).read_text(encoding="utf-8"))
    with RunFolder(tmp_path / "out", "analyse") as own, own.writing([STATE]):
        cut = {k: v for k, v in state.items() if k not in ("files", "result")}
        (tmp_path / "out" / STATE).write_text(json.dumps(cut))
    with pytest.raises(ValueError, match="was cut off here"):
        analyse(tmp_path / "p.png", tmp_path / "out", two, model=model)
    model.predict_bands = None
    again = analyse(tmp_path / "p.png", tmp_path / "out", two, model=model, resume=True)
    np.testing.assert_array_equal(again.modal.expected, section.modal.expected)
    with pytest.raises(ValueError, match="these differ: settings"):
        analyse(tmp_path / "p.png", tmp_path / "out", two, model=model, resume=True, min_area=3)
    with pytest.raises(ValueError, match=r"expected class codes \(150, 200\) uint8"):
        segment_photo(image, lambda photo: photo, two)


@pytest.mark.parametrize("values, kind", [((0, 1, 6, VOID), "mask"), (range(60), "photo"), ((0, 7), "code 7")])
def test_masks_and_photos_are_told_apart(tmp_path, values, kind):
    grey = np.resize(np.array(list(values), np.uint8), (60, 60))
    write_mask(tmp_path / "one.png", grey)
    write_image(tmp_path / "three.png", np.dstack([grey] * 3))
    tifffile.imwrite(tmp_path / "one.tif", grey)
    for name in "one.png", "three.png", "one.tif":
        if kind.startswith("code"):
            with pytest.raises(ValueError, match=f"{name}.*{kind}.*--photos"):
                kind_of(tmp_path / name, S1)
        else:
            assert kind_of(tmp_path / name, S1) == kind
    write_image(tmp_path / "a.jpg", scene((60, 60), seed=1).image)
    assert kind_of(tmp_path / "a.jpg", S1) == "photo"
    if kind == "mask":
        write_colored(tmp_path / "palette.png", grey, S1)
        assert kind_of(tmp_path / "palette.png", S1) == "mask"


@pytest.mark.parametrize("code", [0, 6])
def test_a_mask_of_one_code(tmp_path, code):
    section = analyse(np.full((40, 50), code, np.uint8), tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} >= TABLES | {"report.html", STATE}
    assert len(section.grains) == (code == 6)
    json.loads((tmp_path / "out" / STATE).read_text(), parse_constant=pytest.fail)  # no NaN, which is no JSON
    assert len(rows(tmp_path / "out/grains.csv")) == (code == 6)


def test_command(petroscope, mask, tmp_path):
    status, out, err = petroscope("analyse", mask, "--out", tmp_path / "out", "--pixel-size-um", 0.5)
    assert (status, err) == (0, "")
    assert "% of minerals" in out and "report.html" in out
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names >= TABLES | {f"{mask.stem}.geojson", f"{mask.stem}_minerals.png"}


def test_a_finished_analysis_is_replaced(mask, tmp_path):
    twice = []
    for _ in range(2):
        analyse(mask, tmp_path / "out")
        twice.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
        assert twice[-1].pop(RECORD)
    assert twice[0] == twice[1]
    write_mask(tmp_path / "other.png", read_mask(mask))
    analyse(tmp_path / "other.png", tmp_path / "out", title="<b>")
    html = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "<h1>&lt;b&gt;</h1>" in html
    assert not re.findall(r"(?:src|href)=\"(?!data:)|@import|url\(", html)
    assert {p.name for p in (tmp_path / "out").iterdir() if p.name.startswith(mask.stem)} == set()


@pytest.fixture
def command(capsys):
    "A command in this process: exit status, output, errors."

    def run(*argv):
        status = main([str(a) for a in argv])
        return status, *capsys.readouterr()

    return run


def test_command_with_a_damaged_file_in_the_middle(command, mask, tmp_path):
    (tmp_path / "b.png").write_bytes(mask.read_bytes()[:700])
    write_mask(tmp_path / "c.png", squares([1, 6]))
    status, _, err = command("analyse", mask, tmp_path / "b.png", tmp_path / "c.png", "--out", tmp_path / "out")
    assert status == 1 and len(err.splitlines()) == 1 and "b.png" in err
    assert {g["field"] for g in rows(tmp_path / "out/grains.csv")} == {mask.stem, "c"}
    assert "1 field is not in these figures" in report_text(tmp_path / "out")


def test_command_refuses_what_cannot_be_meant(command, mask, tmp_path):
    for name, size in ("a", 0.5), ("b", 0.9):
        write_label_tiff(tmp_path / f"{name}.ome.tif", squares([1]), pixel_size_um=size)
    for argv, told in [
        ([tmp_path / "a.ome.tif", tmp_path / "b.ome.tif"], "must have one pixel size"),
        ([mask, tmp_path / mask.name], "have the same name"),
        ([mask, "--classes", "S2v1"], "is not a class of S2v1"),
        ([mask, "--pixel-size-um", "0"], "positive number"),
        ([tmp_path / "none.png"], "none.png"),
    ]:
        status, _, err = command("analyse", *argv, "--out", tmp_path / "out")
        assert status == 1 and len(err.splitlines()) == 1 and told in err, err
        assert "Traceback" not in err
    assert command("analyse", mask, "--masks", "--photos", "--out", tmp_path / "out")[0] == 2
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


def test_a_share_below_one_in_ten_thousand_is_not_written_as_nothing(tmp_path):
    "One pixel of gold is what an ore may be mined for."
    mask = np.zeros((300, 400), np.uint8)
    mask[:, 200:], mask[5, 5] = 6, 1
    analyse(mask, tmp_path / "out", geojson=False)
    html = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "<td>0.00083</td>" in html and "<td>50.00</td>" in html and "<td>0.00</td>" not in html


@pytest.mark.parametrize("error", [TypeError("a word"), ZeroDivisionError("by zero"), MemoryError(), KeyError(3)])
def test_whatever_one_field_leads_to_the_others_are_analysed(tmp_path, monkeypatch, error):
    for name in "abc":
        write_mask(tmp_path / f"{name}.png", squares([1, 6]))

    def broken(path):
        if path.name == "b.png":
            raise error
        return read_mask(path)

    monkeypatch.setattr("petroscope.analysis.job.read_mask", broken)
    section = analyse([tmp_path / f"{name}.png" for name in "abc"], tmp_path / "out", S1)
    assert [field.name for field in section.fields] == ["a", "c"]
    assert section.failures["b"].startswith(type(error).__name__) and "\n" not in section.failures["b"]


def test_a_run_that_died_does_not_lock_a_folder_that_is_named_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_mask("a.png", squares([1, 6]))

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("petroscope.analysis.section.pool", stop)
        with pytest.raises(KeyboardInterrupt):
            analyse("a.png", "out", S1)
    assert len(analyse("a.png", "out", S1).fields) == 1
