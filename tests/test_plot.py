"Pictures of masks against slow statements of what they should be."

import subprocess
import sys
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from petroscope.io.images import VOID
from petroscope.view.plot import (
    ERROR_COLORS,
    PALETTE,
    VOID_COLOR,
    areas,
    colorize,
    error_map,
    overlay,
    plot_errors,
    plot_minerals,
    with_legend,
)

Mineral = namedtuple("Mineral", "code label name color")
CLASSES = [Mineral(code, label, f"mineral {label}", color) for code, (label, color) in enumerate(PALETTE.items())]
quick = settings(max_examples=60)
shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))
codes = st.sampled_from([*range(15), VOID])
masks = shapes.flatmap(lambda shape: arrays(np.uint8, shape, elements=codes))
pairs = shapes.flatmap(lambda shape: st.tuples(*[arrays(np.uint8, shape, elements=codes)] * 2))


@quick
@given(mask=masks)
def test_colorize_and_areas(mask):
    kept = mask.copy()
    picture = colorize(mask, CLASSES)
    rows = areas(mask, CLASSES)
    for (row, column), code in np.ndenumerate(mask):
        assert tuple(picture[row, column]) == (VOID_COLOR if code == VOID else CLASSES[code].color)
    assert [r.pixels for r in rows] == [int((mask == m.code).sum()) for m in CLASSES]
    if (mask != VOID).any():
        assert sum(r.percent for r in rows) == pytest.approx(100)
    np.testing.assert_array_equal(mask, kept)


@quick
@given(mask=masks, opacity=st.sampled_from([0, 0.3, 1]), width=st.integers(0, 2), seed=st.integers(0, 9))
def test_overlay(mask, opacity, width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (*mask.shape, 3), np.uint8)
    mask, image = mask[::-1, ::-1], image[::-1, ::-1]  # views, as users have them
    kept = image.copy()
    picture = overlay(image, mask, CLASSES, opacity, width)
    colors = colorize(mask, CLASSES)
    for row, column in np.ndindex(mask.shape):
        near = mask[max(0, row - width) : row + width + 1, max(0, column - width) : column + width + 1]
        if mask[row, column] == VOID:
            expected = image[row, column]
        elif (near != mask[row, column]).any():
            expected = colors[row, column]
        else:
            expected = (1 - opacity) * image[row, column] + opacity * colors[row, column].astype(float)
        assert np.abs(picture[row, column] - np.asarray(expected, float)).max() <= 0.51
    np.testing.assert_array_equal(image, kept)


@quick
@given(pair=pairs)
def test_error_map(pair):
    pred, target = pair
    picture = error_map(pred, target)
    for row, column in np.ndindex(pred.shape):
        right = "right" if pred[row, column] == target[row, column] else "wrong"
        kind = "void" if target[row, column] == VOID else right
        assert tuple(picture[row, column]) == ERROR_COLORS[kind]


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (40, 60), (300, 900)])
def test_legend_at_any_size(shape):
    mask = np.resize(np.arange(15, dtype=np.uint8), shape)
    picture = colorize(mask, CLASSES)
    result = with_legend(picture, mask, CLASSES)
    np.testing.assert_array_equal(result[: shape[0], : shape[1]], picture)
    swatches = {tuple(color) for color in result.reshape(-1, 3).tolist()}
    assert {CLASSES[code].color for code in np.unique(mask)} <= swatches
    assert min(result.shape[:2]) >= 30  # at least a line of letters


def test_sheets_of_any_shape_leave_pyplot_alone(tmp_path):
    code = (
        "import sys, numpy as np; from collections import namedtuple; from petroscope.view import plot\n"
        "assert not {'matplotlib', 'torch'} & set(sys.modules)\n"
        "M = namedtuple('M', 'code label name color'); cs = [M(0, 'BG', 'background', (40, 40, 44))]\n"
        "for shape in (1, 1), (3, 900), (900, 3), (2000, 2600):\n"
        "    mask, image = np.zeros(shape, np.uint8), np.zeros((*shape, 3), np.uint8)\n"
        "    plot.plot_minerals(image, mask, cs, 'Шлиф 7').savefig(sys.argv[1])\n"
        "    plot.plot_errors(image, mask, mask, cs).savefig(sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "sheet.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_messages():
    mask = np.full((2, 3), 99, np.uint8)
    image = np.zeros((2, 3, 3), np.uint8)
    calls = (colorize, (mask,)), (areas, (mask,)), (overlay, (image, mask)), (plot_minerals, (image, mask))
    for function, arguments in calls:
        with pytest.raises(ValueError, match="mask holds code 99, which no class has; the classes are 0 BG, 1 Ccp"):
            function(*arguments, CLASSES)
    with pytest.raises(ValueError, match=r"target must be \(H, W\) uint8, got list"):
        plot_errors(image, mask, [1], CLASSES)
