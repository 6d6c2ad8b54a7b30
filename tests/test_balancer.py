"""The balancer against its definition: what is drawn, how often, and that it is the same wherever it is drawn again.

What is expected is computed here from the masks, by sums over windows, and with none of the functions that are tested.
"""

import ast
import math
import pickle
import re
import subprocess
import sys
import warnings
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from scipy.stats import binom, chi2

from petroscope.io.images import VOID, read_mask, write_image, write_mask
from petroscope.segmentation.augment import Augment
from petroscope.segmentation.balancer import SelfBalancingDataset, coverage, history, probability_maps
from petroscope.segmentation.classes import LumenStoneClasses
from petroscope.segmentation.draws import balancing_quality
from petroscope.segmentation.samplers import MapSampler
from petroscope.synth.looks import S1
from petroscope.synth.rock import scene

ROOT = Path(__file__).resolve().parent.parent
CLASSES = LumenStoneClasses.S1v1.subset(["BG", "Gl", "Sph"])
CODES = BG, GL, SPH = (0, 2, 8)
SIDE = 8  # px of a patch, where nothing else is said
UNLIKELY = 1e-4  # a p-value; with fixed seeds a test always passes or always fails


def photo_of(mask, number=0):
    "A photo in which each pixel tells its row, its column and its photo."
    rows, cols = np.mgrid[: mask.shape[0], : mask.shape[1]]
    return np.dstack([rows, cols, np.full(mask.shape, number)]).astype(np.uint8)


def masks():
    "Three sizes; galena in the corner of the first and on its left, in the second, and nowhere in the third."
    one, two, three = np.zeros((26, 34), np.uint8), np.zeros((22, 30), np.uint8), np.full((12, 46), SPH, np.uint8)
    one[3:12, 5:20], one[24:, 31:], one[15:18, 2:4], one[10:14, 25:30] = SPH, GL, GL, VOID
    two[10:, 12:], two[:6, :5] = SPH, GL
    three[:, 40:] = BG
    return [one, two, three]


def arrays():
    return [(photo_of(mask, i), mask) for i, mask in enumerate(masks())]


def dataset(pairs=None, side=SIDE, classes=CLASSES, **options):
    return SelfBalancingDataset(arrays() if pairs is None else pairs, classes, side, **options)


@pytest.fixture
def files(tmp_path):
    "The photos and masks as files, and a folder for a cache."
    pairs = []
    for i, (image, mask) in enumerate(arrays()):
        pairs.append((tmp_path / f"photo{i}.png", tmp_path / f"mask{i}.png"))
        write_image(pairs[-1][0], image)
        write_mask(pairs[-1][1], mask)
    return pairs, tmp_path / "cache"


def held(mask, code, side):
    "Pixels of a class in each window, by its upper left corner."
    return sliding_window_view(mask == code, (side, side)).sum((2, 3))


def full_map(mask, code, side, alpha):
    "Probability of each window by the definition."
    share = held(mask, code, side) / side**2
    weight = np.where(share > 0, share**alpha, 0)
    return weight / weight.sum()


def reduced_map(mask, code, side, alpha, cell):
    "Probability of each window where the windows of a cell are as likely as those at its corners on average."
    share = held(mask, code, side) / side**2
    weight = np.zeros_like(share)
    for y in range(0, share.shape[0], cell):
        for x in range(0, share.shape[1], cell):
            part = share[y : y + cell, x : x + cell]
            mean = (part[0, 0] + part[0, -1] + part[-1, 0] + part[-1, -1]) / 4
            weight[y : y + cell, x : x + cell] = mean**alpha if mean > 0 else 0
    return weight / weight.sum()


def p_value(counts, probabilities):
    "The p-value of a chi-square test; bins in which fewer than 5 are expected are taken together."
    counts, probabilities = np.ravel(counts).astype(float), np.ravel(probabilities)
    assert not counts[probabilities == 0].any(), "drawn, and impossible"
    expected = counts.sum() * probabilities / probabilities.sum()
    few = expected < 5
    counts, expected = (np.append(a[~few], a[few].sum()) for a in (counts, expected))
    counts, expected = counts[expected > 0], expected[expected > 0]
    if len(counts) == 1:
        return 1.0
    return chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1)


def same(a, b):
    assert len(a) == len(b)
    for one, other in zip(a, b):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def patches(data, number=12):
    return list(islice(data.balanced(), number))


# ---- the definition, in numbers


def drawn(data, handed, number):
    return [data.drawer.balanced(k, handed) for k in range(number)]


@pytest.mark.parametrize("alpha", [0.5, 1])
@pytest.mark.parametrize("gamma", [-1, 0, 1.5])
@pytest.mark.parametrize("strength", [0, 0.75, 1])
def test_classes_and_photos_are_chosen_by_their_weights(alpha, gamma, strength):
    handed, number = [900, 500, 700], 6000
    options = {"patch_positioning_accuracy": alpha, "class_area_consideration": gamma}
    draws = drawn(dataset(balancing_strength=strength, seed=2, **options), handed, number)
    chosen = [d for d in draws if d.wanted is not None]
    if strength in (0, 1):
        assert len(chosen) == strength * number
    else:
        assert UNLIKELY < binom.cdf(len(chosen), number, strength) < 1 - UNLIKELY

    # Patches that were not chosen: every window of every photo is as likely.
    shapes = [tuple(n - SIDE + 1 for n in mask.shape) for mask in masks()]
    counts = [np.zeros(shape) for shape in shapes]
    for draw in draws:
        if draw.wanted is None:
            counts[draw.photo][draw.row, draw.col] += 1
    if strength < 1:
        assert p_value([c.sum() for c in counts], np.array([h * w for h, w in shapes])) > UNLIKELY
        for count in counts:
            assert p_value(count.sum(0), np.ones(count.shape[1])) > UNLIKELY
            assert p_value(count.sum(1), np.ones(count.shape[0])) > UNLIKELY
        if strength == 0:
            assert p_value(np.concatenate([c.ravel() for c in counts]), np.ones(sum(map(math.prod, shapes)))) > UNLIKELY
    if strength > 0:
        wanted = np.bincount([d.wanted for d in chosen], minlength=3)
        assert p_value(wanted, np.array([1 / a**2 for a in handed])) > UNLIKELY
        for i, code in enumerate(CODES):
            pixels = [float((mask == code).sum()) for mask in masks()]
            weight = np.array([n**gamma if n else 0 for n in pixels])
            assert p_value(np.bincount([d.photo for d in chosen if d.wanted == i], minlength=3), weight) > UNLIKELY


