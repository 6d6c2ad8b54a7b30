"GeoJSON of grains: its objects are the lines of the table of grains, and the mask comes back from it."

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import shapely.geometry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petroscope.analysis.exchange import read_geojson, write_coco, write_geojson, write_label_tiff
from petroscope.analysis.grains import find_grains, label_picture
from petroscope.analysis.polygons import find_outlines
from petroscope.analysis.section import analyse
from petroscope.cli.main import main
from petroscope.io.images import write_mask
from petroscope.segmentation.classes import VOID, LumenStoneClasses
from petroscope.synth.rock import scene

S1 = LumenStoneClasses.S1v1
SECTION = scene((200, 260), seed=1, variation=0).mask


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def features(path):
    return json.loads(path.read_text(encoding="utf-8"))["features"]


def same_as_table(folder, name="a"):
    "The objects of a field against its lines in grains.csv."
    table, objects = rows(folder / "grains.csv"), features(folder / f"{name}.geojson")
    table = [row for row in table if row["field"] == name]
    assert [f["properties"]["measurements"]["grain"] for f in objects] == [int(row["grain"]) for row in table]
    for row, found in zip(table, objects):
        shape, numbers = shapely.geometry.shape(found["geometry"]), found["properties"]["measurements"]
        assert shape.is_valid and shape.area == int(row["area_px"]) == numbers["Area px^2"]
        assert found["properties"]["classification"]["name"] == S1[row["mineral"]].name
        assert found["properties"]["name"] == f"grain {row['grain']}"
        for column in ("diameter_px", "perimeter_px", "circularity"):
            assert numbers[column] == pytest.approx(float(row[column]), rel=1e-5)
    return len(table)


@pytest.mark.parametrize("options", [[], ["--min-area", "1"], ["--min-area", "60"], ["--neck", "0.8"]])
def test_objects_are_the_lines_of_the_table(tmp_path, options):
    write_mask(tmp_path / "a.png", SECTION)
    assert main(["analyse", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), *options]) == 0
    assert same_as_table(tmp_path / "out") > 5
    np.testing.assert_array_equal(read_geojson(tmp_path / "out/a.geojson", S1), SECTION)


