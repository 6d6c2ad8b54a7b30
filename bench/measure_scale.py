"""How often `petroscope measure-scale` reads a drawn scale bar or micrometer rightly, and refuses photos without one.

    python bench/measure_scale.py                    100 drawn scales, and as many sections without any
    python bench/measure_scale.py --photos DIR       photos without any scale, too: every one must be refused
    python bench/measure_scale.py --sheet sheet.png  a picture of what was read

Right is a length within 2 % of the drawn one. A refusal costs a minute of counting; a wrong reading costs a paper.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from petroscope.io.folders import photos_in
from petroscope.io.images import read_image, write_image
from petroscope.optics.measure_scale import MeasuredScale, measure_scale
from petroscope.synth.rock import scene
from petroscope.synth.scales import DrawnScale, draw_bar, draw_micrometer

BARS, MICROMETERS = 60, 40
KINDS = ("bar_um", "division_um")


def section(seed: int) -> np.ndarray:
    "A drawn section of a size and a grain of its own."
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(500, 1100)), int(rng.integers(700, 1600))
    return scene(shape, seed=seed, scale=float(rng.choice([0.25, 0.5, 1]))).image


def drawn(first: int, i: int) -> tuple[DrawnScale, str]:
    "The i-th scale of a set, and how it is to be read."
    if i < BARS:
        return draw_bar(section(first + i), first + i), "bar_um"
    rng = np.random.default_rng(first + i)
    return draw_micrometer((int(rng.integers(500, 1100)), int(rng.integers(700, 1600))), first + i), "division_um"


def read(image: np.ndarray, kind: str) -> MeasuredScale | str:
    "What is read in a picture, or why nothing is."
    try:
        return measure_scale(image, **{kind: 100.0})
    except ValueError as error:
        return str(error)


def thumbnail(picture: np.ndarray) -> np.ndarray:
    "A picture that fits into a cell of the sheet."
    zoom = min(480 / picture.shape[1], 480 / picture.shape[0])
    small = cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(small, 0, 480 - len(small), 0, 480 - small.shape[1], cv2.BORDER_CONSTANT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=9000, help="first seed; another one is another set")
    parser.add_argument("--photos", type=Path, action="append", default=[], help="folder of photos without any scale")
    parser.add_argument("--sheet", type=Path, help="picture of what was read")
    args = parser.parse_args()
    counted: Counter[tuple[str, str]] = Counter()
    cells = []
    for i in range(BARS + MICROMETERS):
        scale, kind = drawn(args.first, i)
        found = read(scale.image, kind)
        if isinstance(found, str):
            what = "refused"
        else:
            what = "right" if abs(found.length_px / scale.length_px - 1) <= 0.02 else "WRONG"
        counted[scale.style, what] += 1
        counted["all", what] += 1
        if what != "right":
            said = found if isinstance(found, str) else f"{found.length_px:.2f} px"
            print(f"{i}: {scale.style}, {scale.length_px:.2f} px: {what}: {said}", flush=True)
        cells.append(thumbnail(scale.image if isinstance(found, str) else found.picture()) if args.sheet else None)
    for (style, what), count in sorted(counted.items()):
        print(f"{style:12} {what:8} {count}")
    bare = [(f"section {args.first + i}", lambda i=i: section(args.first + i)) for i in range(BARS)]
    bare += [(str(path), lambda path=path: read_image(path)) for folder in args.photos for path in photos_in([folder])]
    misread = 0
    for name, load in bare:
        image = load()
        for kind in KINDS:
            found = read(image, kind)
            if not isinstance(found, str):
                misread += 1
                print(f"{name}: WRONG, {kind} {found.length_px:.2f} px", flush=True)
    print(f"{len(bare)} photos without any scale, read for a bar and for a micrometer: {misread} misread")
    if args.sheet:
        write_image(args.sheet, np.vstack([np.hstack(cells[k : k + 5]) for k in range(0, len(cells), 5)]))


if __name__ == "__main__":
    main()
