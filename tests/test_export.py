"Masks there and back, against shapely and against slow statements of what the formats say."

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
import shapely.geometry
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from petroscope.analysis.exchange import read_geojson, read_labelme, write_coco, write_geojson, write_label_tiff
from petroscope.analysis.palettes import read_colored, write_colored
from petroscope.analysis.polygons import find_crossings, find_outlines, paint_polygons, polygon_edges
from petroscope.io.images import VOID, read_mask, write_image
from petroscope.io.scale import pixel_size_um
from petroscope.segmentation.classes import LumenStoneClasses
from petroscope.view.plot import colorize
from petroscope.view.tables import Table

ROOT = Path(__file__).resolve().parent.parent
S1 = LumenStoneClasses.S1v1
shapes = st.tuples(st.integers(1, 14), st.integers(1, 14))
masks = shapes.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 6, VOID])))
pairs = shapes.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([6, 8])))
quick = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pieces(mask, code):
    "Pixels of a class, piece by piece: they hang together by their edges."
    left = {tuple(at) for at in np.argwhere(mask == code).tolist()}
    while left:
        todo, piece = [left.pop()], set()
        while todo:
            row, column = todo.pop()
            piece.add((row, column))
            for near in (row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1):
                if near in left:
                    left.remove(near)
                    todo.append(near)
        yield frozenset(piece)


@quick
@given(mask=st.one_of(masks, pairs))
def test_outlines_are_valid_polygons_of_the_pieces(mask):
    found = find_outlines(mask)
    expected = {piece for code in (0, 1, 6, 8) for piece in pieces(mask, code)}
    assert len(found.values) == len(expected)
    seen = set()
    for i, (code, pixels, first) in enumerate(zip(found.values, found.pixels, found.first)):
        polygon = shapely.Polygon(found.polygon(i)[0], found.polygon(i)[1:])
        assert polygon.is_valid and polygon.area == pixels
        assert polygon.exterior.is_ccw and not any(ring.is_ccw for ring in polygon.interiors)
        inside = {(r, c) for r, c in np.ndindex(mask.shape) if polygon.contains(shapely.Point(c + 0.5, r + 0.5))}
        assert divmod(int(first), mask.shape[1]) in inside
        assert {mask[at] for at in inside} == {code}
        seen.add(frozenset(inside))
    assert seen == expected


@quick
@given(mask=st.one_of(masks, pairs), each=st.sampled_from(["grain", "mineral"]), out=st.sampled_from([[], ["BG"]]))
def test_geojson_there_and_back(tmp_path, mask, each, out):
    path = tmp_path / "a.geojson"
    kept = mask.copy()
    n = write_geojson(path, mask[:, ::-1], S1, each=each, leave_out=out)
    np.testing.assert_array_equal(mask, kept)
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["type"] == "FeatureCollection" and len(data["features"]) == n
    objects = [shapely.geometry.shape(f["geometry"]) for f in data["features"]]
    assert all(o.is_valid for o in objects)
    names = [f["properties"]["classification"]["name"] for f in data["features"]]
    for m in S1:
        area = sum(o.area for o, name in zip(objects, names) if name == m.name)
        assert area == (0 if m.label in out else (mask == m.code).sum())
    np.testing.assert_array_equal(read_geojson(path, S1, shape=mask.shape), mask[:, ::-1])


def test_grains_by_number_with_measurements(tmp_path):
    mask = np.full((12, 12), 6, np.uint8)
    mask[:, 6:] = 8
    labels = np.zeros((12, 12), np.int32)
    labels[1:4, 1:4], labels[4:6, 4:6], labels[5:9, 7:9] = 1, 1, 2  # the first hangs together by a corner
    n = write_geojson(
        tmp_path / "a.geojson", mask, S1, labels=labels, kind="detection", pixel_size_um=0.5,
        measurements={"aspect": np.array([1.5, np.nan])},
    )  # fmt: skip
    first, second = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))["features"]
    assert n == 2 and first["geometry"]["type"] == "MultiPolygon" and second["geometry"]["type"] == "Polygon"
    assert first["properties"]["measurements"] == {"Area px^2": 13, "Area µm^2": 3.25, "aspect": 1.5}
    assert second["properties"]["measurements"] == {"Area px^2": 8, "Area µm^2": 2.0}
    assert first["properties"]["classification"] == {"name": "pyrite/marcasite", "color": list(S1["Py/Mrc"].color)}
    np.testing.assert_array_equal(read_geojson(tmp_path / "a.geojson", S1), np.where(labels > 0, mask, VOID))


