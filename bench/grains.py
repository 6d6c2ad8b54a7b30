"""How fast grains are found and measured, on one core, beside scikit-image's regionprops in the same run.

    python bench/grains.py [--rounds 3] [--megapixels 600] [--quick]

Three figures. A mask of 3396 x 2547 px with more than 20,000 grains: processor seconds for all grains, their properties
and borders. A piece of it, a ninth, through scikit-image (label, then regionprops with the same properties for every
region) and through petroscope in turn: the median of the rounds' ratios counts, and both must give the same areas,
perimeters and axes. A memory-mapped mask of 600 megapixels in a process of its own: processor seconds and the
peak of its memory, in which the pages of the mapped file that the system leaves in place are counted too; then the same
as bands read from the file, where they are not. Nothing fails because a machine is slow.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

# Libraries read these when they are imported, which is why they stand before the imports: one core for all.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import cv2
import numpy as np
from skimage.measure import label, regionprops

from petroscope.analysis.contacts import contacts, inclusions, ore_contacts
from petroscope.analysis.grains import find_grains
from petroscope.segmentation.classes import LumenStoneClasses

CLASSES = LumenStoneClasses.S1v1
SHAPE = (2547, 3396)
CELLS = 48_000  # neighbouring cells of one mineral make one grain: 25,000 are left
AIM_S, AIM_MB = 5, 2000


def cells(shape: tuple[int, int], count: int, seed: int = 0) -> np.ndarray:
    "A mask in which every pixel has the mineral of its nearest seed."
    rng = np.random.default_rng(seed)
    seeds = np.full(shape, 255, np.uint8)
    seeds[rng.integers(0, shape[0], count), rng.integers(0, shape[1], count)] = 0
    nearest = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    return np.array(CLASSES.codes, np.uint8)[rng.integers(0, len(CLASSES), count + 1)][nearest]


def ours(mask: np.ndarray) -> np.ndarray:
    "Area, perimeter and axes of all grains, sorted; Feret diameters and the rest come along."
    grains = find_grains(mask, CLASSES)
    return np.stack([grains.area_px, grains.perimeter_px, grains.major_px, grains.minor_px], 1)


def scikit_image(mask: np.ndarray) -> np.ndarray:
    "The same from regionprops, mineral by mineral as there are grains of each."
    rows = []
    for mineral in list(CLASSES)[1:]:
        for region in regionprops(label(mask == mineral.code, connectivity=2)):
            rows.append([region.area, region.perimeter_crofton, region.axis_major_length, region.axis_minor_length])
            _ = region.centroid, region.bbox, region.orientation, region.feret_diameter_max, region.solidity
    return np.array(rows)


def processor_s(work, *args) -> tuple[float, object]:
    start = time.process_time()
    result = work(*args)
    return time.process_time() - start, result


def bands(path: Path, shape: tuple[int, int], rows: int = 500) -> Iterator[tuple[int, np.ndarray]]:
    "Rows read from the file, as a mask is read that is too large for memory."
    with open(path, "rb") as file:
        for top in range(0, shape[0], rows):
            some = min(rows, shape[0] - top)
            yield top, np.fromfile(file, np.uint8, some * shape[1]).reshape(some, shape[1])


def large(path: Path, shape: tuple[int, int], mapped: bool) -> tuple[float, float, float, int, int]:
    "Seconds for the grains and for their contacts, peak memory in MB, grains, and the sum of their areas."
    mask = np.memmap(path, np.uint8, "r", shape=shape) if mapped else bands(path, shape)
    seconds, grains = processor_s(find_grains, mask, CLASSES)
    more = sum(processor_s(work, grains)[0] for work in (contacts, ore_contacts, inclusions))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return seconds, more, peak, len(grains), int(grains.area_px.sum())


def draw_large(path: Path, part: np.ndarray, megapixels: int) -> tuple[int, int]:
    "Write copies of a mask, mirrored side by side, so that grains go on across them."
    across = max(1, round((megapixels * 1e6) ** 0.5 / part.shape[1]))
    down = max(1, round(megapixels * 1e6 / across / part.size))
    with open(path, "wb") as file:
        for i in range(down):
            row = np.concatenate([part[:, :: 1 - 2 * (j % 2)] for j in range(across)], axis=1)
            row[:: 1 - 2 * (i % 2)].tofile(file)
    return down * part.shape[0], across * part.shape[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megapixels", type=int, default=600)
    parser.add_argument("--quick", action="store_true", help="one round, 60 megapixels")
    options = parser.parse_args()
    rounds, megapixels = (1, 60) if options.quick else (options.rounds, options.megapixels)
    cv2.setNumThreads(1)
    mask = cells(SHAPE, CELLS)
    find_grains(mask[:100], CLASSES)  # SciPy is loaded on first use

    seconds, measured = zip(*(processor_s(ours, mask) for _ in range(rounds)))
    print(f"{mask.size / 1e6:.2f} Mpx, {len(measured[0]):,} grains: {statistics.median(seconds):.2f} s (aim {AIM_S} s)")

    piece, ratios = mask[: SHAPE[0] // 3, : SHAPE[1] // 3].copy(), []
    for _ in range(rounds):
        (fast, found), (slow, expected) = processor_s(ours, piece), processor_s(scikit_image, piece)
        ratios.append(slow / fast)
    by_area = [table[np.lexsort(table.round(6).T)] for table in (found, expected)]
    np.testing.assert_allclose(*by_area, rtol=1e-9, atol=1e-6)
    print(
        f"{piece.size / 1e6:.2f} Mpx, {len(found):,} grains: petroscope {fast:.2f} s, regionprops {slow:.2f} s; "
        f"{statistics.median(ratios):.0f} times as fast, areas, perimeters and axes the same"
    )

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mask.raw"
        shape = draw_large(path, mask, megapixels)
        for mapped in (True, False):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                told = pool.submit(large, path, shape, mapped).result()
            size, way = shape[0] * shape[1] / 1e6, "memory-mapped" if mapped else "bands from the file"
            print(
                f"{size:.0f} Mpx ({shape[0]} x {shape[1]}), {way}: {told[3]:,} grains in {told[0]:.1f} s, contacts, "
                f"contact with ore and inclusions in {told[1]:.1f} s, peak {told[2]:.0f} MB (aim {AIM_MB} MB)"
            )


if __name__ == "__main__":
    main()
