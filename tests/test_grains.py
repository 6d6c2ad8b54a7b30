"Grains and their contacts against independent implementations, and across bands."

import warnings
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petroscope.analysis.contacts import contacts, exposure, inclusions
from petroscope.analysis.grains import find_grains, grain_picture, label_bands, label_picture
from petroscope.analysis.sizes import CORRECTIONS, edge_weights, intercepts, size_curves
from petroscope.analysis.watershed import part_grains
from petroscope.io.images import read_mask
from petroscope.segmentation.classes import VOID, LumenStoneClasses
from petroscope.synth.rock import scene

S1 = LumenStoneClasses.S1v1
CODES = np.array([*S1.codes, VOID], np.uint8)


def coarse(rng, shape, step):
    "Blocks of random minerals with specks of others: grains that touch in all ways."
    blocks = rng.choice(CODES, (-(-shape[0] // step), -(-shape[1] // step))).repeat(step, 0).repeat(step, 1)
    mask = blocks[: shape[0], : shape[1]].copy()
    specks = rng.random(shape) < 0.05
    mask[specks] = rng.choice(CODES, np.count_nonzero(specks))
    return mask


def same(first, second):
    "Every figure, to the last bit."
    for name, values in first.columns().items():
        np.testing.assert_array_equal(values, second.columns()[name], err_msg=name)
    for name in ("kind", "pairs", "steps"):
        np.testing.assert_array_equal(getattr(first.regions, name), getattr(second.regions, name), err_msg=name)


def by_scikit_image(mask, code, connectivity):
    measure = pytest.importorskip("skimage.measure")
    return measure.regionprops(measure.label(mask == code, connectivity=1 if connectivity == 4 else 2))


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("mask", [scene((300, 400), seed=3).mask, coarse(np.random.default_rng(1), (90, 120), 7)])
def test_regionprops_agree(mask, connectivity):
    grains = find_grains(mask, S1, connectivity=connectivity)
    numbers, seen = label_picture(mask, grains), 0
    for mineral in grains.minerals:
        for region in by_scikit_image(mask, mineral.code, connectivity):
            i = numbers[tuple(region.coords[0])] - 1
            assert (numbers[tuple(region.coords.T)] == i + 1).all() and grains.mineral[i] == mineral.label
            ours = [grains.area_px, grains.diameter_px, grains.row, grains.col, grains.perimeter_px, grains.major_px,
                    grains.minor_px, grains.top, grains.left]  # fmt: skip
            theirs = [region.area, region.equivalent_diameter_area, *region.centroid, region.perimeter_crofton,
                      region.axis_major_length, region.axis_minor_length, *region.bbox[:2]]  # fmt: skip
            np.testing.assert_allclose([column[i] for column in ours], theirs, rtol=1e-9, atol=1e-5)
            assert (grains.top[i] + grains.height[i], grains.left[i] + grains.width[i]) == region.bbox[2:]
            # Theirs takes the middles of the pixels' sides for corners, and fills the hull with whole pixels.
            assert abs(grains.feret_max_px[i] - region.feret_diameter_max) < 1.01
            if region.axis_major_length > 1.001 * region.axis_minor_length:
                # Theirs is measured from the vertical axis.
                apart = grains.orientation_deg[i] - np.degrees(region.orientation) - 90
                assert abs((apart + 90) % 180 - 90) < 1e-6
            seen += 1
    assert seen == len(grains) > 20


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.sampled_from([4, 8]))
def test_bands_make_no_difference(seed, rows, cols, step, connectivity):
    rng = np.random.default_rng(seed)
    mask = coarse(rng, (rows, cols), step)
    whole = find_grains(mask, S1, 0.5, connectivity=connectivity)
    cuts = [0, *np.unique(rng.integers(0, rows + 1, 3)), rows]
    bands = [(a, mask[a:b]) for a, b in pairwise(cuts) if b > a]
    tiled = find_grains(iter(bands), S1, 0.5, connectivity=connectivity, band_px=int(rng.integers(1, rows * cols + 1)))
    same(whole, tiled)
    labels = np.concatenate([part for _, part in label_bands(bands, tiled)])
    np.testing.assert_array_equal(labels, label_picture(mask, whole))
    np.testing.assert_array_equal(np.bincount(labels.ravel(), minlength=len(whole) + 1)[1:], whole.area_px)


def test_a_grain_over_four_tiles_and_one_that_joins_at_the_end():
    mask = np.zeros((64, 50), np.uint8)
    mask[4:60, 10:20] = 6
    mask[2:62, 30] = mask[2:62, 40] = mask[61, 30:41] = 8  # two arms that meet in the last row of all
    whole = find_grains(mask, S1)
    assert whole.area_px.tolist() == [2 * 60 + 9, 560]
    for rows in (1, 7, 16):
        same(whole, find_grains([(top, mask[top : top + rows]) for top in range(0, 64, rows)], S1, band_px=50))


def test_bands_make_no_difference_to_parted_grains():
    mask = scene((200, 300), seed=5).mask
    whole = find_grains(mask, S1, neck=0.7)
    assert len(whole) > len(find_grains(mask, S1))
    same(whole, find_grains(mask, S1, neck=0.7, band_px=900))
    assert whole.area_px.sum() == find_grains(mask, S1).area_px.sum()
    np.testing.assert_array_equal(np.bincount(label_picture(mask, whole).ravel())[1:], whole.area_px)


def test_parted_grains_are_connected():
    mask = coarse(np.random.default_rng(4), (60, 60), 9)
    for connectivity in (4, 8):
        pieces = part_grains(mask, 1.0, connectivity)
        measure = pytest.importorskip("skimage.measure")
        both = mask.astype(np.int64) + 256 * pieces
        labels = measure.label(both, background=-1, connectivity=1 if connectivity == 4 else 2)
        assert len(np.unique(both)) == labels.max()


@pytest.mark.parametrize("sides", [(1, 1), (1, 9), (8, 8), (3, 20)])
def test_rectangles_exactly(sides):
    rows, cols = sides
    mask = np.zeros((30, 30), np.uint8)
    mask[5 : 5 + rows, 4 : 4 + cols] = 6
    grain = find_grains(mask, S1, pixel_size_um=0.5)
    long, short = max(sides), min(sides)
    diagonals = 2 * 2 * (rows + cols - 1)
    told = {
        "area_px": rows * cols,
        "feret_max_px": np.hypot(rows, cols),
        "feret_min_px": short,
        "aspect": long / short,
        "solidity": 1,
        "perimeter_px": np.pi / 8 * (2 * rows + 2 * cols + diagonals / 2**0.5),
        "area_um2": rows * cols / 4,
        "feret_min_um": short / 2,
        "cut": False,
    }
    for name, value in told.items():
        np.testing.assert_allclose(grain.columns()[name], [value], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("radius", [10, 12.5, 20, 45.3])
def test_discs_and_rings(radius):
    rng = np.random.default_rng(0)
    side = int(2 * radius) + 8
    y, x = np.mgrid[:side, :side]
    for _ in range(10):
        centre = side / 2 + rng.random(2)
        distance = np.hypot(y - centre[0], x - centre[1])
        disc = find_grains(np.where(distance <= radius, 6, 0).astype(np.uint8), S1)
        np.testing.assert_allclose(disc.area_px, np.pi * radius**2, rtol=0.02)
        np.testing.assert_allclose(disc.perimeter_px, 2 * np.pi * radius, rtol=0.03)
        np.testing.assert_allclose([*disc.feret_max_px, *disc.feret_min_px], 2 * radius, rtol=0.08)
        np.testing.assert_allclose(disc.aspect, 1, rtol=0.03)
        ring = find_grains(np.where((distance <= radius) & (distance > radius / 2), 6, 0).astype(np.uint8), S1)
        np.testing.assert_allclose(ring.perimeter_px, 3 * np.pi * radius, rtol=0.03)
        np.testing.assert_allclose(ring.feret_max_px, disc.feret_max_px)
        np.testing.assert_allclose(ring.area_px, 0.75 * np.pi * radius**2, rtol=0.03)


def test_orientation_goes_anticlockwise_as_seen():
    mask = np.zeros((40, 40), np.uint8)
    for i in range(30):
        mask[35 - i, 3 + i : 6 + i] = 6  # rises to the right
    rising, falling = find_grains(mask, S1), find_grains(mask[::-1].copy(), S1)
    assert 35 < rising.orientation_deg[0] < 55 and falling.orientation_deg[0] == -rising.orientation_deg[0]
    assert find_grains(np.pad(np.full((9, 2), 6, np.uint8), 3), S1).orientation_deg == [90]


def test_borders_add_up_to_perimeters():
    mask = coarse(np.random.default_rng(2), (70, 80), 6)
    grains = find_grains(mask, S1, pixel_size_um=3)
    met = contacts(grains)
    np.testing.assert_array_equal(met.length, met.length.T)
    for i, label in enumerate(S1.labels[1:], start=1):
        border = met.length[i].sum() + met.void[i] + met.edge[i]
        np.testing.assert_allclose(border, grains.length("perimeter")[grains.mineral == label].sum())
    np.testing.assert_allclose(met.share().sum(axis=1), 1)
    inner = met.share(background=False)
    assert (np.diag(inner)[1:] == 0).all() and (inner[1:, 0] == 0).all() and np.isnan(inner[0]).all()


def test_corners_alone_are_seen_by_four_and_by_eight():
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 2:4] = mask[4:6, 4:6] = 6
    eight, four = find_grains(mask, S1), find_grains(mask, S1, connectivity=4)
    assert (len(eight), len(four)) == (1, 2)
    # The two squares cross each other once, along the diagonal.
    once = np.pi / 8 / 2**0.5
    assert contacts(four).length[4, 4] == pytest.approx(2 * once) and contacts(eight).length[4, 4] == 0
    assert four.perimeter_px.sum() == pytest.approx(eight.perimeter_px[0] + 2 * once)


def test_small_pieces_leave_the_table_and_stay_neighbours():
    mask = np.full((20, 20), 8, np.uint8)
    mask[5, 5], mask[10:14, 10:14] = 6, 6
    grains = find_grains(mask, S1, min_area=10)
    assert grains.mineral.tolist() == ["Sph", "Py/Mrc"]
    line = next(line for line in grains.summary() if line["mineral"] == "Py/Mrc")
    assert (line["grains"], line["smaller"], line["area_px2"]) == (1, 1, 17)
    np.testing.assert_array_equal(contacts(grains).length, contacts(find_grains(mask, S1)).length)
    np.testing.assert_array_equal(label_picture(mask, grains)[[5, 10], [5, 10]], [0, 2])


def test_corrections_count_whole_grains():
    mask = np.zeros((50, 60), np.uint8)
    mask[0:5, 10:20] = mask[20:30, 20:25] = 6
    grains = find_grains(mask, S1)
    assert grains.cut.tolist() == [True, False]
    weights = {correction: edge_weights(grains, correction).tolist() for correction in CORRECTIONS}
    box = 50 * 60 / ((50 - 10 - 1) * (60 - 5 - 1))
    assert weights == {"none": [1, 1], "whole": [0, 1], "miles-lantuejoul": [0, pytest.approx(box)]}
    curve = size_curves(grains, "feret_min", "whole")["Py/Mrc"]
    assert (curve.size.tolist(), curve.cut, curve.d(50)) == ([5], 1, 5)
    with pytest.raises(ValueError, match="must be one of none, whole"):
        edge_weights(grains, "minus")


def test_intercepts_of_squares():
    mask = np.zeros((60, 60), np.uint8)
    mask[10:30, 10:50] = 8
    line = next(line for line in intercepts(find_grains(mask, S1, 2)) if line.mineral == "Sph")
    assert (line.horizontal, line.vertical) == (80, 40)
    assert line.falling == line.rising == pytest.approx(2 * 20 * 40 / 59 * 2**0.5)


def test_nested_inclusions_with_pores():
    "Gold in pyrite that has a pore, in chalcopyrite, in sphalerite that reaches the edge."
    mask = np.full((60, 60), 8, np.uint8)
    for low, high, code in ((10, 50, 1), (15, 45, 6), (20, 25, 0), (30, 40, 2)):
        mask[low:high, low:high] = code
    grains = find_grains(mask, S1)
    found = inclusions(grains)
    hosts = dict(zip(grains.mineral.tolist(), found.host.tolist()))
    assert hosts == {"Sph": -1, "Ccp": 5, "Py/Mrc": 1, "Gl": 4}
    assert grains.mineral[found.host_grain[grains.mineral == "Gl"] - 1].tolist() == ["Py/Mrc"]


def test_a_photo_through_and_through():
    mask = scene((300, 400), seed=8).mask
    grains = find_grains(mask, S1, min_area=5, resin="BG")
    assert grain_picture(mask, grains).shape == (300, 400, 3)
    free = exposure(grains).free
    assert ((free >= 0) & (free <= 1) | np.isnan(free)).all()
    kept = sum(line["area_px2"] for line in grains.summary())
    assert kept == np.count_nonzero((mask != 0) & (mask != VOID))
    assert "no pixel size given" in str(grains) and "<table>" in grains._repr_html_()


def test_an_array_that_is_mapped_from_a_file(tmp_path):
    mask = scene((200, 200), seed=1).mask
    mask.tofile(tmp_path / "mask.raw")
    same(find_grains(mask, S1), find_grains(np.memmap(tmp_path / "mask.raw", np.uint8, "r", shape=mask.shape), S1))


def test_grains_far_from_the_origin_are_as_exact():
    mask = np.zeros((60_000, 40), np.uint8)
    mask[2:10, 3:20] = mask[59_000:59_008, 20:37] = 6
    grains = find_grains(mask, S1)
    for name in ("major_px", "minor_px", "aspect", "orientation_deg", "feret_max_px", "perimeter_px"):
        first, last = getattr(grains, name)
        assert first == last, name


def test_real_photo(s1):
    mask = read_mask(sorted((s1 / "masks" / "train").glob("*.png"))[0])
    grains = find_grains(mask, S1, min_area=4)
    same(grains, find_grains(mask, S1, min_area=4, band_px=1 << 17))
    shown = np.isin(mask, S1.codes[1:]).sum()
    assert sum(line["area_px2"] for line in grains.summary()) == shown


def test_two_minerals_that_touch_are_enclosed_together():
    "Whatever hangs together without the host, meets it with minerals only and lies clear of the edge has a host."
    rng, hosts = np.random.default_rng(6), 0
    side = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
    for _ in range(60):
        noise = cv2.resize(rng.random((9, 9)).astype(np.float32), (36, 36), interpolation=cv2.INTER_CUBIC)
        mask = np.full((40, 40), 6, np.uint8)
        mask[2:38, 2:38] = np.array([0, 1, 6, 6, 2, 8], np.uint8)[np.digitize(noise, [0.15, 0.3, 0.5, 0.7, 0.8])]
        grains = find_grains(mask, S1, connectivity=4)
        found, labels = inclusions(grains), label_picture(mask, grains)
        near_pore = np.unique(labels[cv2.dilate((mask == 0).view(np.uint8), side) > 0])
        expected = np.zeros(len(grains) + 1, bool)
        for code in (1, 2, 6, 8):
            count, parts = cv2.connectedComponents((mask != code).view(np.uint8), connectivity=4)
            beside = cv2.dilate((mask == code).view(np.uint8), side) > 0
            reaches = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
            meets_pore = np.unique(parts[beside & (mask == 0)])
            closed = np.setdiff1d(np.arange(1, count), reaches)
            expected[np.unique(labels[np.isin(parts, np.setdiff1d(closed, meets_pore))])] = True
            mine = 1 + np.flatnonzero(found.host == S1.codes.index(code))
            assert np.isin(np.unique(parts[np.isin(labels, mine)]), closed).all()  # no host without enclosure
            hosts += len(mine)
        expected[[0, *near_pore]] = False
        assert (found.host[expected[1:]] >= 0).all()
        assert (found.host[found.host_grain > 0] == grains.index[found.host_grain[found.host_grain > 0] - 1]).all()
    assert hosts > 300


def test_the_innermost_host_counts():
    "Two specks that touch, in pyrite, in sphalerite, in chalcopyrite up to the edge."
    mask = np.full((40, 40), 1, np.uint8)
    mask[5:35, 5:35], mask[10:30, 10:30], mask[15:20, 15:20], mask[15:20, 20:25] = 8, 6, 2, 11
    grains = find_grains(mask, S1)
    hosts = {str(m): S1.labels[h] if h >= 0 else None for m, h in zip(grains.mineral, inclusions(grains).host)}
    assert hosts == {"Ccp": None, "Sph": "Ccp", "Py/Mrc": "Sph", "Gl": "Py/Mrc", "Tnt/Ttr": "Py/Mrc"}


def test_parting_a_panorama_says_what_it_needs(monkeypatch):
    mask = scene((100, 120), seed=1, variation=0).mask
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_grains(mask, S1, neck=0.7)
    monkeypatch.setattr("petroscope.analysis.watershed.PART_WARN_BYTES", 1000)
    with pytest.warns(UserWarning, match="needs it whole and about 0 GB of memory"):
        find_grains(mask, S1, neck=0.7)


def test_absent_minerals_are_named_once_and_not_as_lines_of_nan():
    mask = np.zeros((20, 20), np.uint8)
    mask[5:9, 5:9] = 6
    text = str(find_grains(mask, S1, pixel_size_um=0.5))
    assert "nan" not in text and "not met: Ccp, Gl, Brt, Sph, Tnt/Ttr" in text
    assert "\u00b5m" in text and " um" not in text
    assert "nan" not in find_grains(mask, S1)._repr_html_()
    assert str(find_grains(mask * 0, S1)).count("\n") == 1
