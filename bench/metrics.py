"""How fast a pair of masks is counted, on one core, beside the usual ways to do it in the same run.

    python bench/metrics.py [--pairs 2] [--rounds 7] [--quick]

The pairs are 3396 x 2547 px: drawn scenes as the truth, with void in it, and a prediction that errs along borders and
in whole regions. Every contender turns the two masks of codes into the confusion matrix, refuses a code that is no
class, and leaves void out; all must give the same matrix. "Void borders" are those of LumenStone's published table,
which the others find by eroding each class. Contenders take turns in rounds and the median of the rounds' ratios
counts. Memory is the peak of a process of its own, less what it held with the masks loaded. torchmetrics is left out
where it is not installed (`pip install torchmetrics`); it is no requirement of the package. Nothing fails because a
machine is slow.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Libraries read these when they are imported, which is why they stand before the imports: one core for all.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import cv2
import numpy as np
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from petroscope.segmentation.classes import VOID, LumenStoneClasses
from petroscope.segmentation.masks import void_borders_lumenstone
from petroscope.segmentation.metrics import SegmMetrics
from petroscope.synth.rock import scene

SHAPE, TILES = (2547, 3396), 3
CLASSES = LumenStoneClasses.S1v1
C = len(CLASSES)
WIDTH, PAD = 2, 4  # void borders of the published table
OURS, BINCOUNT, ONE_HOT, LIMIT = "petroscope", "numpy bincount", "one-hot, class by class", "reading both masks"
TURN_S = 0.15  # a turn lasts at least so long: the fast contenders count the pairs several times
MEMORY_AIM_MB = 200
Method = Callable[[np.ndarray, np.ndarray], np.ndarray]

# The index of each code; void and foreign codes come after the classes.
INDEX = np.full(256, C + 1, np.uint8)
INDEX[[*CLASSES.codes, VOID]] = np.arange(C + 1)


# The pairs


def draw_pair(shape: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    "A prediction and a truth: a drawn scene, mirrored side by side."
    rng = np.random.default_rng(seed)
    part = scene(tuple(-(-side // TILES) for side in shape), CLASSES.labels, seed=seed, scale=1.0).mask
    row = np.concatenate([part[:, :: 1 - 2 * (i % 2)] for i in range(TILES)], axis=1)
    target = np.concatenate([row[:: 1 - 2 * (i % 2)] for i in range(TILES)])[: shape[0], : shape[1]].copy()
    pred = target.copy()
    window = np.ones((5, 5), np.uint8)
    # Minerals that grew or shrank by two pixels, and grains taken for another mineral, in regions here and there.
    for changed in (cv2.dilate(target, window), cv2.erode(target, window)):
        at = _regions(rng, shape, 12) > 0
        pred[at] = changed[at]
    for code in rng.choice(CLASSES.codes, 5):
        pred[_regions(rng, shape, 1) > 0] = code
    target[_regions(rng, shape, 5) > 0] = VOID
    return pred, target


def _regions(rng: np.random.Generator, shape: tuple[int, int], count: int) -> np.ndarray:
    "A few ellipses."
    out = np.zeros(shape, np.uint8)
    for _ in range(count):
        row, col = rng.integers(shape)
        axes = tuple(int(side) for side in rng.integers(min(shape) // 60, min(shape) // 7, 2))
        cv2.ellipse(out, (int(col), int(row)), axes, float(rng.integers(180)), 0, 360, 1, -1)
    return out


# The contenders: each gives the confusion matrix, rows truth, and raises on a foreign code


def petroscope(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    return SegmMetrics.from_masks(pred, target, CLASSES).confusion


def bincount(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    "Void and foreign codes are counted as two classes more, which is the cheapest way to check."
    n = C + 2
    counts = np.bincount((INDEX[target] * np.uint8(n) + INDEX[pred]).ravel(), minlength=n * n).reshape(n, n)
    if counts[-1].any() or counts[:, -1].any() or counts[:-2, -2].any():
        raise ValueError("a foreign code, or void in the prediction")
    return counts[:-2, :-2]


def scikit_learn(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    "It drops pixels whose code is not among the labels, so their number tells of foreign codes."
    counted = target != VOID
    counts = sklearn_confusion_matrix(target[counted], pred[counted], labels=list(CLASSES.codes))
    if counts.sum() != np.count_nonzero(counted):
        raise ValueError("a foreign code")
    return counts


def _index(mask: np.ndarray) -> np.ndarray:
    "Indices, checked, for those that do not check them."
    index = INDEX[mask]
    if index.max() > C:
        raise ValueError("a foreign code")
    return index


@cache
def _torchmetrics() -> tuple[Any, Any]:
    "PyTorch and the metric, with its own checks; imported late, because that is slow and may fail."
    import torch
    from torchmetrics.classification import MulticlassConfusionMatrix

    torch.set_num_threads(1)
    return torch, MulticlassConfusionMatrix(C, ignore_index=C, validate_args=True)


def torchmetrics(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    torch, metric = _torchmetrics()
    metric.reset()
    metric.update(torch.from_numpy(_index(pred)), torch.from_numpy(_index(target)))
    return metric.compute().numpy()


def _planes(mask: np.ndarray, dtype: type) -> np.ndarray:
    "`(H, W, C)`, all zero where the mask is void."
    return np.eye(C + 1, C, dtype=dtype)[_index(mask)]


def one_hot(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    "As the earlier package did: float64, and for each class what an IoU needs: both, truth and prediction `(3, C)`."
    guess, truth = _planes(pred, np.float64), _planes(target, np.float64)
    guess[target == VOID] = 0
    areas = []
    for i in range(C):
        t, p = truth[..., i].flatten(), guess[..., i].flatten()
        areas.append((np.sum(t * p), np.sum(t), np.sum(p)))
    return np.array(areas).T


def one_hot_product(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    "The best that can be made of it: float32, exact here below 2 ** 24 pixels, and one matrix product."
    guess, truth = (_planes(mask, np.float32).reshape(-1, C) for mask in (pred, target))
    return truth.T @ guess


def read_both(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    "No metric: what no metric can be faster than."
    return np.array([cv2.countNonZero(pred), cv2.countNonZero(target)])


def eroded(target: np.ndarray) -> np.ndarray:
    """The truth with void borders as their definition says: what no class's erosion keeps is void.

    Foreign codes go unseen with the rest; the others are spared a check of their own here.
    """
    window, anchor = np.ones((WIDTH, WIDTH), np.uint8), (WIDTH - 1, WIDTH - 1)
    kept = np.zeros(target.shape, np.uint8)
    for code in CLASSES.codes:
        plane = (target == code).view(np.uint8)
        kept |= cv2.erode(plane, window, anchor=anchor, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    kept[:PAD], kept[-PAD:], kept[:, :PAD], kept[:, -PAD:] = 0, 0, 0, 0
    return np.where(kept, target, np.uint8(VOID))


def with_borders(name: str, method: Method) -> Method:
    "The same with void borders in the truth."
    if name == LIMIT:
        return method
    if name == OURS:
        return lambda pred, target: method(pred, void_borders_lumenstone(target, WIDTH, PAD))
    return lambda pred, target: method(pred, eroded(target))


METHODS: dict[str, Method] = {
    OURS: petroscope,
    BINCOUNT: bincount,
    "scikit-learn": scikit_learn,
    "torchmetrics": torchmetrics,
    "one-hot, matrix product": one_hot_product,
    ONE_HOT: one_hot,
    LIMIT: read_both,
}


# Rounds, tables and memory


def same(counts: np.ndarray, reference: np.ndarray) -> bool:
    "Whether a confusion matrix, or the three areas of each class, agree with the reference."
    if counts.shape == (3, C):
        reference = np.array([reference.diagonal(), reference.sum(axis=1), reference.sum(axis=0)])
    return np.array_equal(counts, reference)


def check(methods: dict[str, Method], pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    "Raise unless all give the same matrix."
    for pred, target in pairs:
        reference = methods[BINCOUNT](pred, target)
        for name, method in methods.items():
            if name != LIMIT and not same(method(pred, target), reference):
                raise RuntimeError(f"{name} gives another confusion matrix than {BINCOUNT}")


def check_refusal(methods: dict[str, Method]) -> None:
    "Raise unless all refuse a foreign code, in the prediction and in the truth."
    foreign = min({*range(VOID)} - {*CLASSES.codes})
    for which in (0, 1):
        for name, method in methods.items():
            pair = draw_pair((60, 80), 0)
            pair[which][30:34, 40:44], pair[1 - which][30:34, 40:44] = foreign, CLASSES.codes[0]
            try:
                method(*pair)
            except ValueError:
                continue
            if name != LIMIT:
                raise RuntimeError(f"{name} counts the foreign code {foreign} as if it were a class")


def take_turns(
    methods: dict[str, Method], pairs: Sequence[tuple[np.ndarray, np.ndarray]], rounds: int
) -> dict[str, list[float]]:
    "Seconds for a pair, by contender and round."
    taken: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            start, counted = time.perf_counter(), 0
            while counted == 0 or time.perf_counter() - start < TURN_S:
                for pred, target in pairs:
                    method(pred, target)
                counted += len(pairs)
            taken[name].append((time.perf_counter() - start) / counted)
    return taken


def ratio(taken: dict[str, list[float]], name: str, reference: str) -> float:
    "How many times as fast as the reference, the median of the rounds."
    return statistics.median(r / t for r, t in zip(taken[reference], taken[name], strict=True))


def _status_mb(name: str) -> float:
    "A figure of /proc/self/status; unlike ru_maxrss it is not inherited from the process that started this one."
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


def peak_mb(name: str, borders: bool, stored: Path) -> float:
    "MB that counting one pair takes at its peak, beyond the masks and the libraries."
    cv2.setNumThreads(1)
    method = with_borders(name, METHODS[name]) if borders else METHODS[name]
    method(*draw_pair((60, 80), 0))  # what is imported or set up once does not count
    pred, target = np.load(stored)
    with suppress(OSError):  # forget the peak of the imports; where that is refused, the figure is an upper bound
        Path("/proc/self/clear_refs").write_text("5")
    before = _status_mb("VmRSS")
    method(pred, target)
    return _status_mb("VmHWM") - before


def peaks_mb(names: Sequence[str], borders: bool, pair: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    "Peaks of all contenders, each in a fresh process; none where the system does not tell."
    if not Path("/proc/self/status").exists():
        return {}
    peaks = {}
    with tempfile.TemporaryDirectory(prefix="petroscope-bench-") as folder:
        stored = Path(folder) / "pair.npy"
        np.save(stored, np.stack(pair))
        for name in names:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                peaks[name] = pool.submit(peak_mb, name, borders, stored).result()
    return peaks


def print_table(title: str, taken: dict[str, list[float]], peaks: dict[str, float], pixels: int) -> None:
    width = max(map(len, taken))
    print(f"\n{title}\n  {'':{width}}  {'Mpx/s':>8}  {'x bincount':>10}  {'x one-hot':>9}  {'peak MB':>8}")
    for name, seconds in taken.items():
        speed = pixels / statistics.median(seconds) / 1e6
        ratios = f"{ratio(taken, name, BINCOUNT):>10.2f}  {ratio(taken, name, ONE_HOT):>9.1f}"
        peak = f"{peaks[name]:>8.1f}" if name in peaks else f"{'-':>8}"
        print(f"  {name:{width}}  {speed:>8,.{0 if speed >= 100 else 1}f}  {ratios}  {peak}", flush=True)


def aims(taken: dict[str, list[float]], peaks: dict[str, float], of_bincount: float) -> None:
    "What is asked of the package, and whether it holds."
    for what, value, aim in (
        (f"{OURS} / {BINCOUNT}", ratio(taken, OURS, BINCOUNT), of_bincount),
        (f"{OURS} / {ONE_HOT}", ratio(taken, OURS, ONE_HOT), 100),
    ):
        print(f"  {what}: {value:.2f}, aim >= {aim:g}: {'met' if value >= aim else 'NOT met'}")
    if OURS in peaks:
        met = "met" if peaks[OURS] < MEMORY_AIM_MB else "NOT met"
        print(f"  memory beyond the masks: {peaks[OURS]:.1f} MB, aim < {MEMORY_AIM_MB} MB: {met}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2, help="how many pairs are drawn")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender")
    parser.add_argument("--quick", action="store_true", help="small masks and few rounds: to see that it runs")
    args = parser.parse_args()
    if min(args.pairs, args.rounds) < 1:
        parser.error("--pairs and --rounds must be at least 1")
    cv2.setNumThreads(1)
    shape, rounds = ((SHAPE[0] // 4, SHAPE[1] // 4), min(args.rounds, 3)) if args.quick else (SHAPE, args.rounds)
    methods = dict(METHODS)
    if find_spec("torch") is None or find_spec("torchmetrics") is None:
        print("torchmetrics is not installed (pip install torchmetrics): left out")
        del methods["torchmetrics"]
    pairs = [draw_pair(shape, seed) for seed in range(args.pairs)]
    void = 100 * np.mean([target == VOID for _, target in pairs])
    right = 100 * np.mean([SegmMetrics.from_masks(*pair, CLASSES).accuracy for pair in pairs])
    kinds = {"Plain": (False, 3), f"Void borders, width {WIDTH}, pad {PAD}": (True, 2)}
    contenders = {
        title: {name: with_borders(name, method) if borders else method for name, method in methods.items()}
        for title, (borders, _) in kinds.items()
    }
    check_refusal(methods)
    for each in contenders.values():
        check(each, pairs)
    print(
        f"{args.pairs} pairs of {shape[1]} x {shape[0]} px, {C} classes, {right:.1f} % right, {void:.1f} % void;"
        f" one thread, codes validated, {rounds} rounds",
        flush=True,
    )
    taken = {title: take_turns(each, pairs, rounds) for title, each in contenders.items()}
    for title, (borders, of_bincount) in kinds.items():
        peaks = peaks_mb(list(methods), borders, pairs[0])
        print_table(title, taken[title], peaks, shape[0] * shape[1])
        aims(taken[title], peaks, of_bincount)


if __name__ == "__main__":
    main()