@pytest.mark.parametrize(
    "handed, weights",
    [
        ([0, 0, 0], [1, 1, 1]),
        ([1, 0, 2], [1, 1, 1 / 4]),
        ([10**9, 2 * 10**9, 10**9], [4, 1, 4]),
        ([5, 10**12, 10**12], [1, 0, 0]),
    ],
)
def test_a_class_is_wanted_by_the_inverse_square_of_its_accumulator(handed, weights):
    draws = drawn(dataset(balancing_strength=1, seed=4), handed, 4000)
    assert p_value(np.bincount([d.wanted for d in draws], minlength=3), np.array(weights, float)) > UNLIKELY


@pytest.mark.parametrize("cell", [1, 8])
@pytest.mark.parametrize("alpha", [0.5, 1, 2])
def test_positions_follow_the_map(alpha, cell):
    data = dataset(balancing_strength=1, patch_positioning_accuracy=alpha, acceleration=cell, seed=1)
    draws = drawn(data, [800, 600, 800], 24000)
    for number, mask in enumerate(masks()):
        for i, code in enumerate(CODES):
            if not (mask == code).any():
                continue
            count = np.zeros([n - SIDE + 1 for n in mask.shape])
            for draw in draws:
                if (draw.photo, draw.wanted) == (number, i):
                    count[draw.row, draw.col] += 1
            # With alpha = 1 the full map is followed, whatever the cells.
            by = full_map(mask, code, SIDE, alpha) if 1 in (alpha, cell) else reduced_map(mask, code, SIDE, alpha, cell)
            assert count.sum() > 800
            assert p_value(count, by) > UNLIKELY
            np.testing.assert_allclose(data.photos[number].samplers[i].probabilities(), by, atol=1e-8)


@pytest.mark.parametrize("alpha, bound", [(0.5, 0.065), (1, 0.065)])
def test_the_reduced_map_is_close_to_the_full_one(alpha, bound, record_property):
    "Total variation: the largest difference that any set of windows can have in probability."
    side, shares = 64, {"BG": 0.3, "Sph": 0.5, "Py/Mrc": 0.19, "Gl": 0.01}
    mask = scene((240, 320), seed=12, minerals=S1, shares=shares).mask
    pairs, classes = [(photo_of(mask), mask)], LumenStoneClasses.S1v1.subset(["BG", "Gl", "Py/Mrc", "Sph"])
    exact = dataset(pairs, side, classes, patch_positioning_accuracy=1)
    reduced = dataset(pairs, side, classes, patch_positioning_accuracy=alpha + 1e-9)  # no 1: a map, not the pixels
    for i, (label, code) in enumerate(zip(classes.labels, classes.codes)):
        full = full_map(mask, code, side, alpha)
        sampler = reduced.photos[0].samplers[i]
        assert isinstance(sampler, MapSampler)
        distance = abs(sampler.probabilities() - full).sum() / 2
        record_property(f"total variation, {label}, alpha {alpha}", float(distance))
        print(f"alpha {alpha}, {label}: total variation {distance:.4f}")
        assert distance < bound
        if alpha == 1:
            np.testing.assert_allclose(exact.photos[0].samplers[i].probabilities(), full, atol=1e-9)


def test_several_candidates_leave_the_classes_more_even():
    section = scene((300, 400), seed=3, minerals=S1, shares={"BG": 0.3, "Sph": 0.5, "Gl": 0.2})
    quality = []
    for candidates in (1, 8):
        data = dataset([section], 64, balancing_strength=1, candidates=candidates, seed=1)
        quality.append(balancing_quality(history(data, 400, 400)[1])[0])
        same(patches(data)[7], data.item(7))
    assert quality[1] > quality[0]


# ---- faults of an earlier implementation


@pytest.mark.parametrize("strength", [0.25, 0.5, 0.9])
def test_the_share_of_balanced_patches_is_the_strength(strength):
    draws = islice(dataset(balancing_strength=strength, seed=6).draws(), 3000)
    number = sum(draw.wanted is not None for draw in draws)
    assert UNLIKELY < binom.cdf(number, 3000, strength) < 1 - UNLIKELY


@pytest.mark.parametrize("alphas", [(1, 0.5, 2), (0.5, 1, 0.5), (2, 0.5, 0)])
def test_maps_from_the_cache_honour_alpha(files, alphas):
    pairs, cache = files
    for alpha in alphas:
        data = dataset(pairs, patch_positioning_accuracy=alpha, acceleration=1, cache_dir=cache)
        for mask, photo in zip(masks(), data.photos):
            for i, sampler in photo.samplers.items():
                np.testing.assert_allclose(
                    sampler.probabilities(), full_map(mask, CODES[i], SIDE, alpha), atol=1e-8
                )  # fmt: skip


CHANGED = {
    "patch size": {"side": 9},
    "fewer classes": {"classes": CLASSES.subset(["BG", "Sph"]), "unknown": "void"},
    "more classes": {"classes": LumenStoneClasses.S1v1},
    "other order": {"classes": CLASSES.subset(["Sph", "BG", "Gl"])},
    "void border": {"void_border_width": 1},
    "wider void border": {"void_border_width": 2},
    "acceleration": {"acceleration": 3},
    "accuracy": {"patch_positioning_accuracy": 0.7},
}