def test_what_versions_of_qupath_have_written(tmp_path):
    square = {"type": "Polygon", "coordinates": [[[1, 1], [3, 1], [3, 3], [1, 3], [1, 1]]]}
    dot = {"type": "Polygon", "coordinates": [[[2, 2], [3, 2], [3, 3], [2, 3], [2, 2]]]}
    old = {"type": "Feature", "id": "PathAnnotationObject", "geometry": square,
           "properties": {"classification": {"name": "Gl", "colorRGB": -3140401}, "isLocked": False}}  # fmt: skip
    child = {"type": "Feature", "geometry": dot, "properties": {"classification": {"names": ["Ccp"]}}}
    new = {"type": "Feature", "geometry": square,
           "properties": {"classification": {"name": "Gl"}, "childObjects": [child]}}  # fmt: skip
    path = tmp_path / "a.geojson"
    for data, counts in ([old], [4, 0]), (old, [4, 0]), ({"features": [new]}, [3, 1]):
        path.write_text(json.dumps(data))
        mask = read_geojson(path, S1, shape=(5, 6))
        assert [(mask == code).sum() for code in (2, 1)] == counts
        assert (mask == VOID).sum() == 30 - 4


points = st.tuples(st.floats(0, 20), st.floats(0, 20))


@quick
@given(ring=st.lists(points, min_size=3, max_size=8), seed=st.integers(0, 99))
def test_painting_and_crossing_as_shapely_has_it(ring, seed):
    ring = np.array(ring) + np.random.default_rng(seed).uniform(-1e-3, 1e-3, (len(ring), 2))  # no three on a line
    polygon = shapely.Polygon(ring)
    assert (len(find_crossings(polygon_edges([ring], [0]))) == 0) == polygon.is_valid
    if polygon.is_valid:
        centres = [[polygon.contains(shapely.Point(c + 0.5, r + 0.5)) for c in range(20)] for r in range(20)]
        np.testing.assert_array_equal(paint_polygons([ring], [0], [1], (20, 20), fill=0), centres)


def test_many_points_are_no_trouble():
    angle = np.linspace(0, 2 * np.pi, 200_001)[:-1]
    radius = 900 + 40 * np.sin(60 * angle)
    ring = 1000 + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert not find_crossings(polygon_edges([ring], [0]))
    ring[[1000, 9000]] = ring[[9000, 1000]]
    assert find_crossings(polygon_edges([ring], [0]))
    area = (paint_polygons([ring], [0], [1], (2000, 2000), fill=0) == 1).sum()
    assert area == pytest.approx(np.pi * (900**2 + 40**2 / 2), rel=1e-3)


def slow_counts(letters):
    "COCO's compression, undone as its description says."
    counts, i = [], 0
    while i < len(letters):
        x = k = 0
        more = True
        while more:
            c = ord(letters[i]) - 48
            x |= (c & 0x1F) << 5 * k
            more = bool(c & 0x20)
            i, k = i + 1, k + 1
            if not more and c & 0x10:
                x |= -1 << 5 * k
        counts.append(x + (counts[-2] if len(counts) > 2 else 0))
    return counts


@quick
@given(mask=masks)
def test_coco_has_every_grain(tmp_path, mask):
    write_coco(tmp_path / "a.json", {"a.jpg": mask}, S1, leave_out=[])
    data = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    again = np.full(mask.shape, VOID, np.uint8)
    for a in data["annotations"]:
        counts = slow_counts(a["segmentation"]["counts"])
        assert sum(counts) == mask.size and all(n > 0 for n in counts[1:])
        inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(mask.shape[::-1]).T
        rows, columns = np.nonzero(inside)
        left, top = columns.min(), rows.min()
        assert a["bbox"] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
        assert a["area"] == len(rows)
        again[inside] = a["category_id"]
    np.testing.assert_array_equal(again, mask)


