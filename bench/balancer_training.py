"""What the balancer does for a network: the same training with patches cut uniformly and by the balancer.

    python bench/balancer_training.py ROOT [--steps 600] [--seeds 0 1] [--filters 8] [--samplings uniform balanced 4]

ROOT holds `imgs` and `masks` of a LumenStone set. A fifth of its training photos is held out (seed 0, the same in all
runs) and scored as whole photos; pixels of a class are added up over the photos. The runs of a seed begin with the same
weights and differ in nothing but where their patches are cut: `uniform`, `balanced`, or a number for the balancer with
so many candidates. What is scored is the running average of the weights after the last step, so that no run is better
for having been stopped at a lucky moment. Each run is kept in the folder `--out`, and goes on from there if it was cut
off.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from petroscope.segmentation.classes import ClassSet, LumenStoneClasses
from petroscope.segmentation.dataset import LumenStone, Sample
from petroscope.segmentation.metrics import SegmMetrics
from petroscope.segmentation.resunet import ResUnet
from petroscope.segmentation.scores import score
from petroscope.segmentation.train import train
from petroscope.segmentation.training.config import TrainConfig

SCORINGS = 3  # in a run: a run that was cut off repeats at most so much of it
DEFAULT, KEPT, PLAIN = (
    "as a trained model predicts: corrected for each photo's own mix of minerals, doubtful minerals taken to be absent",
    "corrected for each photo's own mix of minerals, every mineral kept",
    "not corrected",
)


def config_of(args: argparse.Namespace, sampling: str, seed: int) -> TrainConfig:
    "The settings of a run."
    return TrainConfig(
        steps=args.steps,
        batch_size=args.batch,
        patch_size=args.patch,
        sampling="uniform" if sampling == "uniform" else "balanced",
        candidates=int(sampling) if sampling.isdigit() else 1,
        scale=args.scale,
        validate_every=-(-args.steps // SCORINGS),
        seed=seed,
    )


def run(
    args: argparse.Namespace, classes: ClassSet, samples: list[Sample], held_out: list[Sample], sampling: str, seed: int
) -> dict[str, SegmMetrics]:  # On the held-out photos, by how the model predicts
    "Train a network, or go on with a training, and score it."
    folder = args.out / f"{sampling}_{seed}"
    torch.manual_seed(seed)
    model = ResUnet(classes, filters=args.filters, depth=4, scale=args.model_scale)
    resume = (folder / "state.pt").exists()
    start = time.perf_counter()
    train(model, samples, config_of(args, sampling, seed), held_out=held_out, out=folder, resume=resume, progress=False)
    print(f"{sampling}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    model = ResUnet.load(folder / "last.safetensors")
    scores = {DEFAULT: score(model, held_out, args.scale).metrics()}
    model.presence = 0
    scores[KEPT] = score(model, held_out, args.scale).metrics()
    model.adaptation = 0
    scores[PLAIN] = score(model, held_out, args.scale).metrics()
    return scores


def table(results: dict[str, list[SegmMetrics]], shares: np.ndarray) -> str:
    "IoU of each class and their mean: over the seeds, and from the lowest to the highest of them."
    labels = next(iter(results.values()))[0].classes.labels
    lines = [f"{'class':<9}{'share':>8}" + "".join(f"{name:>26}" for name in results)]
    rows = [(label, f"{share:.2%}", [[m.iou[label] for m in ms] for ms in results.values()])
            for label, share in zip(labels, shares, strict=True)]  # fmt: skip
    rows.append(("mean", "", [[m.mean_iou for m in ms] for ms in results.values()]))
    rows.append(("accuracy", "", [[m.accuracy for m in ms] for ms in results.values()]))
    for label, share, values in rows:
        spread = [f" ({min(v):.3f} .. {max(v):.3f})" if len(v) > 1 else "" for v in values]
        cells = [f"{np.mean(v):.3f}{text}" for v, text in zip(values, spread, strict=True)]
        lines.append(f"{label:<9}{share:>8}" + "".join(f"{cell:>26}" for cell in cells))
    return "\n".join(lines)


def name_of(sampling: str) -> str:
    return f"balanced, best of {sampling}" if sampling.isdigit() else sampling


def sampling(text: str) -> str:
    "A sampling as it is written on the command line."
    if text not in ("uniform", "balanced") and not (text.isdigit() and int(text) > 1):
        raise argparse.ArgumentTypeError(f"expected uniform, balanced, or a number above 1, got {text!r}")
    return text


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder that holds imgs and masks")
    parser.add_argument("--classes", default="S1v1", help="class set of LumenStone")
    parser.add_argument("--scale", type=float, default=0.5, help="of the photos; LumenStone's originals are 1")
    parser.add_argument("--model-scale", type=float, default=0.25, help="at which the network works")
    parser.add_argument("--filters", type=int, default=8, help="of the network's first level")
    parser.add_argument("--patch", type=int, default=128, help="side of a patch at the network's scale, px")
    parser.add_argument("--batch", type=int, default=16, help="patches in a step")
    parser.add_argument("--steps", type=int, default=600, help="of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="one run of each sampling for each")
    parser.add_argument("--samplings", type=sampling, nargs="+", default=["uniform", "balanced", "4"])
    parser.add_argument("--out", type=Path, default=Path("runs/balancer_training"), help="folder of the runs")
    parser.add_argument("--log", action="store_true", help="tell the progress of each run")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    cv2.setNumThreads(1)
    logging.basicConfig(level=logging.INFO if args.log else logging.WARNING, format="%(asctime)s %(message)s")
    warnings.filterwarnings("ignore", message="no pixel of")
    classes = LumenStoneClasses.by_name(args.classes)
    data = LumenStone(args.root, classes)
    shares = data.statistics().shares
    samples, held_out = data.hold_out(0.2, seed=0)
    settings = {"steps": args.steps, "batch": args.batch, "patch": args.patch, "filters": args.filters,
                "scale": args.model_scale, "seeds": args.seeds}  # fmt: skip
    print(f"{args.root}: {len(samples)} photos to train on, {len(held_out)} held out; {settings}", flush=True)
    results: dict[str, dict[str, list[Any]]] = {DEFAULT: {}, KEPT: {}, PLAIN: {}}
    for seed in args.seeds:
        for how in args.samplings:
            for kind, metrics in run(args, classes, samples, held_out, how, seed).items():
                results[kind].setdefault(name_of(how), []).append(metrics)
        for kind, by_sampling in results.items():
            count = len(next(iter(by_sampling.values())))
            print(f"\nIoU on the held-out photos, mean (lowest .. highest) of {count} seeds; {kind}")
            print(table(by_sampling, shares), flush=True)


if __name__ == "__main__":
    main()
