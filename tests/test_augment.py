"Augmentation against the definition, for any change: where each pixel of a patch looks, and what its light becomes."

import math
import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from petroscope.segmentation.augment import Augment, Change, apply, cut_image, cut_mask, outline, recolor

HEIGHT, WIDTH = 120, 126
ROWS, COLS = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
# A photo that tells each pixel's own place, inside a border that no patch may look at.
BORDER = np.full((HEIGHT + 20, WIDTH + 20, 3), 255, np.uint8)
BORDER[10:-10, 10:-10] = np.dstack([ROWS * 2, COLS * 2, ROWS])
PHOTO = BORDER[10:-10, 10:-10]
MASKS = np.full((2, HEIGHT + 20, WIDTH + 20), 255, np.uint8)
MASKS[:, 10:-10, 10:-10] = ROWS, COLS
BY_ROW, BY_COL = MASKS[:, 10:-10, 10:-10]

turns = st.one_of(st.sampled_from([0.0, 45.0, 90.0, -90.0, 180.0]), st.floats(-360, 360))
zooms = st.one_of(st.just(1.0), st.floats(0.3, 2))
geometry = st.tuples(turns, zooms, st.booleans(), st.integers(0, 3)).map(lambda numbers: Change(*numbers))
centers = st.tuples(st.floats(-50, 200), st.floats(-50, 200))
sizes = st.integers(1, 40)


def where(center, size, change):
    "Rows and columns that the patch looks at: a grid that is turned, then flipped and turned as arrays are."
    half, turn = (size - 1) / 2, math.radians(change.angle_deg)
    down, right = np.meshgrid(*[np.arange(size) - half] * 2, indexing="ij")
    rows = change.zoom * (math.cos(turn) * down + math.sin(turn) * right)
    cols = change.zoom * (math.cos(turn) * right - math.sin(turn) * down)
    middle = list(center) if change.geometric else [math.floor(c - half + 0.5) + half for c in center]
    for axis, (grid, length) in enumerate(((rows, HEIGHT), (cols, WIDTH))):
        middle[axis] += max(0, -(middle[axis] + grid.min())) - max(0, middle[axis] + grid.max() - (length - 1))
    grids = (rows + middle[0], cols + middle[1])
    return [np.rot90(grid[:, ::-1] if change.flip else grid, change.quarter) for grid in grids]


@settings(max_examples=200)
@given(centers, sizes, geometry)
def test_each_pixel_looks_where_the_definition_says(center, size, change):
    rows, cols = where(center, size, change)
    patch = cut_image(PHOTO, center, size, change).astype(float)
    # OpenCV takes steps of 1/32 px; twice the place, rounded to a grey level.
    assert np.abs(patch[..., 0] - 2 * rows).max() < 0.6 and np.abs(patch[..., 1] - 2 * cols).max() < 0.6
    for mask, looked in ((BY_ROW, rows), (BY_COL, cols)):
        codes = cut_mask(mask, center, size, change)
        assert np.abs(codes - looked).max() < 0.5 + 1 / 32
        assert codes.max() < 250
    assert patch.shape == (size, size, 3)


@settings(max_examples=100)
@given(centers, sizes, geometry)
def test_the_outline_is_that_of_the_pixels(center, size, change):
    rows, cols = where(center, size, change)
    corners = outline((HEIGHT, WIDTH), center, size, change)
    np.testing.assert_allclose(corners.mean(axis=0), [rows.mean(), cols.mean()], atol=1e-6)
    if size > 1:
        firsts = [[grid[0, 0], grid[0, -1], grid[-1, -1], grid[-1, 0]] for grid in (rows, cols)]
        inner = corners.mean(axis=0) + (corners - corners.mean(axis=0)) * (size - 1) / size
        np.testing.assert_allclose(inner.T, firsts, atol=1e-6)


@settings(max_examples=100)
@given(sizes, geometry)
def test_window_is_the_smallest_photo_that_does(size, change):
    need = change.window(size)
    if 1 < need <= 120:
        assert cut_mask(BY_ROW[:need, :need], (0, 0), size, change).max() < need
        try:
            cut_mask(BY_ROW[: need - 1, :need], (0, 0), size, change)
        except ValueError as error:
            assert f"{need} x {need} px, got {need} x {need - 1} px" in str(error)
        else:
            raise AssertionError("a photo that is too small was taken")


@settings(max_examples=100)
@given(
    st.builds(
        Augment,
        rotation_deg=st.floats(0, 180),
        scale=st.floats(0, 1),
        brightness=st.floats(0, 255),
        exposure_ev=st.floats(0, 4),
        white_balance=st.floats(0, 1),
        gamma=st.floats(0, 1),
        blur_px=st.floats(0, 5),
        noise=st.floats(0, 128),
        jpeg_quality=st.integers(1, 100),
        illumination=st.floats(0, 1),
    ),
    st.integers(0, 2**32),
    st.integers(1, 600),
)
def test_what_is_drawn_is_within_its_limits(augment, seed, size):
    change = augment.draw(np.random.default_rng(seed))
    change.check()
    assert change == augment.draw(np.random.default_rng(seed)) == pickle.loads(pickle.dumps(change))
    assert abs(change.angle_deg) <= augment.rotation_deg and abs(change.offset) <= augment.brightness
    assert abs(math.log(change.zoom)) <= math.log1p(augment.scale) + 1e-12
    assert 0 <= change.blur_px <= augment.blur_px and 0 <= change.noise <= augment.noise
    assert change.jpeg == 0 if augment.jpeg_quality == 100 else augment.jpeg_quality <= change.jpeg <= 100
    assert all(abs(factor - 1) <= augment.illumination for factor in change.illumination)
    assert size <= augment.window(size) and change.window(size) <= augment.window(size)
    patch, mask = apply(PHOTO, BY_ROW, (60, 60), 20, change)
    assert patch.shape == (20, 20, 3) and patch.dtype == mask.dtype == np.uint8
    np.testing.assert_array_equal(patch, apply(PHOTO, BY_ROW, (60, 60), 20, change)[0])


@settings(max_examples=100)
@given(st.tuples(*[st.floats(0, 5)] * 3), st.floats(0.2, 4), st.floats(-255, 255))
def test_light_is_the_formula(gains, gamma, offset):
    levels = np.arange(256)[:, None] * np.ones(3)
    exact = 255 * (levels * gains / 255) ** gamma + offset
    shown = recolor(levels.astype(np.uint8)[None], Change(gains=gains, gamma=gamma, offset=offset))[0]
    assert np.abs(shown - np.clip(exact, 0, 255)).max() <= 0.5 + 1e-9