@quick
@given(mask=masks)
def test_pictures_there_and_back(tmp_path, mask):
    write_colored(tmp_path / "a.png", mask, S1)
    write_image(tmp_path / "b.png", colorize(mask, S1))
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png").convert("RGB")), colorize(mask, S1))
    for name in "a.png", "b.png":
        np.testing.assert_array_equal(read_colored(tmp_path / name, S1), mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask)
    write_label_tiff(tmp_path / "a.ome.tif", mask, pixel_size_um=0.25, tile=16)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.ome.tif"), mask)
    assert pixel_size_um(tmp_path / "a.ome.tif") == 0.25


def test_pyramid_of_labels(tmp_path):
    labels = np.random.default_rng(0).integers(0, 70_000, (2300, 1500), np.int32)
    write_label_tiff(tmp_path / "a.ome.tif", labels, tile=256)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
    assert tiff.is_ome and len(levels) == 5
    for n, level in enumerate(levels):
        np.testing.assert_array_equal(level, labels[:: 2**n, :: 2**n])


def test_unknown_colors_are_named(tmp_path):
    picture = colorize(np.array([[0, 1, 6]], np.uint8), S1)
    picture[0, 1] = 222, 180, 20
    write_image(tmp_path / "a.png", picture)
    with pytest.raises(ValueError, match=r"a\.png.*\(222, 180, 20\) in 1 px \(nearest: chalcopyrite"):
        read_colored(tmp_path / "a.png", S1)
    with pytest.raises(ValueError, match="several share one"):
        read_colored(tmp_path / "a.png", S1, palette={"Gl": (1, 1, 1), "Sph": (1, 1, 1)})


def test_tables(tmp_path):
    columns = {
        "mineral": np.array(["Gl", "a,b"]),
        "n": np.array([1, 2]),
        "cut": np.array([True, False]),
        "x": [0.1, np.nan],
    }
    Table.from_columns(columns).write(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == 'mineral,n,cut,x\nGl,1,True,0.1\n"a,b",2,False,\n'
    parquet = pytest.importorskip("pyarrow.parquet")
    Table.from_columns(columns).write(tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.column_names == list(columns) and table.column("cut").to_pylist() == [True, False]
    Table.from_columns({"a": []}).write(tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text() == "a\n"


def test_parquet_without_pyarrow_says_what_to_do(tmp_path):
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from petroscope.view.tables import Table\n"
        f"Table.from_columns({{'a': [1]}}).write({str(tmp_path / 'a.parquet')!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "pip install 'petroscope[parquet]', or write .csv" in done.stderr.strip().splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_labelme_paints_in_order(tmp_path):
    square = [[1, 1], [5, 1], [5, 5], [1, 5]]
    listed = [
        {"label": "Gl", "points": square},
        {"label": "Sph", "points": [[3, 3], [9, 9]], "shape_type": "rectangle"},
    ]
    for order, galena in (listed, 12), (listed[::-1], 16):
        data = {"shapes": order, "imageHeight": 9, "imageWidth": 9}
        (tmp_path / "a.json").write_text(json.dumps(data))
        mask = read_labelme(tmp_path / "a.json", S1, shape=(9, 9))
        assert ((mask == 2).sum(), (mask != VOID).sum()) == (galena, 16 + 36 - 4)


def test_real_masks_are_exact(s1, tmp_path):
    for file in sorted((s1 / "masks/train").glob("*.png"))[:3]:
        mask = read_mask(file)
        write_geojson(tmp_path / "a.geojson", file, S1)
        features = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))["features"]
        polygons = [shapely.geometry.shape(f["geometry"]) for f in features]
        assert all(p.is_valid for p in polygons)
        assert sum(p.area for p in polygons) == mask.size
        np.testing.assert_array_equal(read_geojson(tmp_path / "a.geojson", S1), mask)
