"What grains enclose, and circularity with and without it, against slow definitions and other libraries."

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from petroscope.analysis.grains import CROFTON, find_grains, find_holes, label_picture
from petroscope.analysis.result import pooled_grains
from petroscope.segmentation.classes import VOID, LumenStoneClasses

S1 = LumenStoneClasses.S1v1
CORNERS, SIDES = np.ones((3, 3)), ndimage.generate_binary_structure(2, 1)


def crossings(one, other):
    "Crofton's length of the border between two sets of pixels that have none in common."
    one, other = np.pad(one, 1), np.pad(other, 1)
    total = 0.0
    for (dy, dx), weight in zip(((0, 1), (1, 0), (1, 1), (1, -1)), CROFTON):
        for a, b in ((one, other), (other, one)):
            total += weight * np.count_nonzero(a & np.roll(b, (-dy, -dx), (0, 1)))
    return total


def regions_of(mask, connectivity):
    "A number for each region, from 1, and 0 in a frame around all."
    labels = np.zeros(np.add(mask.shape, 2), int)
    for code in np.unique(mask):
        parts, _ = ndimage.label(np.pad(mask == code, 1), CORNERS if connectivity == 8 else SIDES)
        labels = np.where(parts > 0, parts + labels.max(), labels)
    return labels


def slowly(labels, grain, connectivity):
    "Pixels from which no way leads to the frame but through the grain: a way from region to region, each one a whole."
    joined = SIDES if connectivity == 8 else CORNERS
    reached, todo = {0}, [0]
    while todo:
        near = ndimage.binary_dilation(labels == todo.pop(), joined)
        for number in set(labels[near].tolist()) - reached - {grain}:
            reached.add(number)
            todo.append(number)
    return ~np.isin(labels, [*reached, grain])[1:-1, 1:-1]


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), connectivity=st.sampled_from([4, 8]), kinds=st.integers(2, 4),
       band=st.sampled_from([1, 30, 9999]))  # fmt: skip
def test_holes_by_their_definition(seed, connectivity, kinds, band):
    rng = np.random.default_rng(seed)
    mask = rng.choice(np.array([6, 0, 1, VOID], np.uint8)[:kinds], (9, 10))
    if set(np.unique(mask)) <= {0, VOID}:
        return
    grains = find_grains(mask, S1, connectivity=connectivity, band_px=band)
    numbers, labels = label_picture(mask, grains), regions_of(mask, connectivity)
    for i in range(len(grains)):
        mine = numbers == i + 1
        holes = slowly(labels, labels[1:-1, 1:-1][mine][0], connectivity)
        assert grains.hole_area_px[i] == np.count_nonzero(holes)
        assert grains.perimeter_px[i] == pytest.approx(crossings(mine, ~mine) + edge(mine))
        assert grains.outer_perimeter_px[i] == pytest.approx(grains.perimeter_px[i] - crossings(mine, holes))


def edge(mine):
    "Length of the border with what lies beyond the photo."
    frame = np.pad(np.zeros_like(mine), 1, constant_values=True)
    inner = np.pad(mine, 1)
    return sum(
        weight * np.count_nonzero(a & np.roll(b, (-dy, -dx), (0, 1)))
        for (dy, dx), weight in zip(((0, 1), (1, 0), (1, 1), (1, -1)), CROFTON)
        for a, b in ((inner, frame), (frame, inner))
    )


def test_filled_as_scipy_fills():
    rng = np.random.default_rng(1)
    mask = np.where(ndimage.gaussian_filter(rng.random((200, 240)), 2) > 0.5, np.uint8(6), np.uint8(0))
    grains = find_grains(mask, S1, connectivity=4)  # the background, too, hangs together by sides only
    numbers = label_picture(mask, grains)
    for i in np.argsort(-grains.area_px)[:8]:
        filled = ndimage.binary_fill_holes(numbers == i + 1, CORNERS)
        assert grains.hole_area_px[i] == np.count_nonzero(filled) - grains.area_px[i]


def target(radii, codes, size=81):
    y, x = np.mgrid[:size, :size] - size // 2
    mask = np.zeros((size, size), np.uint8)
    for radius, code in zip(radii, codes):
        mask[y**2 + x**2 <= radius**2] = code
    return mask


@pytest.mark.parametrize("inner", [0, 1, VOID])
def test_inclusions_pores_and_void_are_holes(inner):
    disc, ring = (find_grains(target((30, r), (6, inner)), S1) for r in (0, 15))
    whole = find_grains(target((30,), (6,)), S1)
    i = ring.mineral.tolist().index("Py/Mrc")
    assert ring.area_px[i] + ring.hole_area_px[i] == whole.area_px[0]
    assert ring.outer_perimeter_px[i] == pytest.approx(whole.perimeter_px[0], rel=1e-12)
    assert ring.circularity[i] == pytest.approx(whole.circularity[0], rel=1e-12)
    area, outline = math.pi * (30**2 - 15**2), 2 * math.pi * (30 + 15)
    assert ring.circularity_with_holes[i] == pytest.approx(4 * math.pi * area / outline**2, rel=0.05)
    assert disc.circularity[0] == pytest.approx(1, rel=0.03)


def test_holes_within_holes():
    found = find_grains(target((38, 30, 20, 10), (8, 1, 6, 2)), S1)
    area = dict(zip(found.mineral.tolist(), zip(found.area_px.tolist(), found.hole_area_px.tolist())))
    assert area["Gl"][1] == 0 and area["Py/Mrc"][1] == area["Gl"][0]
    assert area["Ccp"][1] == sum(area["Py/Mrc"]) and area["Sph"][1] == sum(area["Ccp"])


def test_a_bay_is_no_hole():
    mask = target((30, 15), (6, 0))
    mask[40, :] = 0  # a slit to the edge
    assert find_grains(mask, S1).hole_area_px.tolist() == [0, 0]


def test_small_grains_have_more_than_one_and_are_left_so():
    pixel = find_grains(np.pad(np.full((1, 1), 6, np.uint8), 3), S1)
    assert (
        pixel.circularity[0] == pytest.approx(4 * math.pi / (math.pi / 8 * (4 + 4 / 2**0.5)) ** 2)
        and pixel.circularity[0] > 1.7
    )


def test_pooled_fields_keep_their_holes():
    one, two = find_grains(target((30, 10), (6, 1)), S1), find_grains(target((20, 5), (8, 0)), S1, pixel_size_um=None)
    both = pooled_grains([one, two])
    np.testing.assert_array_equal(both.hole_area_px, np.concatenate([one.hole_area_px, two.hole_area_px]))


def test_the_columns_carry_their_units():
    columns = find_grains(target((30, 10), (6, 1)), S1, pixel_size_um=0.5).columns()
    np.testing.assert_allclose(columns["hole_area_um2"], columns["hole_area_px"] / 4)
    np.testing.assert_allclose(columns["outer_perimeter_um"], columns["outer_perimeter_px"] / 2)
    assert "hole_area_um" not in columns
    with pytest.raises(ValueError, match="no length 'hole_area'"):
        find_grains(target((30,), (6,)), S1).length("hole_area")


def test_a_long_chain_of_holes_needs_no_recursion():
    size = 2401
    at = np.abs(np.arange(size) - size // 2)
    rings = np.maximum(at[:, None], at[None]) // 1
    mask = np.where(rings % 2, np.uint8(6), np.uint8(1))
    grains = find_grains(mask, S1)
    assert len(grains) == size // 2 + 1 and grains.hole_area_px.max() == (size - 2) ** 2
    assert find_holes(grains.regions, 8)[0][0] == 0