@pytest.mark.filterwarnings("ignore:no pixel of")
@pytest.mark.parametrize("change", CHANGED)
def test_the_cache_key_depends_on_what_a_map_depends_on(files, change):
    pairs, cache = files
    dataset(pairs, cache_dir=cache)
    cached = dataset(pairs, cache_dir=cache, **CHANGED[change])
    fresh = dataset(pairs, **CHANGED[change])
    for a, b in zip(cached.photos, fresh.photos):
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_array_equal(a.pixels, b.pixels)
        assert a.samplers.keys() == b.samplers.keys()
        for i in a.samplers:
            np.testing.assert_array_equal(a.samplers[i].probabilities(), b.samplers[i].probabilities())
    for a, b in zip(patches(cached), patches(fresh)):
        same(a, b)


@pytest.mark.parametrize("what", ["mask", "photo"])
def test_the_cache_key_depends_on_the_content_of_a_file(files, what):
    pairs, cache = files
    before = dataset(pairs, cache_dir=cache)
    image, mask = arrays()[0]
    if what == "mask":
        write_mask(pairs[0][1], np.rot90(mask, 2))
    else:
        write_image(pairs[0][0], 255 - image)
    cached, fresh = dataset(pairs, cache_dir=cache), dataset(pairs)
    for a, b in zip(patches(cached), patches(fresh)):
        same(a, b)
    changed = getattr(cached.photos[0], "mask" if what == "mask" else "image")
    assert (changed != getattr(before.photos[0], "mask" if what == "mask" else "image")).any()


