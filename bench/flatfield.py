"""The flat field of a training set found without its masks, beside that found with them, and what it does to a model.

    python bench/flatfield.py [ROOT] [--out DIR] [--split train] [--weights s1v1 --scale 0.5 --photos 12]

With masks every class of every photo is one brightness, seen through a gain and a glare (polynomials of degree 4):
least squares. Without masks it is `FlatField.from_fields`, whose kinds of colours take the place of the classes. Glares
are compared without what is a multiple of the gain, which photos of sections cannot tell. An estimate is sure where
those of two halves of the photos differ by less than 2 %, so that their mean is known to 1 %. `--out` takes the map of
the ratio as a picture. With `--weights` a model is scored on the photos as they are, with the gain alone, and with gain
and glare; the differences come with intervals of a bootstrap over photos. Where ROOT is absent, nothing is done.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.polynomial.legendre import legvander

from petroscope.io.images import read_image
from petroscope.optics.flatfield import FlatField
from petroscope.optics.flatfield_map import plot_flatfield
from petroscope.segmentation.dataset import LumenStone, Sample
from petroscope.segmentation.metrics import SegmMetrics, confusion_matrix
from petroscope.view.plot import new_figure

DATA = Path(os.environ.get("PETROSCOPE_DATA", Path(__file__).parents[2] / "shared" / "data"))
GRID = 90, 120  # Places at which estimates are compared
CELL = 12  # Side of a cell, px
HELD_OUT = "02 03 12 13 22 28 33 35 41 44 53 57".split()  # Photos of S1_v1 held out by the training of s1v1


class Photos(Sequence[np.ndarray]):
    "Photos that are read when they are asked for."

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = list(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> np.ndarray:  # type: ignore[override]
        return read_image(self.samples[i].image)  # type: ignore[arg-type]


def terms(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    "Products of Legendre polynomials up to degree 4 at places within -1..1, `(..., 15)`."
    down, across = legvander(y, 4), legvander(x, 4)
    return np.stack([down[..., i] * across[..., j] for i in range(5) for j in range(5 - i)], axis=-1)


def pure_cells(samples: Sequence[Sample], classes) -> Iterator[tuple[np.ndarray, ...]]:
    "For each photo: mean colours of cells of one class, class, row and column within -1..1."
    for sample in samples:
        image, mask = sample.read(classes)
        rows, cols = mask.shape[0] // CELL, mask.shape[1] // CELL
        blocks = mask[: rows * CELL, : cols * CELL].reshape(rows, CELL, cols, CELL)
        part = image[: rows * CELL, : cols * CELL]
        size = cols, rows
        mean = cv2.resize(part.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        most = part.reshape(rows, CELL, cols, CELL, 3).max(axis=(1, 3, 4))
        good = (blocks.min(axis=(1, 3)) == blocks.max(axis=(1, 3))) & (most < 250)
        y, x = np.meshgrid(*(2 * (np.arange(n) + 0.5) / n - 1 for n in (rows, cols)), indexing="ij")
        yield mean[good], blocks[:, 0, :, 0][good], y[good], x[good]


def with_masks(level: np.ndarray, kind: np.ndarray, photo: np.ndarray, basis: np.ndarray) -> tuple:
    "Coefficients of gain and glare for one channel, by alternating robust least squares."
    _, group = np.unique(photo * 256 + kind, return_inverse=True)
    count, weight = group.max() + 1, np.ones(len(level))
    gain, glare = np.eye(15)[0], np.zeros(15)
    for _ in range(40):
        v, s = basis @ gain, basis @ glare
        bright = np.bincount(group, weight * v * (level - s), count) / np.maximum(
            np.bincount(group, weight * v * v, count), 1e-9
        )
        rest = level - bright[group] * v - s
        spread = np.ones(256)
        for k in np.unique(kind):
            spread[k] = max(1.0, 1.48 * float(np.median(np.abs(rest[kind == k]))))
        weight = 1 / (1 + (rest / (2 * spread[kind])) ** 2) ** 2 / spread[kind] ** 2
        design = np.concatenate([basis * bright[group][:, None], basis], axis=1)
        heavy = design * weight[:, None]
        matrix = heavy.T @ design
        found = np.linalg.solve(matrix + 1e-6 * np.trace(matrix) / 30 * np.eye(30), heavy.T @ level)
        gain, glare = found[:15] / found[0], found[15:]
    return gain, glare


def planes_with_masks(samples: Sequence[Sample], classes) -> tuple[np.ndarray, np.ndarray]:
    "Gain and glare on the grid, `(90, 120, 3)`."
    cells = list(pure_cells(samples, classes))
    photo = np.concatenate([np.full(len(part[1]), i) for i, part in enumerate(cells)])
    color, kind, y, x = (np.concatenate(parts) for parts in zip(*cells, strict=True))
    basis = terms(y, x)
    at = terms(*np.meshgrid(*(2 * (np.arange(n) + 0.5) / n - 1 for n in GRID), indexing="ij"))
    made = [with_masks(color[:, c].astype(float), kind.astype(int), photo, basis) for c in range(3)]
    gain, glare = (np.stack([at @ pair[i] for pair in made], axis=-1) for i in (0, 1))
    return gain / gain.mean(axis=(0, 1)), glare


def planes_without(samples: Sequence[Sample]) -> tuple[FlatField, np.ndarray, np.ndarray]:
    flat = FlatField.from_fields(Photos(samples))
    small = flat.resized(GRID)
    return flat, small.gain, np.zeros_like(small.gain) if small.glare is None else small.glare


def rest_of(glare: np.ndarray, gain: np.ndarray) -> np.ndarray:
    "What of a glare is no multiple of the gain."
    return glare - (glare * gain).sum(axis=(0, 1)) / (gain * gain).sum(axis=(0, 1)) * gain


def table(plane: np.ndarray, form: str) -> str:
    "Means of 4 x 6 parts of a plane."
    parts = cv2.resize(plane.mean(axis=2), (6, 4), interpolation=cv2.INTER_AREA)
    return "\n".join("   " + " ".join(f"{value:{form}}" for value in line) for line in parts)


def compare(dataset: LumenStone, out: Path | None) -> FlatField:
    "Print how the two estimates differ, and draw the map of their ratio."
    samples, classes = list(dataset), dataset.classes
    halves = samples[::2], samples[1::2]
    gain_m, glare_m = planes_with_masks(samples, classes)
    flat, gain_f, glare_f = planes_without(samples)
    print(flat)
    for name, gain, glare in (("with masks", gain_m, glare_m), ("without", gain_f, glare_f)):
        print(f"{name}: gain, and what of the glare is no multiple of it, levels")
        print(table(gain / gain.max(axis=(0, 1)), "5.3f") + "\n\n" + table(rest_of(glare, gain), "5.1f"))
    doubts = []
    for estimate in (lambda part: planes_with_masks(part, classes)[0], lambda part: planes_without(part)[1]):
        one, other = (estimate(part) for part in halves)
        doubts.append(np.abs(one - other) / 2)
    sure = np.maximum(*doubts) < 0.01
    off = np.abs(gain_f / gain_m - 1)
    print(
        f"gain without masks / with masks: rms {np.sqrt((off**2).mean()):.4f}, most {off.max():.4f}, "
        f"within 2 % on {100 * (off < 0.02).mean():.1f} % of the frame and channels"
    )
    print(
        f"where both are sure ({100 * sure.mean():.0f} %): most {off[sure].max():.4f}, "
        f"within 2 % on {100 * (off[sure] < 0.02).mean():.1f} %"
    )
    apart = rest_of(glare_f, gain_f) - rest_of(glare_m, gain_m)
    print(f"glares differ by {apart.std():.2f} levels (rms), of {rest_of(glare_m, gain_m).std():.2f}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        figure = new_figure(9, 2.6)
        axes = figure.subplots(1, 3)
        for axis, c in zip(axes, range(3), strict=True):
            drawn = axis.imshow(100 * (gain_f / gain_m)[..., c] - 100, cmap="PuOr", vmin=-4, vmax=4)
            axis.contour(100 * (gain_f / gain_m)[..., c] - 100, [-2, 2], colors="black", linewidths=0.8)
            axis.set_title(("red", "green", "blue")[c], fontsize=10)
            axis.axis("off")
        figure.colorbar(drawn, ax=list(axes), label="ratio - 1, %")
        figure.savefig(out / "ratio.png", dpi=120)
        plot_flatfield(flat, dataset.root.name).savefig(out / "flatfield.png", dpi=110)
        print(f"{out / 'ratio.png'}, {out / 'flatfield.png'}")
    return flat


def effect(dataset: LumenStone, flat: FlatField, weights: str, scale: float, photos: int) -> None:
    "Print what the flat field does to a model, class by class."
    from petroscope.segmentation.resunet import ResUnet
    from petroscope.segmentation.weights import weights_file

    model = ResUnet.load(weights_file(weights))
    held = [sample for sample in dataset if sample.name[-2:] in HELD_OUT]
    seen = [sample for sample in dataset if sample not in held]
    sets = {"held out of the training, but looked at for choosing": held, "trained on": seen}
    ways = {"none": "none", "gain alone": replace(flat, glare=None), "gain and glare": flat}
    counts: dict[str, list[np.ndarray]] = {}
    for what, samples in sets.items():
        for sample in samples[:photos]:
            image, mask = sample.read(model.classes)
            for name, way in ways.items():
                pred = model.predict_image(image, scale, flatfield=way)
                counts.setdefault(f"{what}: {name}", []).append(confusion_matrix(pred, mask, model.classes))
    pooled = {what: f"both: {what.split(': ')[1]}" for what in counts}
    for what in list(counts):
        counts.setdefault(pooled[what], []).extend(counts[what])
    rng = np.random.default_rng(0)
    print(f"\n{weights} at scale {scale:g}, IoU of " + " ".join(model.classes.labels) + ", mean; difference, 95 %")
    for what, matrices in counts.items():
        metrics = SegmMetrics(model.classes, np.sum(matrices, axis=0), len(matrices))
        plain = counts[what.split(": ")[0] + ": none"]
        draws = rng.integers(0, len(matrices), (500, len(matrices)))
        change = [mean_iou(np.array(matrices)[d], model.classes) - mean_iou(np.array(plain)[d], model.classes)
                  for d in draws]  # fmt: skip
        low, high = np.percentile(change, [2.5, 97.5])
        ious = " ".join(f"{iou:.4f}" for iou in metrics.iou.values())
        print(f"{what} ({len(matrices)}): {ious}, {metrics.mean_iou:.4f}; {low:+.4f} to {high:+.4f}")


def mean_iou(matrices: np.ndarray, classes) -> float:
    return SegmMetrics(classes, matrices.sum(axis=0), len(matrices)).mean_iou


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=DATA / "LumenStone_x05" / "S1_v1", metavar="ROOT")
    parser.add_argument("--split", default="train")
    parser.add_argument("--classes", default="S1v1")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for pictures")
    parser.add_argument("--weights", help="score these, such as s1v1")
    parser.add_argument("--scale", type=float, default=0.5, help="of the photos (default: 0.5)")
    parser.add_argument("--photos", type=int, default=12, help="of each set to score on (default: 12)")
    args = parser.parse_args()
    if not args.root.is_dir():
        print(f"{args.root}: not here, so nothing is measured (set PETROSCOPE_DATA, or name ROOT)")
        return
    dataset = LumenStone(args.root, args.classes, args.split)
    flat = compare(dataset, args.out)
    if args.weights:
        effect(dataset, flat, args.weights, args.scale, args.photos)


if __name__ == "__main__":
    main()
