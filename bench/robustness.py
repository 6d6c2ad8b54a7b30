"""What other light, blur and compression cost a model, as loss of mean IoU.

    python bench/robustness.py [--sections 6] [--root ROOT --split test --scale 0.5] [--weights FILE] [--light LIGHT]

Drawn sections, and the photos of a LumenStone-like dataset if ROOT is given, are segmented as they are and after nine
changes: white balance shifted towards warm and cold, exposure 30 % more and less, blurred by 1 and 2 px (standard
deviation, at LumenStone's half size), compressed as JPEG of quality 40, and two at once. Areas are pooled over the
pictures. Beside the model as it is stands the same with a normalisation of light (`--light`), so that one sees what it
brings and what it costs where nothing was wrong. The aim is a loss below 0.05 for each change.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import cv2
import numpy as np

from petroscope.segmentation.dataset import LumenStone, samples_of
from petroscope.segmentation.illumination import WHITE_BALANCES, apply_gains
from petroscope.segmentation.metrics import SegmMetrics
from petroscope.segmentation.resunet import ResUnet
from petroscope.synth.rock import scene

AIM = 0.05
Change = Callable[[np.ndarray], np.ndarray]


def gain(*factors: float) -> Change:
    "Each channel multiplied."
    return lambda image: apply_gains(image, np.array(factors))


def blur(sigma: float) -> Change:
    return lambda image: cv2.GaussianBlur(image, (0, 0), sigma)


def jpeg(quality: int) -> Change:
    "Compressed and read again."

    def change(image: np.ndarray) -> np.ndarray:
        _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])

    return change


CHANGES: dict[str, Change] = {
    "as it is": lambda image: image,
    "white balance: warm (R +15 %, B -15 %)": gain(1.15, 1.0, 0.85),
    "white balance: cold (R -15 %, B +15 %)": gain(0.85, 1.0, 1.15),
    "white balance: green +10 %": gain(1.0, 1.1, 1.0),
    "exposure +30 %": gain(1.3, 1.3, 1.3),
    "exposure -30 %": gain(0.7, 0.7, 0.7),
    "blur 1 px": blur(1.0),
    "blur 2 px": blur(2.0),
    "JPEG 40": jpeg(40),
    "warm, exposure -30 %": gain(0.8, 0.7, 0.6),
}


def mean_iou(model: ResUnet, pairs: Iterable[Any], scale: float, change: Change, **options: Any) -> float:
    "Over all pictures, their areas pooled."
    total = SegmMetrics(model.classes)
    for sample in samples_of(pairs):
        image, mask = sample.read(model.classes)
        total += SegmMetrics.from_masks(model.predict_image(change(image), scale, **options), mask, model.classes)
    return total.mean_iou


def table(name: str, model: ResUnet, pairs: Iterable[Any], scale: float, balances: list[Any]) -> None:
    "Loss of mean IoU for each change, without and with a white balance."
    print(f"\n{name}\n{'change':<42}" + "".join(f"{balance or 'none':>26}" for balance in balances))
    first: dict[Any, float] = {}
    for what, change in CHANGES.items():
        cells = []
        for balance in balances:
            iou = mean_iou(model, pairs, scale, change, white_balance=balance)
            loss = first.setdefault(None, iou) - iou  # against the photo as it is, without a normalisation
            cells.append(f"{iou:.4f}  loss {loss:+.4f}{' ' if loss < AIM else '!'}")
        print(f"{what:<42}" + "".join(f"{cell:>26}" for cell in cells), flush=True)


def main() -> int:
    read = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    read.add_argument("--sections", type=int, default=6, help="drawn sections")
    read.add_argument("--root", help="dataset: ROOT/imgs/SPLIT, ROOT/masks/SPLIT")
    read.add_argument("--split", default="test")
    read.add_argument("--scale", type=float, default=0.5, help="scale of the photos under ROOT")
    read.add_argument("--weights", help="a .safetensors (default: the weights of the package)")
    read.add_argument(
        "--white-balance", choices=WHITE_BALANCES, action="append", help="way to compare; may be repeated"
    )
    args = read.parse_args()
    model = ResUnet.load(args.weights) if args.weights else ResUnet.pretrained()
    balances = [None, *(args.white_balance or ["grey-world"])]
    if args.sections:
        drawn = [scene(minerals=model.classes.labels, seed=20_000 + i, scale=0.5) for i in range(args.sections)]
        table(f"{args.sections} drawn sections", model, drawn, 0.5, balances)
    if args.root:
        pairs = LumenStone(args.root, model.classes, args.split)
        table(f"{len(pairs)} photos of {args.split}", model, pairs, args.scale, balances)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