def test_the_cache_is_used_again_and_may_be_left_out(files):
    pairs, cache = files
    cold = dataset(pairs, cache_dir=cache)
    written = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    warm, without = dataset(pairs, cache_dir=cache), dataset(pairs, cache_dir=None)
    assert written == {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(written) == 3 * len(pairs) and without.pool.store is None
    for a, b, c in zip(patches(cold), patches(warm), patches(without)):
        same(a, b)
        same(a, c)


@pytest.mark.parametrize("kept", [False, True])
def test_a_code_outside_the_list_is_named_with_its_file(files, kept):
    pairs, cache = files
    options = {"cache_dir": cache if kept else None, "classes": CLASSES.subset(["BG", "Gl"])}
    with pytest.raises(ValueError, match=r"mask0\.png: code 8 "):
        dataset(pairs, **options)
    voided = dataset(pairs[:2], unknown="void", **options)
    assert not any((mask == SPH).any() for _, mask in patches(voided))
    with pytest.raises(ValueError, match="code 8 "):
        dataset(classes=options["classes"])


@pytest.mark.parametrize("side", [1, 2, 5, 6, 7, 8])
@pytest.mark.parametrize("options", [
    {"balancing_strength": 0},
    {"balancing_strength": 1, "acceleration": 1},
    {"balancing_strength": 1, "acceleration": 4},
    {"balancing_strength": 1, "patch_positioning_accuracy": 1},
])  # fmt: skip
def test_a_patch_of_any_size_is_its_window_and_every_window_is_reached(side, options):
    mask = np.full((9, 12), SPH, np.uint8)
    mask[::2, 1::2] = BG
    classes = CLASSES.subset(["BG", "Sph"])
    data = dataset([(photo_of(mask), mask)], side, classes, seed=8, **options)
    seen = set()
    for draw in islice(data.draws(), 1500):
        seen.add((draw.row, draw.col))
        if draw.number % 100 == 0:
            image, codes = data.cut(draw)
            window = np.s_[draw.row : draw.row + side, draw.col : draw.col + side]
            np.testing.assert_array_equal(codes, mask[window])
            np.testing.assert_array_equal(image, photo_of(mask)[window])
            assert image.shape == (side, side, 3) and codes.shape == (side, side)
    assert seen == {(y, x) for y in range(9 - side + 1) for x in range(12 - side + 1)}


@pytest.mark.parametrize("side", [5, 6])
def test_flips_and_turns_keep_the_size_and_the_pixels(side):
    data = dataset(side=side, augment=Augment.only(flips=True, quarter_turns=True))
    kinds = set()
    for draw in islice(data.draws(), 200):
        image, codes = data.cut(draw)
        rows, cols = np.s_[draw.row : draw.row + side], np.s_[draw.col : draw.col + side]
        image_there, codes_there = (a[rows, cols] for a in arrays()[draw.photo])
        turns = [(f, q) for f in (False, True) for q in range(4)]
        fits = [
            (f, q)
            for f, q in turns
            if np.array_equal(np.rot90(image_there[:, ::-1] if f else image_there, q), image)
            and np.array_equal(np.rot90(codes_there[:, ::-1] if f else codes_there, q), codes)
        ]
        assert len(fits) == 1
        kinds.add(fits[0])
    assert len(kinds) == 8


@pytest.mark.parametrize("alpha", [0, 0.5, 1, 3])
@pytest.mark.parametrize("cell", [1, 8])
def test_a_mask_of_one_class_has_a_constant_map(alpha, cell):
    mask = np.full((14, 15), SPH, np.uint8)
    options = {"patch_positioning_accuracy": alpha, "acceleration": cell, "balancing_strength": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = dataset([(photo_of(mask), mask)], classes=CLASSES.subset(["Sph"]), **options)
        count = np.zeros((7, 8))
        for draw in islice(data.draws(), 2000):
            count[draw.row, draw.col] += 1
    assert p_value(count, np.ones((7, 8))) > UNLIKELY


@pytest.mark.parametrize("alpha", [0.5, 1])
@pytest.mark.parametrize("cell", [1, 3, 8])
@pytest.mark.parametrize("place", [(-1, -1), (-1, 0), (0, -1), (slice(None), -1), (-1, slice(None))])
def test_a_class_only_at_the_right_or_bottom_edge_is_sampled(alpha, cell, place):
    mask = np.zeros((27, 31), np.uint8)
    mask[place] = GL
    options = {"patch_positioning_accuracy": alpha, "acceleration": cell, "balancing_strength": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = dataset([(photo_of(mask), mask)], classes=CLASSES.subset(["BG", "Gl"]), **options)
        chance = data.photos[0].samplers[1].probabilities()
    assert math.isclose(chance.sum(), 1, abs_tol=1e-9) and (chance[held(mask, GL, SIDE) > 0] > 0).all()
    hits = [GL in data.cut(draw)[1] for draw in islice(data.draws(), 600) if draw.wanted == 1]
    # Other windows of the cell are drawn too, where cells are larger than a position.
    holding = 1 if 1 in (cell, alpha) else chance[held(mask, GL, SIDE) > 0].sum()
    assert len(hits) > 250 and any(hits)
    assert holding == 1 == np.mean(hits) or UNLIKELY < binom.cdf(sum(hits), len(hits), holding) < 1 - UNLIKELY


@pytest.mark.parametrize("alpha", [0.5, 1])
@pytest.mark.parametrize("strength", [0, 1])
def test_an_image_as_large_as_the_patch_is_the_patch(alpha, strength):
    pairs = [(image[:12, :12], mask[:12, :12]) for image, mask in arrays()]
    data = dataset(pairs, 12, patch_positioning_accuracy=alpha, balancing_strength=strength)
    for draw, patch in zip(data.draws(), patches(data, 20)):
        assert (draw.row, draw.col) == (0, 0)
        same(patch, pairs[draw.photo])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
def test_workers_do_not_share_a_random_state():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    data = dataset(augment=Augment.only(flips=True, quarter_turns=True, noise=4.0, exposure_ev=0.2), seed=5)
    expected = list(data.batches(4, steps=6))
    for workers in (0, 1, 4):
        batches = [[part.numpy() for part in batch] for batch in data.loader(4, workers=workers, steps=6)]
        assert len(batches) == 6
        for a, b in zip(batches, expected):
            same(a, b)
    assert torch.equal(*(next(iter(data.loader(4, steps=1)))[0] for _ in range(2)))
    different = {patch.tobytes() for images, _ in expected for patch in images}
    assert len(different) == 24


def test_forked_workers_do_not_wait_for_the_threads_of_opencv():
    "OpenCV's threads do not live on in a forked process, and ending them there would take for ever."
    pytest.importorskip("torch", reason="PyTorch is not installed")
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(4)
        scene((240, 320), seed=1, minerals=S1)  # starts the threads
        loader = dataset().loader(4, workers=1, steps=2, timeout=60)
        for a, b in zip(loader, dataset().batches(4, steps=2), strict=True):
            same([part.numpy() for part in a], b)
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(threads)


@pytest.mark.parametrize("augment", [None, Augment.only(flips=True, rotation_deg=30, noise=2.0)])
def test_a_data_loader_gives_the_same_patches_with_any_number_of_workers(files, augment):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    pairs, cache = files
    data = dataset(pairs, augment=augment, seed=4, length=22, cache_dir=cache)
    expected = patches(data, 44)
    for workers in (0, 2):
        for epoch in (0, 1):
            data.set_epoch(epoch)
            loader = torch.utils.data.DataLoader(data, batch_size=4, num_workers=workers)
            found = [patch for images, codes in loader for patch in zip(images.numpy(), codes.numpy())]
            assert len(found) == len(data) == 22
            for a, b in zip(found, expected[22 * epoch :]):
                same(a, b)
    same(data[-1], expected[43])
    shuffled = torch.utils.data.DataLoader(data, batch_size=None, shuffle=True)
    assert len({image.numpy().tobytes() for image, _ in shuffled}) == 22
    with pytest.raises(IndexError, match=r"within 0\.\.21, got 22"):
        data[22]


def test_a_folder_and_the_name_of_classes_are_enough(tmp_path):
    drawn = scene((96, 128), seed=1, minerals=S1)
    for folder, write, part in (("imgs", write_image, drawn[0]), ("masks", write_mask, drawn[1])):
        (tmp_path / folder / "train").mkdir(parents=True)
        write(tmp_path / folder / "train" / "a.png", part)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for root in (tmp_path, str(tmp_path)):
            same(SelfBalancingDataset(root, "S1v1", 32).item(3), SelfBalancingDataset([drawn[:2]], "S1v1", 32).item(3))
    with pytest.raises(FileNotFoundError, match="train: no such folder; a dataset is laid out as ROOT/imgs"):
        SelfBalancingDataset(tmp_path / "masks", "S1v1", 32)


def test_nothing_is_printed(files, capfd):
    pairs, cache = files
    for options in ({}, {"cache_dir": cache}, {"augment": Augment.only(flips=True)}):
        patches(dataset(pairs, **options), 30)
    assert capfd.readouterr() == ("", "")
    for module in ("balancer", "augment"):
        tree = ast.parse((ROOT / f"petroscope/segmentation/{module}.py").read_text(encoding="utf-8"))
        assert "print" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


IN_A_PROCESS = """
import ctypes, gc, hashlib, json, re, sys, warnings
from itertools import islice
from pathlib import Path
warnings.simplefilter("error")
from petroscope.segmentation.balancer import SelfBalancingDataset
from petroscope.segmentation.classes import LumenStoneClasses
pairs, cache, side = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
classes = LumenStoneClasses.S1v1.subset(["BG", "Gl", "Sph"])
def memory():
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # what is free already, and kept for the next need
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
def run(pairs, cache, number):
    data, digest = SelfBalancingDataset(pairs, classes, side, cache_dir=cache), hashlib.sha256()
    for image, mask in islice(data.balanced(), number):
        digest.update(image.tobytes() + mask.tobytes())
    return data, digest.hexdigest()
"""


def in_a_process(code, pairs, cache, side=SIDE):
    argv = [sys.executable, "-c", IN_A_PROCESS + code, str_of(pairs), str(cache), str(side)]
    return subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def str_of(pairs):
    return "[" + ", ".join(f'["{a.as_posix()}", "{b.as_posix()}"]' for a, b in pairs) + "]"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc/self/status to read memory from")
def test_photos_in_a_store_are_not_held_in_memory(tmp_path):
    "Six photos, 38 MB decoded: what they add to the memory that is the process's own."
    mask = np.tile(np.kron(masks()[0], np.ones((8, 8), np.uint8)), (6, 5))[:1240, :1270]
    pairs = []
    for i in range(6):
        pairs.append((tmp_path / f"{i}.png", tmp_path / f"{i}_mask.png"))
        write_image(pairs[-1][0], photo_of(mask, i))
        write_mask(pairs[-1][1], mask)
    for photo in dataset(pairs, 128, cache_dir=tmp_path / "cache").photos:
        for array in (photo.image, photo.mask, photo.counts.blocks):
            assert not array.flags.owndata and not array.flags.writeable
    code = """
run(pairs[:1], cache, 50)
before = memory()
kept = run(pairs, cache, 300)
print(memory() - before)
"""
    process = in_a_process(code, pairs, tmp_path / "cache", 128)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert float(out) < 6  # MB


def test_a_damaged_entry_of_the_cache_is_made_again_with_a_warning(files):
    pairs, cache = files
    expected = patches(dataset(pairs, cache_dir=cache))
    entries = sorted(cache.glob("*.entry"))
    for i, entry in enumerate(entries):
        path = max(entry.glob("*.npy"), key=lambda file: file.stat().st_size)
        content = bytearray(path.read_bytes())
        if i % 3 == 0:
            content = content[: len(content) // 2]
        elif i % 3 == 1:
            content[-len(content) // 4] ^= 255
        else:
            content = b""
        path.write_bytes(content)
    with pytest.warns(UserWarning, match="cannot be used: .*; making them again") as told:
        again = patches(dataset(pairs, cache_dir=cache))
    assert len([w for w in told if "making them again" in str(w.message)]) == len(entries)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        once_more = patches(dataset(pairs, cache_dir=cache))
    for a, b, c in zip(expected, again, once_more):
        same(a, b)
        same(a, c)


def test_two_processes_may_build_one_cache_at_once(files):
    pairs, cache = files
    code = "print('ready', flush=True); sys.stdin.readline(); print(run(pairs, cache, 200)[1])"
    processes = [in_a_process(code, pairs, cache) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.communicate()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate() for process in processes]
    assert [err for _, err in told] == ["", ""] and told[0] == told[1]
    assert len(list(cache.iterdir())) == 3 * len(pairs)
    for a, b in zip(patches(dataset(pairs, cache_dir=cache)), patches(dataset(pairs))):
        same(a, b)


def test_a_set_beyond_the_memory_budget_lies_on_disk(files):
    pairs, _ = files
    data, in_memory = dataset(pairs, memory_budget_gb=1e-6), dataset(pairs)
    assert data.pool.too_large and not in_memory.pool.too_large
    folder = data.pool.store.folder
    for a, b in zip(patches(data, 100), patches(in_memory, 100)):
        same(a, b)
    del data
    assert not folder.exists()


# ---- accumulators and replay

AUGMENTS = {
    "as it is": None,
    "flips": Augment.only(flips=True, quarter_turns=True),
    "light": Augment.only(exposure_ev=0.5, noise=3.0),
    "turned": Augment.only(rotation_deg=30, scale=0.1),
    "all": Augment(),
}


@pytest.mark.parametrize("border", [0, 2])
@pytest.mark.parametrize("augment", AUGMENTS)
def test_accumulators_are_the_pixels_handed_out(augment, border):
    data = dataset(side=6, augment=AUGMENTS[augment], void_border_width=border, seed=7)
    handed, voided = np.zeros(3, int), 0
    for k, (image, mask) in enumerate(islice(data.balanced(), 150)):
        if k % 25 == 0:
            assert data.accumulators(k) == dict(zip(CLASSES.labels, handed.tolist()))
        assert image.shape == (6, 6, 3) and image.dtype == mask.dtype == np.uint8
        handed += [int((mask == code).sum()) for code in CODES]
        voided += int((mask == VOID).sum())
        assert np.isin(mask, [*CODES, VOID]).all()
    assert data.accumulators(150) == dict(zip(CLASSES.labels, handed.tolist()))
    assert handed.sum() + voided == 150 * 36 and voided > 0


@pytest.mark.parametrize("options", [
    {}, {"augment": AUGMENTS["all"]}, {"patch_positioning_accuracy": 1}, {"candidates": 3}, {"void_border_width": 1},
])  # fmt: skip
def test_an_item_is_that_of_the_sequence_in_any_order(options):
    make = {"side": 6, "seed": 11, **options}
    sequence = patches(dataset(**make), 530)
    anew = dataset(**make)
    for k in (517, 3, 256, 255, 0, 511, 257, 512, 3):
        same(anew.item(k), sequence[k])
        handed = [sum(int((mask == code).sum()) for _, mask in sequence[:k]) for code in CODES]
        assert list(anew.accumulators(k).values()) == handed
    same(dataset(**make).item(300), sequence[300])
    same(next(dataset(**make).balanced(400)), sequence[400])
    same(next(dataset(**make).balanced(529)), sequence[529])
    uniform = list(islice(dataset(**make).uniform(), 40))
    for k in (39, 0, 17):
        same(anew.item(k, balanced=False), uniform[k])
    same(next(anew.uniform(17)), uniform[17])


def test_seeds_and_sequences_differ():
    data = dataset()
    firsts = [patches(data), list(islice(data.uniform(), 12)), patches(dataset(seed=1))]
    assert len({b"".join(image.tobytes() for image, _ in first) for first in firsts}) == 3


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_the_global_batches(balanced, world_size):
    options = {"steps": 4, "balanced": balanced}
    whole = list(dataset().batches(6, **options))
    parts = [
        list(dataset().batches(6 // world_size, rank=rank, world_size=world_size, **options))
        for rank in range(world_size)
    ]
    last = {"first": 3, "steps": 1, "world_size": world_size, "balanced": balanced}
    for rank in range(world_size):
        same(next(dataset().batches(6 // world_size, rank=rank, **last)), parts[rank][3])
    for step, batch in enumerate(whole):
        same(batch, [np.concatenate(part) for part in zip(*(rank[step] for rank in parts))])
        for i in range(6):
            same([part[i] for part in batch], dataset().item(6 * step + i, balanced))
    same(next(dataset().batches(6, first=2, balanced=balanced)), whole[2])


@pytest.mark.parametrize("kept", [False, True])
def test_the_loader_gives_the_batches_in_spawned_workers_too(files, kept):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    pairs, cache = files
    data = dataset(pairs, cache_dir=cache if kept else None, augment=Augment.only(flips=True, noise=2.0), seed=3)
    options = {"first": 1, "steps": 3, "rank": 1, "world_size": 2}
    expected = list(data.batches(3, **options))
    ways = [{"workers": 0}, {"workers": 2, "balanced": True}]
    if kept:
        ways.append({"workers": 1, "multiprocessing_context": "spawn"})
    for way in ways:
        loader = data.loader(3, **options, **way)
        assert len(loader) == 3
        batches = list(loader)
        assert len(batches) == 3
        for a, b in zip(batches, expected):
            same([part.numpy() for part in a], b)


def test_a_saved_state_goes_on_where_it_was():
    expected = patches(dataset(), 700)
    state = dataset().accumulators(300)
    data = dataset()
    data.restore(300, state)
    for k in (300, 512, 699):
        same(data.item(k), expected[k])
    same(data.item(299), expected[299])


def test_a_restored_state_outdates_what_was_known_beyond_it():
    data, other = dataset(), dataset()
    data.accumulators(1000)
    state = {"BG": 10**9, "Gl": 10**9, "Sph": 0}
    for one in (data, other):
        one.restore(300, state)
    assert data.accumulators(300) == state
    assert data.accumulators(900) == other.accumulators(900)
    same(next(data.balanced(900)), list(islice(data.balanced(300), 601))[600])


@pytest.mark.parametrize("kept", [False, True])
def test_a_dataset_can_be_sent_to_another_process(files, kept):
    pairs, cache = files
    data = dataset(pairs, 5, cache_dir=cache if kept else None, augment=Augment())
    data.accumulators(300)
    text = pickle.dumps(data)
    copy = pickle.loads(text)
    for k in (0, 299, 310):
        same(copy.item(k), data.item(k))


def test_photos_in_a_store_are_not_sent_to_another_process(files):
    pairs, cache = files
    mask = np.kron(masks()[0], np.ones((10, 10), np.uint8))
    image = np.random.default_rng(0).integers(0, 256, (*mask.shape, 3), np.uint8)
    write_image(pairs[0][0], image)
    write_mask(pairs[0][1], mask)
    assert len(pickle.dumps(dataset(pairs, cache_dir=cache))) < 10_000 < image.size


@pytest.mark.parametrize(
    "handed, quality",
    [([3, 1], 0.5), ([1, 1, 1, 1], 1), ([10, 0, 0], 0), ([5, 3, 2], 0.7), ([0, 7, 7], 0.5), ([600, 300, 100], 0.5)],
)
def test_balancing_quality_by_hand(handed, quality):
    assert math.isclose(balancing_quality(np.array(handed)), quality)
    np.testing.assert_allclose(balancing_quality(np.array([handed, handed[::-1]])), quality)


def test_the_history_is_that_of_the_accumulators():
    data = dataset()
    numbers, handed = history(data, 100, 20)
    assert numbers.tolist() == [20, 40, 60, 80, 100]
    for number, line in zip(numbers.tolist(), handed.tolist()):
        assert data.accumulators(number) == dict(zip(CLASSES.labels, line))
    assert handed.sum(axis=1).max() <= 100 * SIDE**2


# ---- any mask


@st.composite
def situations(draw):
    "A mask of grains and void, a patch that fits into it, and how windows are drawn."
    height, width = draw(st.integers(1, 26)), draw(st.integers(1, 26))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    codes = np.array(draw(st.lists(st.sampled_from([*CODES, VOID]), min_size=1, max_size=4)), np.uint8)
    mask = rng.choice(codes, (height, width))
    if draw(st.booleans()):  # few classes at few places
        mask = np.where(rng.random(mask.shape) < 0.02, mask, codes[0])
    assume(np.unique(mask).tolist() != [0, VOID])  # is taken for a binary mask
    return mask, {
        "side": draw(st.integers(1, min(height, width))),
        "acceleration": draw(st.integers(1, 12)),
        "patch_positioning_accuracy": draw(st.sampled_from([0, 0.3, 0.5, 1, 2])),
        "balancing_strength": draw(st.sampled_from([0, 0.8, 1])),
    }


def near(mask, reach):
    "Whether any position is true within so many steps down and across."
    padded = np.pad(mask, reach)
    return sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1)).any((2, 3))


@pytest.mark.filterwarnings("ignore:no pixel of")
@settings(max_examples=120)
@given(situations(), st.integers(0, 10**6))
def test_any_window_drawn_lies_in_its_photo_and_near_its_class(situation, seed):
    mask, options = situation
    if (mask == VOID).all():
        return
    data, side = dataset([(photo_of(mask), mask)], seed=seed, **options), options["side"]
    shape, cell = [n - side + 1 for n in mask.shape], min(options["acceleration"], side)
    photo, possible = data.photos[0], {None: np.ones(shape)}
    for i, sampler in photo.samplers.items():
        count, chance = held(mask, CODES[i], side), sampler.probabilities()
        possible[i] = chance
        assert list(chance.shape) == shape and (chance >= 0).all() and math.isclose(chance.sum(), 1, abs_tol=1e-9)
        assert (chance[count > 0] > 0).all()
        for u in ((0, 0, 0), (1 - 2**-53,) * 3):  # the least and the greatest random numbers
            assert chance[sampler.draw(u)] > 0
        alpha = options["patch_positioning_accuracy"]
        if cell == 1 or alpha == 1:
            assert (chance[count == 0] == 0).all()
            np.testing.assert_allclose(chance, full_map(mask, CODES[i], side, alpha), atol=1e-8)
        else:  # a window of the same cell holds the class
            assert near(count > 0, cell - 1)[chance > 0].all()
    for draw in islice(data.draws(), 12):
        assert 0 <= draw.row < shape[0] and 0 <= draw.col < shape[1]
        assert possible[draw.wanted][draw.row, draw.col] > 0
        image, codes = data.cut(draw)
        np.testing.assert_array_equal(codes, mask[draw.row : draw.row + side, draw.col : draw.col + side])
        assert image[0, 0].tolist() == [draw.row, draw.col, 0]
        assert image[-1, -1].tolist() == [draw.row + side - 1, draw.col + side - 1, 0]


@pytest.mark.filterwarnings("ignore:no pixel of")
@settings(max_examples=100)
@given(situations(), st.data())
def test_any_window_is_counted_as_its_pixels_are(situation, data):
    mask, options = situation
    if (mask == VOID).all():
        return
    counts = dataset([(photo_of(mask), mask)], **options).photos[0].counts
    for _ in range(5):
        size = data.draw(st.integers(1, min(mask.shape)))
        row, col = (data.draw(st.integers(0, n - size)) for n in mask.shape)
        window = mask[row : row + size, col : col + size]
        assert counts(row, col, size).tolist() == [int((window == code).sum()) for code in CODES]


# ---- what a user may give


def test_a_photo_smaller_than_the_augmented_patch_is_named_with_the_size_needed(tmp_path):
    strong = Augment.only(rotation_deg=45, scale=0.2)

    def pair(size):
        mask = np.full((size, size + 20), SPH, np.uint8)
        files = tmp_path / f"{size}.png", tmp_path / f"{size}_mask.png"
        write_image(files[0], photo_of(mask))
        write_mask(files[1], mask)
        return files

    classes = CLASSES.subset(["Sph"])
    with pytest.raises(
        ValueError, match=r"(?s)at least (\d+) x \1 px.*turned and scaled.*2 of 3.*50\.png: 70 x 50 px.*60\.png"
    ) as told:
        dataset([pair(50), pair(150), pair(60)], 64, classes, augment=strong)
    needed = int(str(told.value).split("at least ")[1].split()[0])
    assert 64 * 1.2 * math.sqrt(2) <= needed <= 64 * 1.2 * math.sqrt(2) + 4
    with pytest.raises(ValueError, match=f"{needed - 1}.png"):
        dataset([pair(needed - 1)], 64, classes, augment=strong)
    data = dataset([pair(needed)], 64, classes, augment=strong, seed=1)
    for _, mask in patches(data, 100):
        assert (mask == SPH).all()  # no corner is empty
    with pytest.raises(ValueError, match="at least 51 x 51 px, but 1 of 1"):
        dataset([pair(50)], 51, classes)


def test_a_class_that_occurs_nowhere_is_told_and_never_wanted():
    with pytest.warns(UserWarning, match="no pixel of Ccp, Brt in any mask") as told:
        data = dataset(classes=LumenStoneClasses.S1v1.subset(["BG", "Ccp", "Gl", "Brt", "Sph"]), balancing_strength=1)
    assert len(told) == 1 and told[0].filename == __file__.replace(".pyc", ".py")
    assert {draw.wanted for draw in islice(data.draws(), 300)} == {0, 2, 4}
    assert data.accumulators(300)["Ccp"] == data.accumulators(300)["Brt"] == 0


def test_one_single_image_is_enough():
    data = dataset(arrays()[:1], seed=1)
    assert {draw.photo for draw in islice(data.draws(), 200)} == {0}
    handed = data.accumulators(200)
    assert handed["Gl"] / sum(handed.values()) > 1.5 * (masks()[0] == GL).sum() / (masks()[0] != VOID).sum()


def test_masks_of_void_alone_are_refused_unless_others_hold_something():
    void = np.full((20, 20), VOID, np.uint8)
    with pytest.raises(ValueError, match=r"2 masks hold no pixel of .*: all of them are void"):
        dataset([(photo_of(void), void)] * 2)
    data = dataset([(photo_of(void), void), *arrays()], balancing_strength=1)
    assert 0 not in {draw.photo for draw in islice(data.draws(), 300)}


@pytest.mark.parametrize("options, message", [
    ({"balancing_strength": -0.1}, "balancing_strength must be within 0..1, got -0.1"),
    ({"balancing_strength": 1.01}, "balancing_strength must be within 0..1, got 1.01"),
    ({"balancing_strength": math.nan}, "balancing_strength must be within 0..1, got nan"),
    ({"class_area_consideration": math.inf}, "class_area_consideration must be a number, got inf"),
    ({"patch_positioning_accuracy": -1}, "patch_positioning_accuracy must be >= 0, got -1"),
    ({"patch_positioning_accuracy": math.nan}, "patch_positioning_accuracy must be >= 0, got nan"),
    ({"side": 0}, "patch_size must be a whole number >= 1, got 0"),
    ({"side": 8.0}, "patch_size must be a whole number >= 1, got 8.0"),
    ({"acceleration": 0}, "acceleration must be a whole number >= 1, got 0"),
    ({"candidates": 0}, "candidates must be a whole number >= 1, got 0"),
    ({"void_border_width": -1}, "void_border_width must be a whole number >= 0, got -1"),
    ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
    ({"memory_budget_gb": -1}, "memory_budget_gb must be >= 0, got -1"),
    ({"pairs": []}, "expected photos with masks, got none"),
    ({"balancing_strength": "0.8"}, "balancing_strength must be a number, got '0.8'"),
    ({"class_area_consideration": None}, "class_area_consideration must be a number, got None"),
    ({"patch_positioning_accuracy": [1]}, "patch_positioning_accuracy must be a number, got [1]"),
    ({"memory_budget_gb": "4"}, "memory_budget_gb must be a number, got '4'"),
    ({"pairs": ("photo.png", "mask.png")}, "number 0 is photo.png; a single pair is given as a list, [(photo, mask)]"),
    ({"pairs": arrays()[0]}, "number 0 is an array (26, 34, 3); a single pair is given as a list, [(photo, mask)]"),
    ({"pairs": 3}, "a list of (photo, mask) or a LumenStone, got int 3"),
    ({"pairs": [*arrays(), (None, None)]}, "number 3 is tuple(NoneType, NoneType)"),
])  # fmt: skip
def test_a_setting_that_means_nothing_is_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataset(**options)


@pytest.mark.parametrize("options, message", [
    ({"augment": "x"}, "expected an Augment or None as augment, got str 'x'; Augment() has"),
    ({"augment": {"flips": True}}, "expected an Augment or None as augment, got dict"),
    ({"classes": ["BG", "Gl"]}, "expected a ClassSet as classes, got list ['BG', 'Gl']; LumenStoneClasses.S1v1 is one"),
])  # fmt: skip
def test_what_is_another_kind_of_thing_is_refused(options, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        dataset(**options)


@pytest.mark.parametrize("asked, message", [
    (lambda data: next(data.batches("8")), "batch_size must be a whole number >= 1, got '8'"),
    (lambda data: next(data.batches(2.5)), "batch_size must be a whole number >= 1, got 2.5"),
    (lambda data: next(data.batches(8, steps=-1)), "steps must be a whole number >= 0, got -1"),
    (lambda data: next(data.batches(8, rank=2, world_size=2)), "rank must be below world_size, got rank=2"),
    (lambda data: data.item("3"), "item must be a whole number >= 0, got '3'"),
    (lambda data: data.item(-1, balanced=False), "item must be a whole number >= 0, got -1"),
    (lambda data: data.sequence(math.nan), "draw must be a whole number >= 0, got nan"),
    (lambda data: data.restore(3, {"BG": 1}), "expected the accumulators of all classes by label, got none of Gl, Sph"),
    (lambda data: history(data, 8, 0), "every must be a whole number >= 1, got 0"),
    (lambda data: coverage(data, -1, []), "photo must be 0..2, got -1"),
    (lambda data: probability_maps(data, 3), "photo must be 0..2, got 3"),
])  # fmt: skip
def test_what_cannot_be_asked_for_is_refused(asked, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        asked(dataset())


@pytest.mark.parametrize("kept", [False, True])
def test_a_mask_of_another_size_than_its_photo_is_named(files, kept):
    pairs, cache = files
    write_mask(pairs[1][1], masks()[1][:, 1:])
    with pytest.raises(ValueError, match=r"mask1\.png: the mask is 29 x 22 px, but its photo is 30 x 22 px"):
        dataset(pairs, cache_dir=cache if kept else None)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("which", [0, 1])
def test_a_file_that_is_missing_is_named(files, kept, which):
    pairs, cache = files
    pairs[1][which].unlink()
    with pytest.raises(FileNotFoundError, match=pairs[1][which].name):
        dataset(pairs, cache_dir=cache if kept else None)


def test_numbers_of_numpy_are_numbers(files):
    pairs, cache = files
    options = {"acceleration": np.int32(4), "void_border_width": np.uint8(1), "seed": np.int64(3)}
    ours = dataset(pairs, np.int64(7), patch_positioning_accuracy=np.float32(0.5), cache_dir=cache, **options)
    plain = dataset(pairs, 7, acceleration=4, void_border_width=1, seed=3)
    for a, b in zip(patches(ours), patches(plain)):
        same(a, b)


@pytest.mark.parametrize("side", [1, 2, 5])
def test_cells_larger_than_a_patch_miss_nothing(side):
    for at in range(20):
        mask = np.zeros((20, 20), np.uint8)
        mask[at, 19 - at] = GL
        data = dataset([(photo_of(mask), mask)], side, CLASSES.subset(["BG", "Gl"]), acceleration=16)
        assert (data.photos[0].samplers[1].probabilities()[held(mask, GL, side) > 0] > 0).all()


def test_a_large_exponent_leaves_the_windows_that_are_fullest():
    mask = np.zeros((300, 300), np.uint8)
    mask[150, 150] = GL
    data = dataset([(photo_of(mask), mask)], 256, CLASSES.subset(["BG", "Gl"]), patch_positioning_accuracy=200)
    assert math.isclose(data.photos[0].samplers[1].probabilities().sum(), 1, abs_tol=1e-9)


# ---- real photos


def test_the_rare_minerals_of_real_photos_are_balanced(s1):
    "Quality after 2000 patches; masks alone decide, so that no photo needs to be read."
    real = [read_mask(path) for path in sorted((s1 / "masks/train").glob("*.png"))]
    pairs = [(np.broadcast_to(np.uint8(0), (*mask.shape, 3)), mask) for mask in real]
    data = dataset(pairs, 256, LumenStoneClasses.S1v1)
    handed = history(data, 2000, 2000)[1][0]
    pixels = np.sum([[(mask == code).sum() for code in LumenStoneClasses.S1v1.codes] for mask in real], axis=0)
    in_set, given_out = pixels / pixels.sum(), handed / handed.sum()
    rare = in_set < 1 / len(in_set)
    assert rare.sum() == 4 and (given_out[rare] > 1.2 * in_set[rare]).all()
    assert (given_out[~rare] < in_set[~rare]).all()
    assert balancing_quality(handed) >= 0.78
