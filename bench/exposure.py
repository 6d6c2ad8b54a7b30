"""What another exposure or colour of the light costs a model, and what white balances bring back, as mean IoU.

    python bench/exposure.py ROOT [--split train] [--scale 0.5] [--photos 12] [--weights FILE] [--ways none ...]

Photos of a LumenStone-like dataset are segmented as they are, with exposure 30 % more and less, and with red and blue
changed by 8 % against each other. Ways to meet it: the white balances by name; `reference`, a photo of silicon carbide
as LumenStone's camera would show it, under the changed light, measured as `petroscope calibrate --reference` does;
`patch`, the mineral of the photo itself that covers most (by its mask), which takes away the photo's own exposure too.
Areas are pooled over the photos; a loss is against the photos as they are, without a white balance. The weights of the
package have seen the photos of `train`: there the losses count, not the scores. Aim: a loss of .03 at most.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from petroscope.optics.reference import Reference, measure_reference
from petroscope.optics.reflectance import reflectance
from petroscope.segmentation.dataset import LumenStone
from petroscope.segmentation.illumination import (
    LUMENSTONE_MEAN,
    MINERAL_COLORS,
    WHITE_BALANCES,
    apply_gains,
    training_color,
)
from petroscope.segmentation.metrics import SegmMetrics
from petroscope.segmentation.model import GeoSegmModel
from petroscope.segmentation.resunet import ResUnet

AIM = 0.03
CHANGES = {
    "as it is": (1.0, 1.0, 1.0),
    "exposure +30 %": (1.3, 1.3, 1.3),
    "exposure -30 %": (0.7, 0.7, 0.7),
    "red +8 %, blue -8 %": (1.08, 1.0, 0.92),
    "red -8 %, blue +8 %": (0.92, 1.0, 1.08),
}


def standard(gains: np.ndarray) -> Reference:
    "Measure a photo of silicon carbide under the changed light."
    known = reflectance("silicon carbide")
    color = training_color(Reference(known.name, known.percent, (1, 1, 1), ""), LUMENSTONE_MEAN)
    return measure_reference(apply_gains(np.full((64, 64, 3), np.round(color), np.uint8), gains), known)


def patch(model: GeoSegmModel, image: np.ndarray, mask: np.ndarray) -> Any:
    "Return the colour of the photo's commonest mineral, and the one that it has in LumenStone's photos."
    names = {mineral.code: mineral.name.replace("-", "/").split("/")[0] for mineral in model.classes}
    codes, counts = np.unique(mask, return_counts=True)
    known = [(n, code) for code, n in zip(codes, counts, strict=True) if names.get(code) in MINERAL_COLORS]
    if not known:
        return None
    code = max(known)[1]
    return np.median(image[mask == code], axis=0), MINERAL_COLORS[names[code]]


def main() -> int:
    read = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    read.add_argument("root", help="dataset: ROOT/imgs/SPLIT, ROOT/masks/SPLIT")
    read.add_argument("--split", default="train")
    read.add_argument("--scale", type=float, default=0.5, help="scale of the photos")
    read.add_argument("--photos", type=int, default=12, help="so many, spread over the set")
    read.add_argument("--weights", help="a .safetensors (default: the weights of the package)")
    ways = (*WHITE_BALANCES, "reference", "patch")
    read.add_argument("--ways", nargs="+", choices=ways, default=ways)
    args = read.parse_args()
    model = ResUnet.load(args.weights) if args.weights else ResUnet.pretrained()
    photos = LumenStone(args.root, model.classes, args.split)
    chosen = np.unique(np.linspace(0, len(photos) - 1, args.photos).round().astype(int))
    print(f"{len(chosen)} photos of {args.split}\n{'':22}" + "".join(f"{way:>22}" for way in args.ways))
    first = None
    for name, gains in CHANGES.items():
        totals = {way: SegmMetrics(model.classes) for way in args.ways}
        for i in chosen:
            image, mask = photos[int(i)].read(model.classes)
            changed = apply_gains(image, np.array(gains))
            for way in args.ways:
                how: Any = way
                if way == "reference":
                    how = standard(np.array(gains))
                elif way == "patch":
                    how = patch(model, changed, mask)
                found = model.predict_image(changed, args.scale, white_balance=how)
                totals[way] += SegmMetrics.from_masks(found, mask, model.classes)
        figures = [total.mean_iou for total in totals.values()]
        first = figures[0] if first is None else first
        cells = [f"{iou:.4f} loss {first - iou:+.4f}{'!' if first - iou > AIM else ' '}" for iou in figures]
        print(f"{name:22}" + "".join(f"{cell:>22}" for cell in cells), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