def test_several_fields_number_their_own(tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        write_mask(tmp_path / f"{name}.png", scene((90, 120), seed=seed, variation=0).mask)
    analyse([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out", S1)
    assert same_as_table(tmp_path / "out", "a") and same_as_table(tmp_path / "out", "b")


def test_a_mask_in_bands_gives_the_same_file(tmp_path, monkeypatch):
    codes = SECTION.copy()
    codes[50:90, 100:180] = VOID
    write_label_tiff(tmp_path / "a.ome.tif", codes, tile=64)
    analyse(tmp_path / "a.ome.tif", tmp_path / "whole", S1)
    monkeypatch.setattr("petroscope.analysis.inputs.LARGE_PX", 1000)
    analyse(tmp_path / "a.ome.tif", tmp_path / "bands", S1, geojson=True)
    assert (tmp_path / "whole/a.geojson").read_bytes() == (tmp_path / "bands/a.geojson").read_bytes()
    np.testing.assert_array_equal(read_geojson(tmp_path / "bands/a.geojson", S1), codes)


quick = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(
    seed=st.integers(0, 2**32 - 1), cell=st.sampled_from([1, 3]), min_area=st.integers(1, 12),
    connectivity=st.sampled_from([4, 8]), background=st.sampled_from(["BG", None]), band=st.sampled_from([1, 50, 9999]),
)  # fmt: skip
def test_any_mask_comes_back(tmp_path, seed, cell, min_area, connectivity, background, band):
    rng = np.random.default_rng(seed)
    codes = np.array([0, 1, 6, VOID], np.uint8)
    mask = np.kron(rng.choice(codes, (9, 11), p=[0.4, 0.25, 0.25, 0.1]), np.ones((cell, cell), np.uint8))
    options = {"min_area": min_area, "connectivity": connectivity, "background": background, "band_px": band}
    grains, path = find_grains(mask, S1, **options), tmp_path / "a.geojson"
    assert write_geojson(path, mask, S1, grains=grains) == len(grains) == len(features(path))
    np.testing.assert_array_equal(read_geojson(path, S1), mask)
    labels = label_picture(mask, grains)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    for found in features(path):
        shape, number = shapely.geometry.shape(found["geometry"]), found["properties"]["measurements"]["grain"]
        assert shape.is_valid
        np.testing.assert_array_equal(shapely.contains_xy(shape, x, y), labels == number)


def pixels(counts, shape):
    "COCO's run lengths, letter by letter, as its own code has them."
    runs, at = [], 0
    while at < len(counts):
        value, shift, more = 0, 0, True
        while more:
            letter = ord(counts[at]) - 48
            value, shift, at, more = value | (letter & 31) << shift, shift + 5, at + 1, bool(letter & 32)
        value -= (1 << shift) if letter & 16 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return np.repeat(np.arange(len(runs)) % 2, runs).reshape(shape[::-1]).T == 1


@quick
@given(
    seed=st.integers(0, 2**32 - 1), min_area=st.integers(1, 12), connectivity=st.sampled_from([4, 8]),
    kind=st.sampled_from(["rle", "polygon"]), out=st.sampled_from([[], ["BG"], ["Py/Mrc"]]),
)  # fmt: skip
def test_coco_of_grains(tmp_path, seed, min_area, connectivity, kind, out):
    mask = np.random.default_rng(seed).choice(np.array([0, 1, 6, VOID], np.uint8), (9, 11), p=[0.4, 0.3, 0.2, 0.1])
    grains = find_grains(mask, S1, min_area=min_area, connectivity=connectivity)
    path, kept = tmp_path / "a.json", ~np.isin(grains.mineral, out)
    done = write_coco(path, {"a.jpg": mask}, S1, leave_out=out, segmentation=kind, grains={"a.jpg": grains})
    found, labels = json.loads(path.read_text())["annotations"], label_picture(mask, grains)
    assert done == len(found) and [a["grain"] for a in found] == (np.flatnonzero(kept) + 1).tolist()
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    for a in found:
        if isinstance(a["segmentation"], dict):
            inside = pixels(a["segmentation"]["counts"], mask.shape)
        else:
            rings = [np.reshape(ring, (-1, 2)) for ring in a["segmentation"]]
            inside = np.logical_or.reduce([shapely.contains_xy(shapely.Polygon(ring), x, y) for ring in rings])
        np.testing.assert_array_equal(inside, labels == a["grain"])
        rows, columns = np.nonzero(inside)
        assert a["area"] == len(rows) and a["category_id"] == mask[rows[0], columns[0]]
        assert a["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_what_lies_beside_the_grains_is_beneath_what_is_drawn(tmp_path):
    mask = np.zeros((20, 20), np.uint8)
    mask[2:6, 2:6], mask[10:12, 10:12] = 6, 1  # the second is too small to be a grain
    path = tmp_path / "a.geojson"
    write_geojson(path, mask, S1, grains=find_grains(mask, S1, min_area=10))
    data = json.loads(path.read_text())
    drawn = [[8, 8], [14, 8], [14, 14], [8, 14], [8, 8]]
    data["features"].append({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [drawn]},
                             "properties": {"classification": {"name": "Sph"}}})  # fmt: skip
    path.write_text(json.dumps(data))
    assert (read_geojson(path, S1)[8:14, 8:14] == 8).all()


@pytest.mark.parametrize(
    "rest", [[[1]], [["a", [[0, 0]]]], [[999, [[0, 0], [1, 0], [1, 1]]]], 5, [[99, [[0, 0], [1, 0], [1, 1]]]]]
)
def test_a_damaged_member_is_told(tmp_path, rest):
    path = tmp_path / "a.geojson"
    about = {"height": 4, "width": 4, "fill": 0, "rest": rest}
    path.write_text(json.dumps({"type": "FeatureCollection", "petroscope": about, "features": []}))
    with pytest.raises(ValueError, match=r"a\.geojson: .*(damaged|code 99)"):
        read_geojson(path, S1)


def test_outlines_of_bands_are_those_of_the_picture():
    whole = find_outlines(SECTION)
    bands = find_outlines(((top, SECTION[top : top + 17]) for top in range(0, 200, 17)), shape=SECTION.shape)
    for a, b in zip(whole, bands):
        np.testing.assert_array_equal(a, b)


LARGE = """
import resource, sys
import numpy as np
from petroscope.analysis.exchange import write_geojson
from petroscope.analysis.grains import find_grains
mask = np.memmap(sys.argv[1], np.uint8, "r", shape=(9000, 9000))
grains = find_grains(mask, "S1v1")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert write_geojson(sys.argv[1] + ".geojson", mask, "S1v1", grains=grains) == len(grains)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_large_mask_needs_little_memory(tmp_path):
    "81 Mpx: their labels alone would take 324 MB. In a process of its own, whose peak is its own."
    mask = np.zeros((9000, 9000), np.uint8)
    for row in range(100, 8900, 450):
        mask[row : row + 300, row : row + 5] = mask[row : row + 5, 100:8900] = 6
    mask.tofile(tmp_path / "m.raw")
    done = subprocess.run([sys.executable, "-c", LARGE, tmp_path / "m.raw"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert after - before < 250_000  # kB
