"Polygons that overlap: the one of smaller area is on top, whatever its rings and its place in the file are."

import json

import numpy as np
import pytest
import shapely
import shapely.affinity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petroscope.analysis.exchange import read_geojson, read_labelme, write_geojson
from petroscope.segmentation.classes import VOID, LumenStoneClasses

S1 = LumenStoneClasses.S1v1
SIZE = 60
LABELS = [m.label for m in S1]
quick = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])


def feature(label, shape, **properties):
    about = {"objectType": "annotation", "classification": {"name": label}, **properties}
    return {"type": "Feature", "geometry": shapely.geometry.mapping(shape), "properties": about}


def read(folder, features, **options):
    (folder / "drawn.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return read_geojson(folder / "drawn.geojson", S1, (SIZE, SIZE), **options)


def slowly(objects):
    "Pixel by pixel and by shapely: parts from the largest to the smallest, the later one on top of an equal one."
    parts = [(part, label) for label, shape in objects for part in getattr(shape, "geoms", [shape])]
    mask, (y, x) = np.full((SIZE, SIZE), VOID, np.uint8), np.mgrid[:SIZE, :SIZE] + 0.5
    for part, label in sorted(parts, key=lambda item: -item[0].area):
        mask[shapely.contains_xy(part, x, y)] = S1[label].code
    return mask


def test_a_speck_before_the_large_part_of_a_multipolygon(tmp_path):
    speck, large, grain = shapely.box(50, 50, 52, 52), shapely.box(2, 2, 45, 45), shapely.box(10, 10, 20, 20)
    objects = [("Gl", grain), ("Sph", shapely.MultiPolygon([speck, large]))]
    for order in objects, objects[::-1]:
        mask = read(tmp_path, [feature(*one) for one in order])
        assert [np.count_nonzero(mask == S1[label].code) for label in ("Gl", "Sph")] == [100, 43 * 43 - 100 + 4]


def test_a_thin_ring_lies_on_what_is_larger_than_itself(tmp_path):
    ring = shapely.box(5, 5, 55, 55) - shapely.box(7, 7, 53, 53)  # 384 px^2, its outer ring 2500
    grain = shapely.box(0, 0, 30, 40)  # 1200
    mask = read(tmp_path, [feature("Ccp", ring), feature("Py/Mrc", grain)])
    assert np.count_nonzero(mask == S1["Ccp"].code) == 384
    np.testing.assert_array_equal(mask, slowly([("Ccp", ring), ("Py/Mrc", grain)]))


def test_an_island_in_a_hole(tmp_path):
    island = shapely.box(25, 25, 35, 35)
    around = shapely.MultiPolygon([shapely.box(5, 5, 55, 55) - shapely.box(15, 15, 45, 45), island])
    between = shapely.box(20, 20, 40, 40)
    mask = read(tmp_path, [feature("Sph", around), feature("Gl", between)])
    assert mask[30, 30] == S1["Sph"].code and mask[22, 22] == S1["Gl"].code and mask[17, 17] == VOID


def test_a_bow_tie_counts_as_what_it_paints(tmp_path):
    bow, grain = shapely.Polygon([(0, 0), (40, 40), (40, 0), (0, 40)]), shapely.box(10, 2, 30, 41)  # 800 and 780 px
    mask = read(tmp_path, [feature("Gl", bow), feature("Ccp", grain)], crossings="evenodd")
    assert mask[20, 15] == S1["Ccp"].code
    small = shapely.box(0, 15, 10, 25)
    for order in ([feature("Ccp", small), feature("Gl", bow)], [feature("Gl", bow), feature("Ccp", small)]):
        assert read(tmp_path, order, crossings="evenodd")[20, 8] == S1["Ccp"].code  # the signed area of a bow is 0


@pytest.mark.parametrize("key", ["childObjects", "children"])
def test_of_equal_areas_the_later_and_the_child_is_on_top(tmp_path, key):
    same = shapely.box(10, 10, 30, 30)
    assert read(tmp_path, [feature("Gl", same), feature("Ccp", same)])[20, 20] == S1["Ccp"].code
    assert read(tmp_path, [feature("Ccp", same), feature("Gl", same)])[20, 20] == S1["Gl"].code
    tree = feature("Gl", same, **{key: [feature("Ccp", same, **{key: [feature("Sph", same)]})]})
    assert read(tmp_path, [tree])[20, 20] == S1["Sph"].code


def test_labelme_keeps_the_order_of_its_file(tmp_path):
    "As Labelme itself draws: later shapes are on top, larger ones too."
    shapes = [{"label": "Gl", "points": [[5, 5], [9, 5], [9, 9], [5, 9]]},
              {"label": "Sph", "points": [[0, 0], [30, 0], [30, 30], [0, 30]]}]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps({"imageHeight": SIZE, "imageWidth": SIZE, "shapes": shapes}))
    assert set(np.unique(read_labelme(tmp_path / "a.json", S1))) == {S1["Sph"].code, VOID}


def test_an_object_without_an_outline_is_refused(tmp_path):
    for empty in ({"type": "MultiPolygon", "coordinates": []}, {"type": "Polygon", "coordinates": []}):
        with pytest.raises(ValueError, match="without an outline"):
            read(tmp_path, [{**feature("Gl", shapely.box(0, 0, 1, 1)), "geometry": empty}])


@st.composite
def drawings(draw):
    "Rings, blobs and scattered parts, some within others, in any order."
    found = []
    for _ in range(draw(st.integers(1, 6))):
        parts = shapely.Polygon()
        for _ in range(draw(st.integers(1, 3))):
            x, y, radius = (draw(st.floats(a, b)) for a, b in ((12, 48), (12, 48), (1, 11)))
            disc = shapely.Point(x, y).buffer(radius, quad_segs=draw(st.integers(1, 6)))
            if draw(st.booleans()):
                disc = disc - shapely.Point(x, y).buffer(radius * draw(st.floats(0.3, 0.9)), quad_segs=3)
            parts = parts | disc
        # Off the centres of pixels, of which libraries may think either way.
        parts = shapely.affinity.rotate(parts, draw(st.floats(0, 90)), (30.137, 30.0731))
        parts = shapely.affinity.translate(parts, 0.137, 0.0731)
        found.append((draw(st.sampled_from(LABELS)), parts))
    return found


@quick
@given(objects=drawings())
def test_any_drawing_as_shapely_has_it(objects, tmp_path):
    inside = shapely.box(0, 0, SIZE, SIZE)
    objects = [(label, shape & inside) for label, shape in objects if (shape & inside).area > 0.5]
    areas = sorted(part.area for _, shape in objects for part in getattr(shape, "geoms", [shape]))
    if not objects or (np.diff(areas) < 1e-6).any() or any("Polygon" not in s.geom_type for _, s in objects):
        return
    np.testing.assert_array_equal(read(tmp_path, [feature(*one) for one in objects]), slowly(objects))


@quick
@given(objects=drawings(), each=st.sampled_from(["grain", "mineral"]))
def test_what_was_painted_comes_back(objects, each, tmp_path):
    mask = slowly(objects)
    write_geojson(tmp_path / "own.geojson", mask, S1, each=each)
    np.testing.assert_array_equal(read_geojson(tmp_path / "own.geojson", S1), mask)
