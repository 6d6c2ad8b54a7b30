"Scores of a set of photos: against every draw there is, against an independent library, and as sums over parts."

import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from petroscope.segmentation.classes import VOID, LumenStoneClasses
from petroscope.segmentation.masks import void_borders_lumenstone
from petroscope.segmentation.metrics import figures, intervals
from petroscope.segmentation.scores import Scores
from petroscope.view.tables import rows_of

S1 = LumenStoneClasses.S1v1
THREE = S1.subset(["BG", "Gl", "Sph"])


def masks(seed, shape=(30, 40), classes=S1):
    "A prediction and a truth of square grains with some void; the first class is everywhere, some others are absent."
    rng = np.random.default_rng(seed)
    used = np.append(rng.choice(classes.codes[1:], rng.integers(1, len(classes)), replace=False), classes.codes[0])
    target = rng.choice(np.append(used, VOID), (shape[0] // 10, shape[1] // 10)).astype(np.uint8)
    target = target.repeat(10, 0).repeat(10, 1)
    target[:4] = classes.codes[0]
    pred = np.where(target == VOID, classes.codes[0], target)
    wrong = rng.random(shape) < 0.2
    pred[wrong] = rng.choice(used, wrong.sum())
    return pred.astype(np.uint8), target


def scored(seeds, classes=S1):
    return sum(Scores.from_masks(*masks(seed, classes=classes), classes, f"photo {seed}") for seed in seeds)


def every_draw(counts):
    "The figures of every way to draw as many photos as there are: NaN for a class that was not drawn."
    n = len(counts)
    found = [figures(counts[list(draw)].sum(axis=0)) for draw in product(range(n), repeat=n)]
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def test_intervals_are_those_of_every_draw_there_is():
    """Three photos can be drawn in 27 ways, each with a probability of 1/27, which is more than 2.5 %.

    The interval of 95 % therefore reaches from the smallest to the largest of the 27 figures. A draw without a class
    has no figure of it: were it 0, the interval would begin there.
    """
    counts = np.array([
        [[9, 1, 0, 0], [2, 8, 0, 0], [0, 0, 0, 0]],
        [[5, 0, 5, 0], [0, 10, 0, 0], [0, 0, 10, 0]],
        [[20, 0, 0, 0], [0, 0, 0, 0], [3, 0, 7, 0]],
    ])  # fmt: skip
    exact, ends = every_draw(counts), Scores(THREE, list("abc"), {"all": counts}, resamples=60_000).intervals()
    assert np.isnan(exact["iou"]).sum(axis=0).tolist() == [0, 1, 1]
    for name in ("iou", "precision", "recall", "f1", "mean_iou", "accuracy"):
        low, high = ends[name]
        np.testing.assert_allclose(low, np.nanmin(exact[name], axis=0), rtol=1e-12)
        np.testing.assert_allclose(high, np.nanmax(exact[name], axis=0), rtol=1e-12)
    assert (ends["iou"][0] > 0).all()


def test_a_class_of_a_single_photo_has_no_interval_and_one_of_two_photos_has():
    one_photo = np.zeros((3, 3, 4), np.int64)
    one_photo[:, 0, 0], one_photo[0, 1, 1], one_photo[:2, 2, 2] = 10, 5, 5
    low, high = intervals(one_photo)["iou"]
    np.testing.assert_array_equal(low, [1, np.nan, 1])
    np.testing.assert_array_equal(high, [1, np.nan, 1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5, unique=True), st.integers(0, 5))
def test_scores_of_parts_add_up(seeds, cut):
    whole = scored(seeds)
    parts = [whole.part(range(min(cut, len(seeds)))), whole.part(range(min(cut, len(seeds)), len(seeds)))]
    again = parts[0] + parts[1]
    assert list(again.photos) == [f"photo {seed}" for seed in seeds]
    for region in whole.regions:
        np.testing.assert_array_equal(again.counts[region], whole.counts[region])
        assert parts[0].metrics(region) + parts[1].metrics(region) == whole.metrics(region)


def test_the_tables_are_those_of_scikit_learn():
    seeds = range(6)
    scores = scored(seeds)
    by_class, by_photo = rows_of(scores.table()), rows_of(scores.by_photo())
    for region, way in (("", lambda mask: mask), (", void borders", void_borders_lumenstone)):
        pairs = [(pred, way(target)) for pred, target in map(masks, seeds)]
        counted = [(pred[target != VOID], target[target != VOID]) for pred, target in pairs]
        for row, (pred, target) in zip(by_photo, counted, strict=True):
            assert row["accuracy" + region] == pytest.approx(sklearn_metrics.accuracy_score(target, pred))
        pred, target = (np.concatenate(part) for part in zip(*counted, strict=True))
        options = {"labels": S1.codes, "average": None, "zero_division": np.nan}
        for name, function in (
            ("precision", sklearn_metrics.precision_score),
            ("recall", sklearn_metrics.recall_score),
            ("F1", sklearn_metrics.f1_score),
        ):
            ours = [row[name + region] for row in by_class[:-2]]
            np.testing.assert_allclose(ours, function(target, pred, **options), rtol=1e-12)
        assert by_class[-1]["IoU" + region] == pytest.approx(sklearn_metrics.accuracy_score(target, pred))


def test_areas_are_those_of_the_masks():
    scores = scored(range(4))
    for i, (pred, target) in enumerate(map(masks, range(4))):
        counted = target != VOID
        for area, mask in zip((part[i] for part in scores.areas()), (target, pred), strict=True):
            np.testing.assert_allclose(area, [100 * (mask[counted] == code).mean() for code in S1.codes])


def test_plain_numbers_are_json_and_say_what_the_figures_say():
    scores = scored(range(3)).part([0])
    plain = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert plain["images"] == 1 and plain["intervals"]["mean_iou"] == [None, None]  # a single photo
    assert plain["void_borders"]["accuracy"] == scores.metrics("void borders").accuracy
    assert scores.summary() == {
        **{name: plain[name] for name in ("iou", "mean_iou", "accuracy", "images")},
        "void_borders": {name: plain["void_borders"][name] for name in ("iou", "mean_iou", "accuracy")},
    }
    row = scores.row()
    assert row["accuracy void borders"] == round(plain["void_borders"]["accuracy"], 5)
    assert {name for name, value in row.items() if value is None} >= {f"iou {k}" for k in scores.metrics().absent}
