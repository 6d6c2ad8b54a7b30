"""How fast, how lean and how even the patches of the balancer come, beside a bare crop in the same run.

    python bench/balancer.py [--real ROOT] [--pairs 20] [--quick]

The photos are drawn: 3396 x 2547 px, with galena on 0.02 % of the pixels, in a few clusters on every tenth photo.
With `--real`, how even the patches are is also measured on a LumenStone set at half size (the folder that holds
`imgs` and `masks`). Contenders take turns in rounds and the median of the rounds' ratios counts, so that a busy moment
of the machine falls on all alike; nothing fails because a machine is slow.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from petroscope.io.images import read_image, read_mask, write_image, write_mask
from petroscope.segmentation.augment import Augment
from petroscope.segmentation.balancer import SelfBalancingDataset
from petroscope.segmentation.classes import LumenStoneClasses
from petroscope.segmentation.dataset import LumenStone
from petroscope.segmentation.draws import balancing_quality
from petroscope.synth.rock import scene

SHAPE, TILES = (2547, 3396), 3
RARE, RARE_SHARE, RARE_RGB = "Gl", 0.0002, (161, 157, 150)
CLUSTERS, SPREAD_PX = 5, 30
CLASSES = LumenStoneClasses.S1v1
EARLIER = {256: 34, 512: 61}  # how many times slower than a bare crop the earlier package is, by the patch's side
GEOMETRY_AND_LIGHT = Augment.only(
    rotation_deg=30, scale=0.1, exposure_ev=0.3, white_balance=0.05, gamma=0.1, brightness=5
)
SEEDS = 5
Pairs = list[tuple[Path, Path]]


# The photos


def clusters(rng: np.random.Generator, pixels: int) -> np.ndarray:
    "A few clusters of blebs, as a mask of about `pixels` px."
    out = np.zeros(SHAPE, np.uint8)
    middles = [rng.uniform(300, np.array(SHAPE) - 300) for _ in range(CLUSTERS)]
    while (count := cv2.countNonZero(out)) < pixels:
        radius = min(int(rng.integers(4, 14)), max(1, int(((pixels - count) / np.pi) ** 0.5)))
        row, col = middles[int(rng.integers(CLUSTERS))] + rng.normal(0, SPREAD_PX, 2)
        cv2.circle(out, (int(col), int(row)), radius, 1, -1)
    return out > 0


def draw_pairs(folder: Path, count: int) -> Pairs:
    "Write photos and masks: small scenes, mirrored side by side, flipped and shifted."
    labels = [label for label in CLASSES.labels if label != RARE]
    pairs, holding = [], max(1, count // 10)
    for i in range(count):
        rng = np.random.default_rng([3, i])
        image, mask = scene((SHAPE[0] // TILES, SHAPE[1] // TILES), labels, seed=i)
        shift = tuple(int(rng.integers(n)) for n in SHAPE)
        image, mask = (np.roll(_mirrored(part)[:: 1 - 2 * (i % 2)], shift, (0, 1)) for part in (image, mask))
        if i < holding:
            at = clusters(rng, round(RARE_SHARE * count * mask.size / holding))
            image[at], mask[at] = RARE_RGB, CLASSES[RARE].code
        pairs.append((folder / f"{i:03}.jpg", folder / f"{i:03}.png"))
        write_image(pairs[-1][0], image)
        write_mask(pairs[-1][1], mask)
    return pairs


def _mirrored(part: np.ndarray) -> np.ndarray:
    row = np.concatenate([part[:, :: 1 - 2 * (i % 2)] for i in range(TILES)], axis=1)
    return np.concatenate([row[:: 1 - 2 * (i % 2)] for i in range(TILES)])


# Tables, rounds and processes of their own


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    "Print a table; texts stand left, numbers right."
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for row in cells:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(["  " + first.strip().ljust(widths[0]), *rest]).rstrip(), flush=True)


def verdict(value: float, aim: float, least: bool = True) -> str:
    "An aim, and whether it is met."
    met = value >= aim if least else value <= aim
    return f"{'>=' if least else '<='} {aim:g} {'met' if met else 'NOT met'}"


def take_turns(contenders: dict[str, Iterator[Any]], patches: int, rounds: int) -> dict[str, list[float]]:
    "CPU seconds for each patch, by contender and round."
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    warm = rounds // 3
    for turn in range(-warm, rounds):  # the first rounds touch the pages that are mapped
        for name, source in contenders.items():
            start = time.process_time()  # so that other processes' shares of the cores do not count
            for _ in islice(source, patches):
                pass
            if turn >= 0:
                taken[name].append((time.process_time() - start) / patches)
    return taken


def ratio(taken: dict[str, list[float]], name: str, reference: str) -> float:
    "How many times as fast as the reference, the median of the rounds."
    return statistics.median(r / t for r, t in zip(taken[reference], taken[name], strict=True))


def per_second(taken: dict[str, list[float]], name: str) -> str:
    return f"{1 / statistics.median(taken[name]):,.0f}"


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    "What a function returns in a fresh process."
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def dataset(pairs: Any, patch_size: int = 256, **options: Any) -> SelfBalancingDataset:
    return SelfBalancingDataset(pairs, CLASSES, patch_size, **options)


# A. Throughput of plain patches


def crops(photos: Sequence[Any], size: int, at: Sequence[tuple[int, int, int]]) -> Iterator[tuple]:
    "Bare crops at positions that were drawn beforehand."
    pictures = [(photo.image, photo.mask) for photo in photos]
    for i, y, x in at:
        image, mask = pictures[i]
        yield image[y : y + size, x : x + size].copy(), mask[y : y + size, x : x + size].copy()


def plain(pairs: Pairs, cache: Path, patches: int, rounds: int) -> None:
    rows = []
    for size in EARLIER:
        memory, stored = dataset(pairs, size), dataset(pairs, size, cache_dir=cache)
        count = (rounds + rounds // 3) * patches
        # Another seed than the samplers', and never the same twice, so that no patch lies in the processor's cache.
        anywhere = [draw[1:4] for draw in islice(dataset(pairs, size, cache_dir=cache, seed=1).draws(0, False), count)]
        chosen = [draw[1:4] for draw in islice(memory.draws(), count)]
        taken = take_turns({
            "bare random crop": crops(memory.photos, size, anywhere),
            "bare crop of the balanced windows": crops(memory.photos, size, chosen),
            "uniform(), memory": memory.uniform(),
            "uniform(), store on disk": stored.uniform(),
            "balanced(), memory": memory.balanced(),
            "balanced(), store on disk": stored.balanced(),
        }, patches, rounds)  # fmt: skip
        for name in taken:
            of_crop = ratio(taken, name, "bare random crop")
            of_earlier = of_crop * EARLIER[size]
            aims = (verdict(of_crop, 0.5), verdict(of_earlier, 20)) if "(" in name else ("", "")
            rows.append((name, size, per_second(taken, name), f"{of_crop:.2f}", aims[0], f"{of_earlier:.0f}", aims[1]))
        del memory, stored, taken
        gc.collect()
    header = "sampler", "px", "patches/s of CPU", "of the crop", "aim", "times the earlier package", "aim"
    table("A. Patches as they are, one thread", header, rows)


# B. Throughput with augmentation


def bare_changes(data: SelfBalancingDataset, patches: int) -> Iterator[None]:
    "OpenCV's calls alone for the same changes: interpolate photo and mask, look up the light."
    size, work = data.patch_size, []
    lut = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    for draw in islice(data.draws(), patches):
        photo, window = data.photos[draw.photo], draw.change.window(size) + 2
        top, left = (max(0, min(a, n - window)) for a, n in zip(draw[2:4], photo.mask.shape, strict=True))
        matrix = cv2.getRotationMatrix2D((window / 2, window / 2), draw.change.angle_deg, draw.change.zoom)
        matrix[:, 2] += (window - size) / 2
        part = np.s_[top : top + window, left : left + window]
        work.append((photo.image[part], photo.mask[part], matrix))
    linear, nearest = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR, cv2.WARP_INVERSE_MAP | cv2.INTER_NEAREST
    while True:
        for image, mask, matrix in work:  # four channels, as OpenCV is slower with three
            four = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
            four = cv2.warpAffine(four, matrix, (size, size), flags=linear, borderMode=cv2.BORDER_REPLICATE)
            cv2.LUT(cv2.cvtColor(four, cv2.COLOR_RGBA2RGB), lut)
            cv2.warpAffine(mask, matrix, (size, size), flags=nearest, borderMode=cv2.BORDER_REPLICATE)
            yield None


def augmented(pairs: Pairs, cache: Path, patches: int, rounds: int) -> None:
    data = {
        "none": dataset(pairs, cache_dir=cache),
        "rotation, scale, light": dataset(pairs, cache_dir=cache, augment=GEOMETRY_AND_LIGHT),
        "all of Augment()": dataset(pairs, cache_dir=cache, augment=Augment()),
        "all, and JPEG from 60": dataset(pairs, cache_dir=cache, augment=Augment(jpeg_quality=60)),
    }
    limit = "OpenCV's calls alone: warpAffine, LUT"
    contenders: dict[str, Iterator] = {limit: bare_changes(data["rotation, scale, light"], patches)}
    taken = take_turns({**contenders, **{name: each.balanced() for name, each in data.items()}}, patches, rounds)
    rows = []
    for name in taken:
        speed = 1 / statistics.median(taken[name])
        aim = verdict(speed, 1000) if name == "rotation, scale, light" else ""
        rows.append((name, f"{speed:,.0f}", aim, f"{ratio(taken, name, limit):.2f}"))
    header = "augmentation", "patches/s of CPU", "aim", "of OpenCV's calls"
    table("B. Balanced patches of 256 px with augmentation, one thread, store on disk", header, rows)


# C. Set-up


def _cpu() -> float:
    "CPU seconds of this process with its threads, and of its children."
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def set_up_cpu(pairs: Pairs, cache: Path | None, read_only: bool = False) -> tuple[float, float]:
    "CPU and wall-clock seconds of a set-up, or of reading the files."
    read_image(pairs[0][0]), read_mask(pairs[0][1])  # what is imported late does not count
    used, start = _cpu(), time.perf_counter()
    if read_only:
        for image, mask in pairs:
            read_image(image), read_mask(mask)
    else:
        kept = dataset(pairs, cache_dir=cache)
        del kept
    return _cpu() - used, time.perf_counter() - start


def set_up(pairs: Pairs, folder: Path) -> None:
    runs = {
        "reading the files, nothing else": (None, True, None),
        "cold, in memory": (None, False, 0.3),
        "cold, written to a store": (folder / "cold", False, 0.3),
        "from the store": (folder / "cold", False, 0.02),
    }
    rows, reading = [], 0.0
    for name, (cache, read_only, aim) in runs.items():
        cpu, wall = (seconds / len(pairs) for seconds in apart(set_up_cpu, pairs, cache, read_only))
        reading = reading or cpu
        met = verdict(cpu, aim, False) if aim else ""
        rows.append((name, f"{cpu:.4f}", met, f"{wall:.4f}", f"{cpu / reading:.2f}"))
    table("C. Set-up, for each photo of 8.65 Mpx", ("", "CPU s", "aim", "wall s", "CPU of reading"), rows)


# D. Memory


def _resident() -> np.ndarray:
    "MB of this process in memory: its own (RssAnon), and mapped from files (RssFile)."
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return np.array([int(lines[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile")])


def growth(pairs: Pairs, cache: Path, options: dict[str, float], patches: int) -> np.ndarray:
    "MB of growth, `(2, 2)`: after the set-up and after drawing, own and mapped."
    small = dataset(pairs[:1], cache_dir=cache)  # what the first photo and the first patch cost only once
    for _ in islice(small.balanced(), 10):
        pass
    del small
    gc.collect()
    before = _resident()
    data = dataset(pairs, cache_dir=cache, **options)
    after, seen = _resident(), 0.0
    for number, _ in enumerate(islice(data.balanced(), patches)):
        if number % 20 == 0:
            seen = max(seen, _resident()[1])
    return np.array([after, [_resident()[0], seen]]) - before


def memory(pairs: Pairs, folder: Path, patches: int) -> None:
    if not Path("/proc/self/status").exists():
        print("\nD. Memory: only measured where there is /proc/self/status")
        return
    rows = []
    for name, cache, options in (
        ("store made now", folder / "made", {}),
        ("store made before", folder / "made", {}),
        ("the same, memory_budget_gb=0.1", folder / "made", {"memory_budget_gb": 0.1}),
    ):
        (own_first, _), (own, mapped) = apart(growth, pairs, cache, options, patches)
        each = own / len(pairs)
        rows.append((name, f"{own_first:.1f}", f"{own:.1f}", f"{each:.2f}", verdict(each, 5, False), f"{mapped:.0f}"))
    header = "", "own after set-up", "own", "own per photo", "aim", "mapped, most"
    table(f"D. Growth of memory over {patches} patches from {len(pairs)} photos, MB", header, rows)


# E. The rare mineral


def holding(data: SelfBalancingDataset, patches: int, balanced: bool, only_wanted: bool = False) -> tuple[float, float]:
    "For the pixels and the patches drawn (or only those for the rare mineral), the percentages with it."
    rare, counts, with_it = CLASSES.labels.index(RARE), np.zeros(len(CLASSES)), []
    for draw in islice(data.draws(balanced=balanced), patches):
        pixels = data.photos[draw.photo].counts(draw.row, draw.col, data.patch_size)
        counts += pixels
        if not only_wanted or draw.wanted == rare:
            with_it.append(pixels[rare] > 0)
    return 100 * counts[rare] / counts.sum(), 100 * float(np.mean(with_it)) if with_it else float("nan")


def rare_mineral(pairs: Pairs, cache: Path, patches: int) -> None:
    rows = []
    for alpha in (0.5, 1.0):
        data = dataset(pairs, cache_dir=cache, patch_positioning_accuracy=alpha)
        (pixels, found), (_, all_found) = holding(data, patches, True, True), holding(data, patches, True)
        name = f"balanced, alpha {alpha:g}{' (default)' if alpha == 0.5 else ''}"
        aims = verdict(pixels, 1.5), verdict(found, 75)
        rows.append((name, f"{pixels:.2f}", aims[0], f"{found:.1f}", aims[1], f"{all_found:.1f}"))
    pixels, found = holding(data, patches, False)
    share = 100 * data.pixels[:, CLASSES.labels.index(RARE)].sum() / data.pixels.sum()
    rows.append(("uniform", f"{pixels:.3f}", "", "", "", f"{found:.2f}"))
    rows.append(("in the photos", f"{share:.3f}", "", "", "", ""))
    header = "", "% of pixels", "aim", "% of its patches", "aim", "% of all patches"
    table(f"E. A mineral of 0.02 %, {patches} patches of 256 px: pixels, and patches that hold it", header, rows)


# F. How even the patches are


def accumulators(pairs: Any, cache: Path, patches: int, **options: Any) -> np.ndarray:
    "Accumulators after so many patches, of the classes that occur, `(seeds, classes)`."
    found = []
    for seed in range(SEEDS):
        data = dataset(pairs, cache_dir=cache, seed=seed, **options)
        found.append(np.array(data.sequence(patches).accumulators)[data.present])
    return np.array(found)


def evenness(sets: dict[str, Any], cache: Path, patches: int) -> None:
    settings = [(alpha, strength, 1) for alpha in (0.5, 1.0) for strength in (0, 0.5, 0.8, 1)]
    settings += [(alpha, 0.8, candidates) for alpha in (0.5, 1.0) for candidates in (2, 4, 8)]
    rows = []
    for name, pairs in sets.items():
        for alpha, strength, candidates in settings:
            handed = accumulators(
                pairs, cache, patches,
                patch_positioning_accuracy=alpha, balancing_strength=strength, candidates=candidates,
            )  # fmt: skip
            found, least = balancing_quality(handed), handed.min(axis=1) / handed.sum(axis=1)
            middle = float(np.median(found))
            aim = verdict(middle, 0.81) if (name, alpha, strength, candidates) == ("real", 0.5, 0.8, 1) else ""
            spread = f"{found.min():.3f} .. {found.max():.3f}"
            rows.append(
                (name, alpha, strength, candidates, f"{middle:.3f}", spread, aim, f"{100 * np.median(least):.2f}")
            )
    header = "photos", "alpha", "strength", "candidates", "quality", f"of {SEEDS} seeds", "aim", "% of the rarest class"
    table(f"F. Balancing quality after {patches} patches of 256 px", header, rows)


# G. Replay


def replay(pairs: Pairs, cache: Path, patches: int, rounds: int) -> None:
    rows = []
    for name, options in (("plain", {}), ("rotation, scale, light", {"augment": GEOMETRY_AND_LIGHT})):
        data = dataset(pairs, cache_dir=cache, **options)
        taken = take_turns({"draws()": data.draws(), "balanced()": data.balanced()}, patches, rounds)
        far = []
        for i in range(min(rounds, 10)):
            start = time.process_time()
            data.item(256 * i + 255)  # states are kept every 256 draws, so this is the most expensive one
            far.append(time.process_time() - start)
        speeds, far_ms = [per_second(taken, each) for each in taken], 1e3 * statistics.median(far)
        rows.append((name, *speeds, f"{ratio(taken, 'draws()', 'balanced()'):.1f}", f"{far_ms:.1f}"))
    header = "patches", "draws/s of CPU", "patches/s of CPU", "ratio", "item(k) at the largest distance, ms"
    table("G. Replay without photos, 256 px, store on disk", header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of a LumenStone set of S1 at half size")
    parser.add_argument("--pairs", type=int, default=20, help="how many photos are drawn")
    parser.add_argument("--quick", action="store_true", help="few patches and rounds: to see that it runs")
    args = parser.parse_args()
    if args.pairs < 1:
        parser.error(f"--pairs must be at least 1, got {args.pairs}")
    sets: dict[str, Any] = {}
    if args.real is not None and not (args.real / "imgs" / "train").is_dir():
        print(f"{args.real}: no imgs/train here, so only drawn photos are measured")
    elif args.real is not None:
        sets["real"] = LumenStone(args.real, CLASSES)
    patches, rounds = (100, 6) if args.quick else (250, 30)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="petroscope-bench-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        pairs, cache = draw_pairs(root, args.pairs), root / "store"
        set_up(pairs, root)
        memory(pairs, root, 2000)
        plain(pairs, cache, patches, rounds)
        augmented(pairs, cache, patches // 5, rounds)
        replay(pairs, cache, patches // 5, rounds)
        rare_mineral(pairs, cache, 2000)
        evenness({"drawn": pairs, **sets}, cache, 2000)


if __name__ == "__main__":
    main()
