"What the evaluation of a set says, held against independent computations, and what is left when things go wrong."

import json
import os
import re
import warnings
from itertools import pairwise

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from petroscope.io.files import RECORD
from petroscope.io.images import VOID, read_image, read_mask, write_image, write_mask
from petroscope.segmentation.classes import LumenStoneClasses
from petroscope.segmentation.compare import compare
from petroscope.segmentation.dataset import LumenStone
from petroscope.segmentation.evaluate import SegmDetailedTester, load, predictions
from petroscope.segmentation.evaluation import BANDS, count_photo, photo_folder, worst_places
from petroscope.segmentation.masks import border_distance, void_borders_lumenstone
from petroscope.segmentation.metrics import bootstrap, interval, occurrences
from petroscope.segmentation.scores import regions

S1 = LumenStoneClasses.S1v1
CODES = np.array(S1.codes, np.uint8)


def blocks(rng, shape=(60, 80), block=5, codes=CODES):
    "A mask of square grains."
    small = rng.choice(codes, (-(-shape[0] // block), -(-shape[1] // block)))
    return np.ascontiguousarray(small.repeat(block, 0).repeat(block, 1)[: shape[0], : shape[1]])


def photos(count=4, shape=(60, 80)):
    "Photos that hold their own mask in the red channel, so that a function of the photo alone can predict."
    found = []
    for i in range(count):
        rng = np.random.default_rng(i)
        mask = blocks(rng, shape)
        image = np.dstack([mask, rng.integers(0, 256, (*shape, 2), dtype=np.uint8)])
        found.append((f"photo {i}", image, mask))
    return found


def guess(image):
    "The truth, with a tenth of the pixels of another class."
    mask = image[..., 0].copy()
    wrong = np.random.default_rng(int(image[..., 1].sum())).random(mask.shape) < 0.1
    mask[wrong] = 6
    return mask


def slow_reference(mask, width=2, pad=4):
    "The reference definition of void borders, pixel by pixel."
    kept = mask.copy()
    height, length = mask.shape
    for y in range(height):
        for x in range(length):
            window = [(y - i, x - j) for i in range(width) for j in range(width)]
            inside = all(a >= 0 and b >= 0 and mask[a, b] == mask[y, x] for a, b in window)
            framed = y < pad or x < pad or y >= height - pad or x >= length - pad
            if not inside or framed:
                kept[y, x] = VOID
    return kept


def test_the_figures_are_those_of_scikit_learn_on_all_pixels(tmp_path):
    result = SegmDetailedTester(tmp_path, S1, pictures=False).test_on_set(photos(), guess)
    pred = np.concatenate([guess(image).ravel() for _, image, _ in photos()])
    for region, way in (("all", lambda mask: mask), ("void borders", slow_reference)):
        target = np.concatenate([way(mask).ravel() for _, _, mask in photos()])
        counted = target != VOID
        t, p = target[counted], pred[counted]
        metrics = result.metrics(region)
        assert list(metrics.iou.values()) == list(sklearn_metrics.jaccard_score(t, p, labels=CODES, average=None))
        assert metrics.accuracy == sklearn_metrics.accuracy_score(t, p)
        assert (metrics.confusion == sklearn_metrics.confusion_matrix(t, p, labels=CODES)).all()


def test_the_reference_borders_are_those_of_a_slow_definition():
    rng = np.random.default_rng(5)
    for block in (1, 3, 7):
        mask = blocks(rng, (31, 44), block, np.append(CODES, VOID).astype(np.uint8))
        expected = slow_reference(mask)
        np.testing.assert_array_equal(void_borders_lumenstone(mask), expected)


def test_each_pixel_is_in_the_band_of_its_distance():
    rng = np.random.default_rng(6)
    target, pred = blocks(rng, (40, 50), 10), blocks(rng, (40, 50), 10)
    at = np.argwhere(target >= 0)
    apart = np.full(target.shape, np.inf)
    for y, x in at:
        others = at[target.ravel() != target[y, x]]
        if len(others):
            apart[y, x] = np.sqrt(((others - (y, x)) ** 2).sum(axis=1).min())
    np.testing.assert_allclose(border_distance(target), apart, rtol=1e-6)
    record = count_photo("", pred, target, S1, regions([]))
    for i, (low, high) in enumerate(pairwise(BANDS)):
        inside = (apart > low) & (apart <= high)
        assert record.bands[i].sum() == inside.sum()
        assert np.trace(record.bands[i]) == (inside & (pred == target)).sum()


def test_the_worst_place_is_where_a_sliding_window_finds_it():
    rng = np.random.default_rng(7)
    target = blocks(rng, (120, 150), 10)
    pred = np.where(rng.random(target.shape) < 0.2, np.uint8(6), target)
    pred[70:90, 20:50] = 11
    first = worst_places(pred, target, number=1)[0]
    wrong, n = pred != target, first.size
    shares = [wrong[y : y + n, x : x + n].mean() for y in range(120 - n + 1) for x in range(150 - n + 1)]
    assert first.wrong == pytest.approx(max(shares), abs=1e-6)
    assert wrong[first.row : first.row + n, first.col : first.col + n].mean() == pytest.approx(first.wrong, abs=1e-6)


def test_places_that_are_void_are_never_the_worst():
    target = np.zeros((100, 100), np.uint8)
    pred = target.copy()
    pred[:50], target[:50] = 6, VOID
    assert worst_places(pred, target) == []


def test_the_bootstrap_draws_whole_photos():
    "With a photo all right and one all wrong, a draw has an accuracy of 0, 1/2 or 1, in the ratio 1 : 2 : 1."
    counts = np.zeros((2, 1, 2), np.int64)
    counts[0, 0, 0] = counts[1, 0, 1] = 10
    drawn = bootstrap(counts, 4000, seed=1)["accuracy"]
    shares = [(drawn == x).mean() for x in (0, 0.5, 1)]
    assert sum(shares) == 1 and shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert [float(x) for x in interval(drawn)] == [0, 1]
    assert (bootstrap(counts, 50, seed=1)["accuracy"] == drawn[:50]).all()


def test_areas_are_per_cent_of_the_counted_pixels(tmp_path):
    target = np.full((10, 10), 6, np.uint8)
    target[:2], target[2] = 8, VOID
    pred = np.full((10, 10), 6, np.uint8)
    result = SegmDetailedTester(tmp_path, S1, void=[], pictures=False).test_on_set(
        [("one", np.zeros((10, 10, 3), np.uint8), target)], lambda image: pred
    )
    true, predicted = result.scores.areas()
    sphalerite, pyrite = S1.codes.index(8), S1.codes.index(6)
    assert (true[0, sphalerite], predicted[0, sphalerite], predicted[0, pyrite]) == (200 / 9, 0, 100)
    assert result.scores.area_error()["Sph"] == 200 / 9 and result.scores.area_error()["Gl"] == 0


def test_files_of_a_run(tmp_path):
    result = SegmDetailedTester(tmp_path, S1).test_on_set(photos(2), guess, "a model: on a set/half")
    assert result.folder == tmp_path / "a_model_on_a_set_half"
    names = {path.name for path in result.folder.iterdir()}
    tables = {"metrics.json", "figures.json", "metrics.csv", "photos.csv", "metrics.tex", "report.html", "run.json"}
    plots = {"iou.png", "confusion.png", "distance.png", "areas.png"}
    assert names == tables | plots | {"records", "photos", RECORD}
    pictures = photo_folder(result.folder, "photo 1")
    assert (read_mask(pictures / "prediction.png") == guess(photos(2)[1][1])).all()
    for name in ("overlay.jpg", "errors.png", "error_overlay.jpg"):
        assert read_image(pictures / name).shape == (60, 80, 3)
    figures = json.loads((result.folder / "figures.json").read_text(encoding="utf-8"))
    low, high = figures["intervals"]["mean_iou"]
    assert low <= figures["mean_iou"] <= high and figures["images"] == 2
    assert len((result.folder / "photos.csv").read_text(encoding="utf-8").splitlines()) == 3
    latex = (result.folder / "metrics.tex").read_text(encoding="utf-8")
    rows = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3 + len(S1) and len({line.count("&") for line in rows}) == 1


def test_the_report_asks_for_nothing_outside_itself_and_escapes_names(tmp_path):
    named = [("<b>bold&", *photos(1)[0][1:])]
    result = SegmDetailedTester(tmp_path, S1).test_on_set(named, guess, "<script>alert(1)</script>")
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<b>bold" not in page and "&lt;b&gt;bold&amp;" in page
    sources = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]{0,30})""", page)
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)


def test_a_failing_photo_does_not_stop_the_others_and_is_made_up_for(tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    mask = tmp_path / "mask.png"
    write_mask(mask, photos(1)[0][2])
    pairs = [*photos(3), ("broken", broken, mask)]
    asked = []

    def predict(image):
        asked.append(image)
        if len(asked) == 2:
            raise RuntimeError("no memory left")
        return guess(image)

    tester = SegmDetailedTester(tmp_path / "out", S1)
    with pytest.warns(UserWarning, match="2 photos are not in the figures"):
        result = tester.test_on_set(pairs, predict)
    assert set(result.failures) == {"broken", "photo 1"}
    assert result.failures["photo 1"] == "RuntimeError: no memory left"
    assert str(broken) in result.failures["broken"]
    write_image(tmp_path / "good.png", photos(1)[0][1])
    pairs[-1] = ("broken", tmp_path / "good.png", mask)
    again = tester.test_on_set(pairs, predict, resume=True)
    assert len(again.records) == 4 and not again.failures and len(asked) == 3 + 2


def test_a_run_cut_off_goes_on_where_it_stopped(tmp_path):
    seen = []

    def predict(image):
        seen.append(image)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return guess(image)

    tester = SegmDetailedTester(tmp_path, S1)
    with pytest.raises(KeyboardInterrupt):
        tester.test_on_set(photos(), predict)
    with pytest.raises(ValueError, match="was cut off here"):
        tester.test_on_set(photos(), predict)
    with pytest.raises(ValueError, match="the evaluation was cut off"):
        load(tmp_path)
    result = tester.test_on_set(photos(), predict, resume=True)
    assert len(seen) == 3 + 2
    whole = SegmDetailedTester(tmp_path / "whole", S1).test_on_set(photos(), predict)
    assert result.metrics() == whole.metrics() == load(tmp_path).metrics()
    assert (tmp_path / "figures.json").read_bytes() == (tmp_path / "whole/figures.json").read_bytes()


def test_a_changed_photo_is_evaluated_again_and_another_model_is_refused(tmp_path):
    tester, pairs, asked = SegmDetailedTester(tmp_path, S1, pictures=False), photos(3), []

    def predict(image):
        asked.append(image)
        return guess(image)

    def another(image):
        return guess(image)

    tester.test_on_set(pairs, predict)
    mask = pairs[1][2].copy()
    mask[:10] = VOID
    pairs[1] = (*pairs[1][:2], mask)
    assert tester.test_on_set(pairs, predict, resume=True).metrics().pixels == 3 * 60 * 80 - 10 * 80
    assert len(asked) == 3 + 1
    with pytest.raises(ValueError, match="resumed with its own settings, but about was"):
        tester.test_on_set(pairs, another, resume=True)


def test_a_figure_that_rests_on_one_photo_has_no_interval(tmp_path):
    pairs = photos(3)
    for i in (1, 2):
        pairs[i][2][pairs[i][2] == 2] = 0
        pairs[i][1][..., 0][pairs[i][1][..., 0] == 2] = 0
    result = SegmDetailedTester(tmp_path, S1, pictures=False).test_on_set(pairs, guess)
    low, high = result.scores.intervals()["iou"]
    assert np.isnan([low[2], high[2]]).all() and not np.isnan(np.delete(low, 2)).any()
    assert list(occurrences(result.scores.counts["all"])) == [3, 3, 1, 3, 3, 3, 3]


def test_a_damaged_record_is_told_and_made_again(tmp_path):
    tester = SegmDetailedTester(tmp_path, S1, pictures=False)
    tester.test_on_set(photos(2), guess)
    (tmp_path / "records/photo 1.json").write_text("{", encoding="utf-8")
    with pytest.warns(UserWarning, match="photo 1.json: cannot be read"):
        assert len(load(tmp_path).records) == 1
    with pytest.raises(ValueError, match=r"photo 1.json: was changed since .* move it away"):
        tester.test_on_set(photos(2), guess, resume=True)
    (tmp_path / "records/photo 1.json").unlink()
    assert len(tester.test_on_set(photos(2), guess, resume=True).records) == 2


def test_a_new_run_leaves_nothing_of_the_old_one_and_touches_nothing_else(tmp_path):
    tester = SegmDetailedTester(tmp_path, S1)
    tester.test_on_set(photos(3), guess)
    note = photo_folder(tmp_path, "photo 2") / "note.txt"
    note.write_text("mine", encoding="utf-8")
    tester.test_on_set(photos(1), guess)
    assert len(load(tmp_path).records) == 1
    assert [p.name for p in note.parent.iterdir()] == ["note.txt"] and not photo_folder(tmp_path, "photo 1").exists()


def test_the_same_photos_give_the_same_files(tmp_path):
    for name in ("a", "b"):
        SegmDetailedTester(tmp_path / name, S1).test_on_set(photos(2), guess)
    for file in ("metrics.json", "figures.json", "metrics.csv", "metrics.tex"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_paired_differences_are_sharper_than_two_intervals(tmp_path):
    "A model that is a little worse on every photo is worse for sure, though the sets' intervals overlap."
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(12):
        mask = blocks(np.random.default_rng(100 + i))
        hard = rng.random(mask.shape) < 0.05 + 0.04 * i
        pairs.append((f"{i:02d}", np.dstack([mask, hard * np.uint8(255), mask]), mask))

    def one(image):
        return np.where(image[..., 1] > 0, np.uint8(6), image[..., 0])

    def two(image):
        worse = one(image)
        worse[::10, ::2] = 6
        return worse

    tester = SegmDetailedTester(tmp_path, S1, pictures=False)
    results = [tester.test_on_set(pairs, model, model.__name__) for model in (one, two)]
    accuracy = next(row for row in compare(results) if row["figure"] == "accuracy")
    assert accuracy["high"] < 0
    first, second = (result.scores.intervals()["accuracy"] for result in results)
    assert second[1] > first[0]
    assert accuracy["difference"] == results[1].metrics().accuracy - results[0].metrics().accuracy


@pytest.mark.parametrize(
    ("predict", "said"),
    [
        (lambda image: image[..., 0] / 255, "float64"),
        (lambda image: image, r"\(60, 80, 3\)"),
        (lambda image: None, "object"),
        (lambda image: image[1:, :, 0], "must be of one size"),
        (lambda image: np.full(image.shape[:2], 99, np.uint8), "code 99"),
        (lambda image: np.full(image.shape[:2], VOID, np.uint8), "void in the prediction"),
    ],
)
def test_what_a_prediction_must_be(tmp_path, predict, said):
    with pytest.raises(ValueError, match=f"no photo could be evaluated: photo 0 .*{said}"):
        SegmDetailedTester(tmp_path, S1).test_on_set(photos(1), predict)


def test_a_model_is_told_in_the_same_words_by_every_process(tmp_path):
    "What is written about a model must not hold an address, or a run could not be resumed after a restart."
    from petroscope.segmentation.model import CallableModel

    def probabilities(batch):
        planes = np.zeros((len(batch), len(S1), *batch.shape[1:3]), np.float32)
        planes[:, 0] = 1
        return planes

    for name in ("a", "b"):
        model = CallableModel(S1, probabilities)
        SegmDetailedTester(tmp_path / name, S1, pictures=False).test_on_set(photos(1, (64, 64)), model, scale=1.0)
    one, two = (json.loads((tmp_path / name / "run.json").read_text(encoding="utf-8")) for name in ("a", "b"))
    assert one == two and "0x" not in json.dumps(one)


def test_void_predictions_can_be_counted_as_wrong(tmp_path):
    def unsure(image):
        mask = image[..., 0].copy()
        mask[:6] = VOID
        return mask

    result = SegmDetailedTester(tmp_path, S1, pred_void="wrong", void=[]).test_on_set(photos(1), unsure)
    assert result.metrics().accuracy == 0.9


def masks_on_disk(tmp_path, names=("{}.png", "{}_mask.png", "{}.png")):
    for i, name in enumerate(names):
        for folder in ("truth", "pred"):
            (tmp_path / folder).mkdir(exist_ok=True)
        write_mask(tmp_path / f"truth/{i}.png", photos(3)[i][2])
        write_mask(tmp_path / "pred" / name.format(i), guess(photos(3)[i][1]))
    return tmp_path / "pred", tmp_path / "truth"


def test_masks_on_disk_are_judged_like_a_model(tmp_path):
    judged = SegmDetailedTester(tmp_path / "a", S1).test_predictions(*masks_on_disk(tmp_path))
    model = SegmDetailedTester(tmp_path / "b", S1).test_on_set(photos(3), guess)
    assert judged.metrics() == model.metrics() and judged.metrics("void borders") == model.metrics("void borders")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p, t: (p / "0.png").unlink(), "0: no 0.png or 0_mask.png"),
        (lambda p, t: write_mask(p / "extra.png", photos(1)[0][2]), "extra: a prediction without a truth"),
        (lambda p, t: write_mask(p / "1.png", photos(1)[0][2]), "1: both 1.png and 1_mask.png"),
        (lambda p, t: [f.unlink() for f in t.iterdir()] and [f.unlink() for f in p.iterdir()], "no masks"),
    ],
)
def test_predictions_and_truths_must_match(tmp_path, damage, said):
    pred, truth = masks_on_disk(tmp_path)
    damage(pred, truth)
    with pytest.raises(ValueError, match=said):
        predictions(pred, truth)


def test_the_command_judges_without_torch(tmp_path, petroscope):
    pred, truth = masks_on_disk(tmp_path)
    argv = ("evaluate", "--pred", pred, "--target", truth, "--classes", "S1v1", "--out", tmp_path / "out")
    blocked = {"PYTHONPATH": str(tmp_path / "without")}
    (tmp_path / "without/torch").mkdir(parents=True)
    (tmp_path / "without/torch/__init__.py").write_text("raise ImportError('no torch here')", encoding="utf-8")
    status, out, err = petroscope(*argv, env={**os.environ, **blocked})
    assert (status, err) == (0, "")
    expected = SegmDetailedTester(tmp_path / "b", S1, pictures=False).test_on_set(photos(3), guess)
    figures = json.loads((tmp_path / "out/metrics.json").read_text(encoding="utf-8"))
    assert set(figures) == {"iou", "mean_iou", "accuracy", "void_borders", "images"}
    assert figures["mean_iou"] == expected.metrics().mean_iou and f"{figures['mean_iou']:.4f}" in out


def test_on_real_photos_the_figures_are_those_of_scikit_learn(s1, tmp_path):
    "Four real masks, each judged against the mask of a neighbour: every kind of error there is."
    samples = LumenStone(s1, S1)[:4]
    masks = [sample.read_mask() for sample in samples]
    others = dict(zip([s.name for s in samples], [masks[-1], *masks[:-1]], strict=True))
    for sample in samples:
        (tmp_path / "pred").mkdir(exist_ok=True)
        (tmp_path / "truth").mkdir(exist_ok=True)
        write_mask(tmp_path / "pred" / f"{sample.name}.png", others[sample.name])
        write_mask(tmp_path / "truth" / f"{sample.name}.png", sample.read_mask())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = SegmDetailedTester(tmp_path / "out", S1).test_predictions(tmp_path / "pred", tmp_path / "truth")
    for region, way in (("all", lambda mask: mask), ("void borders", void_borders_lumenstone)):
        target = np.concatenate([way(mask).ravel() for mask in masks])
        pred = np.concatenate([others[sample.name].ravel() for sample in samples])[target != VOID]
        target = target[target != VOID]
        expected = sklearn_metrics.confusion_matrix(target, pred, labels=CODES)
        assert (result.metrics(region).confusion == expected).all()
        both, union = np.diag(expected), expected.sum(axis=0) + expected.sum(axis=1) - np.diag(expected)
        found = [x for x in result.metrics(region).iou.values() if not np.isnan(x)]
        assert found == list(both[union > 0] / union[union > 0])
