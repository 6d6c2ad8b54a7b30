"Metrics against an independent library on random masks, and as sums over parts."

import warnings

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from petroscope.segmentation.classes import VOID, LumenStoneClasses
from petroscope.segmentation.masks import class_pixels, one_hot, void_borders, void_borders_lumenstone
from petroscope.segmentation.metrics import SegmMetrics

SETS = [LumenStoneClasses.S1v1, LumenStoneClasses.S2v1, LumenStoneClasses.S3v1, LumenStoneClasses.all]


def binary(mask):
    "Whether a mask looks binary, and is refused for it."
    return np.unique(mask).tolist() == [0, VOID]


@st.composite
def mask_pairs(draw):
    """A class set, and a prediction and a truth of one size, as ragged as noise or in blocks.

    Some classes may be missing, the truth has void pixels.
    """
    classes = draw(st.sampled_from(SETS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    used = rng.choice(classes.codes, rng.integers(1, len(classes) + 1), replace=False)
    target = rng.choice(np.append(used, VOID), shape).astype(np.uint8)
    pred = np.where(rng.random(shape) < 0.6, np.where(target == VOID, used[0], target), rng.choice(used, shape))
    block = draw(st.sampled_from([1, 20]))
    pred, target = (m.repeat(block, 0).repeat(block, 1)[:40, :40] for m in (pred.astype(np.uint8), target))
    assume(not binary(target))
    return classes, pred, target


@settings(max_examples=60)
@given(mask_pairs())
def test_equals_scikit_learn_to_the_last_digit(case):
    classes, pred, target = case
    ours = SegmMetrics.from_masks(pred, target, classes)
    counted = target != VOID
    truth, guess = target[counted], pred[counted]
    labels = list(classes.codes)
    if not counted.any():
        assert np.isnan(ours.mean_iou) and np.isnan(ours.accuracy)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of the classes that do not occur
        assert (ours.confusion == sklearn_metrics.confusion_matrix(truth, guess, labels=labels)).all()
        assert ours.accuracy == sklearn_metrics.accuracy_score(truth, guess)
        options = {"labels": labels, "average": None, "zero_division": np.nan}
        iou = sklearn_metrics.jaccard_score(truth, guess, labels=labels, average=None, zero_division=0)
        occurs = np.isin(labels, np.union1d(truth, guess))
        np.testing.assert_array_equal(list(ours.iou.values()), np.where(occurs, iou, np.nan))
        assert ours.mean_iou == np.mean(iou[occurs]) or abs(ours.mean_iou - np.mean(iou[occurs])) < 1e-15
        for name, function in (
            ("precision", sklearn_metrics.precision_score),
            ("recall", sklearn_metrics.recall_score),
            ("f1", sklearn_metrics.f1_score),
        ):
            expected = function(truth, guess, **options)
            np.testing.assert_array_equal(list(getattr(ours, name).values()), expected, err_msg=name)


@settings(max_examples=40)
@given(mask_pairs(), st.integers(0, 40))
def test_parts_add_up(case, row):
    classes, pred, target = case
    assume(not any(map(binary, np.split(target, [row]))))
    whole = SegmMetrics.from_masks(pred, target, classes)
    parts = [SegmMetrics.from_masks(p, t, classes) for p, t in zip(np.split(pred, [row]), np.split(target, [row]))]
    assert (sum(parts).confusion == whole.confusion).all()
    assert parts[0] + parts[1] == parts[1] + parts[0]


@settings(max_examples=40)
@given(mask_pairs(), st.integers(0, 5))
def test_void_borders_void_what_the_definition_says(case, radius):
    _, _, mask = case
    voided = void_borders(mask, radius)
    height, width = mask.shape
    for y, x in np.ndindex(mask.shape):
        top, left = max(0, y - radius), max(0, x - radius)
        window = mask[top : min(height, y + radius + 1), left : min(width, x + radius + 1)]
        assert voided[y, x] == (mask[y, x] if (window == mask[y, x]).all() else VOID)


@settings(max_examples=30)
@given(mask_pairs(), st.integers(1, 4), st.integers(0, 6))
def test_reference_borders_equal_erosions_of_each_class(case, width, pad):
    "The reference in its own words: a pixel stays where the erosion of some class by a square survives."
    import cv2

    _, _, mask = case
    kept = np.zeros(mask.shape, bool)
    for code in np.unique(mask[mask != VOID]):
        plane = (mask == code).astype(np.uint8)
        anchor = (width - 1, width - 1)
        window = np.ones((width, width), np.uint8)
        kept |= cv2.erode(plane, window, anchor=anchor, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    frame = np.zeros(mask.shape, bool)
    frame[pad : mask.shape[0] - pad, pad : mask.shape[1] - pad] = True
    expected = np.where(kept & frame, mask, VOID)
    np.testing.assert_array_equal(void_borders_lumenstone(mask, width, pad), expected)


@settings(max_examples=30)
@given(mask_pairs())
def test_codes_and_indices_are_two_names_of_one_thing(case):
    classes, _, target = case
    index = classes.to_index(target)
    assert (classes.to_code(index) == target).all()
    assert set(np.unique(index)) <= {*range(len(classes)), VOID}
    assert (one_hot(target, classes).sum(axis=(1, 2)) == class_pixels(target, classes)).all()
