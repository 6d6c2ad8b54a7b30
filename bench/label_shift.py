"""What the label-shift correction does to minerals that are rare in a photo.

    python bench/label_shift.py ROOT [--weights s1v1] [--split train] [--scale 0.5] [--photos] [--all-photos]

The network answers once for each photo of a LumenStone-like dataset; the answers are then corrected with each strength
and presence threshold, without and with the floor that sure pixels give (`petroscope.segmentation.label_shift`).
    Without
`--all-photos` only photos are used that the shipped weights were not trained on: those of
`LumenStone.hold_out(0.2, seed=0)`. Pixels are those at the model's scale. A mineral is rare in a photo of which it
covers less than 1 %, lost where less than a tenth of it is found, and false where the photo holds none. `--photos`
prints a line for each rare mineral of each photo.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from petroscope.segmentation.classes import LumenStoneClasses
from petroscope.segmentation.dataset import LumenStone, Sample
from petroscope.segmentation.label_shift import corrected_bands, shift_factors
from petroscope.segmentation.metrics import SegmMetrics
from petroscope.segmentation.model import GeoSegmModel
from petroscope.segmentation.resunet import ResUnet
from petroscope.segmentation.tiling import most_probable, resample, shape_at_scale

RARE = 0.01
"Share of a photo below which a mineral is rare in it."


HEADS = ["correction", "mean IoU", "recall of rare minerals", "mean of each", "precision", "lost",
         "false area a photo", "false on > 0.01 %, > 0.1 %"]  # fmt: skip


class Way(NamedTuple):
    "A way to correct."

    strength: float
    presence: float
    floor: bool

    def __str__(self) -> str:
        if not self.strength:
            return "none"
        return f"{self.strength:g}, presence {self.presence:g}{', floor' if self.floor else ''}"


def answers(model: GeoSegmModel, samples: list[Sample], scale: float) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    "Name, probabilities `(C, h, w)` and true codes `(h, w)` of each photo, at the model's scale."
    for sample in tqdm(samples, unit="photo", leave=False):
        image, mask = sample.read()
        small = resample(image, shape_at_scale(image.shape, model.scale / scale))
        bands = [band.raw for band in model.predict_bands(small, model.scale, label_shift=0)]
        sides = zip(small.shape[:2], mask.shape, strict=True)
        rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in sides)
        yield sample.name, np.concatenate(bands, axis=1), mask[rows][:, columns]


def answer(model: GeoSegmModel, probs: np.ndarray, way: Way) -> np.ndarray:
    "Class codes `(h, w)` of probabilities, corrected in a way."
    if not way.strength:
        return model.classes.to_code(most_probable(probs)[0])
    assert model.prior is not None
    sample = np.maximum(probs[:, ::4, ::4].reshape(len(probs), -1), 1e-5).astype(np.float64)
    factors = shift_factors(sample, model.prior, way.strength, way.presence)
    if not way.floor:
        return model.classes.to_code(most_probable(np.maximum(probs, 1e-5) * factors[:, None, None])[0])
    bands = corrected_bands(iter([(0, probs)]), factors, model.prior, way.strength, model.temperature)
    return np.concatenate([model.classes.to_code(most_probable(band)[0]) for _, band in bands])


def summary(found: list[SegmMetrics]) -> str:
    "Cells of the table: mean IoU, recall and precision of rare minerals, those that are lost, and what is false."
    matrices = np.stack([m.confusion for m in found])[:, :, : len(found[0].classes)]
    true, predicted, hit = matrices.sum(2)[:, 1:], matrices.sum(1)[:, 1:], np.einsum("ikk->ik", matrices)[:, 1:]
    total = matrices.sum((1, 2))[:, None]
    rare, absent = (true > 0) & (true < RARE * total), true == 0
    each = hit[rare] / true[rare]
    false = np.where(absent, predicted, 0) / total
    cells = [f"{sum(found).mean_iou:.4f}", f"{hit[rare].sum() / true[rare].sum():.3f}", f"{each.mean():.3f}"]
    cells += [f"{hit[rare].sum() / max(predicted[rare].sum(), 1):.3f}", f"{(each < 0.1).sum()} of {rare.sum()}"]
    many = f"{(false > 1e-4).sum()}, {(false > 1e-3).sum()} of {absent.sum()}"
    cells += [f"{100 * false.sum() / len(found):.2f} %", many]
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", metavar="ROOT")
    parser.add_argument("--weights", default="s1v1")
    parser.add_argument("--classes", help="S1v1 or S2v1 (default: those of the weights)")
    parser.add_argument("--split", default="train")
    parser.add_argument("--scale", type=float, default=0.5, help="of the photos (default: 0.5)")
    parser.add_argument("--all-photos", action="store_true", help="those of the training too")
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.15, 0.3, 0.5, 1.0])
    parser.add_argument("--presences", type=float, nargs="+", default=[0.0, 0.5, 0.65])
    parser.add_argument("--photos", action="store_true", help="print each rare mineral of each photo")
    args = parser.parse_args()
    model = ResUnet.pretrained(args.weights)
    if args.classes:
        model = model.with_classes(LumenStoneClasses.by_name(args.classes))
    data = LumenStone(args.root, model.classes, args.split)
    samples = data.samples if args.all_photos else data.hold_out(0.2, seed=0)[1]
    ways = [Way(0, 0, False)]
    ways += [Way(s, p, floor) for floor in (False, True) for s in args.strengths for p in args.presences]
    found: dict[Way, list[SegmMetrics]] = {way: [] for way in ways}
    names = []
    for name, probs, mask in answers(model, samples, args.scale):
        names.append(name)
        for way in ways:
            found[way].append(SegmMetrics.from_masks(answer(model, probs, way), mask, model.classes))
    print(f"{args.weights}, {len(names)} photos: {', '.join(names)}\n")
    print(f"| {' | '.join(HEADS)} |\n|{' --- |' * len(HEADS)}")
    for way in ways:
        print(f"| {way} | {summary(found[way])} |")
    if args.photos:
        told(model, names, found)


def told(model: GeoSegmModel, names: list[str], found: dict[Way, list[SegmMetrics]]) -> None:
    "Print the rare minerals of each photo: without a correction, with the model's, with the model's without the floor."
    mine = [Way(0, 0, False), *(Way(model.adaptation, model.presence, floor) for floor in (False, True))]
    print(f"\n| photo | mineral | true px | {' | '.join(f'{way}: px, IoU' for way in mine)} |")
    print("| --- | --- | --- | --- | --- | --- |")
    for i, name in enumerate(names):
        matrices = [found[way][i].confusion for way in mine]
        true = matrices[0].sum(1)
        for k in range(1, len(true)):
            if 0 < true[k] < RARE * true.sum():
                cells = [f"{m[:, k].sum():,}, {m[k, k] / (true[k] + m[:, k].sum() - m[k, k]):.2f}" for m in matrices]
                print(f"| {name} | {model.classes.labels[k]} | {true[k]:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
