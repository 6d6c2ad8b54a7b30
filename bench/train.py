"""How fast networks are trained, against the same training without what makes it fast.

    python bench/train.py [--threads 1] [--rounds 3] [--steps 6] [--variants resunet resunet-plain ...]

Every variant takes steps of about a million pixels, in a process of its own; the variants take turns, so that a machine
that is busy for a while slows all of them, and the median of the rounds counts. The first two steps of a process warm
it up. Mpx/s are by the clock; those by the processor leave out what other programs took, and are the ones to compare.

`resunet`           ResUnet of 16 filters, 16 patches of 256 px, as `train` does a step
`resunet-plain`     the same with soft Dice from one-hot arrays, and freed memory given back to the system
`lite0`             EfficientUnet, 4 patches of 512 px, as `train` does a step
`lite0-plain`       the same by the textbook: strides of 2, all kernels learned, batch normalisation by the batch, and
                    loss and memory as in `resunet-plain`
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from torch.nn import functional

from petroscope.segmentation.classes import VOID
from petroscope.segmentation.efficientunet import EfficientUnet
from petroscope.segmentation.encoders import FixedNormConv
from petroscope.segmentation.resunet import ResUnet
from petroscope.segmentation.torch_model import NetworkModel
from petroscope.segmentation.train import train_mode, train_step, update_average
from petroscope.segmentation.training.allocator import kept_memory
from petroscope.segmentation.training.config import TrainConfig, recipe
from petroscope.segmentation.training.run import parameter_groups

VARIANTS = ("resunet", "resunet-plain", "lite0", "lite0-plain")
WARM_UP = 2


def planes_dice(probs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    "Soft Dice by a plane of zeros and ones for each class."
    counted = target != VOID
    probs = probs * counted[:, None]
    planes = functional.one_hot(target.where(counted, torch.zeros_like(target)), probs.shape[1])
    truth = planes.permute(0, 3, 1, 2) * counted[:, None]
    both, answered, true = (t.sum(dim=(0, 2, 3)) for t in (probs * truth, probs, truth))
    return 1 - (2 * both / (answered + true).clamp(min=1e-6))[true > 0].mean()


def planes_loss(logits: torch.Tensor, target: torch.Tensor, dice_weight: float, **_: float) -> torch.Tensor:
    "Cross-entropy and soft Dice, each from the logits."
    loss = functional.cross_entropy(logits, target, ignore_index=VOID)
    return loss + dice_weight * planes_dice(torch.softmax(logits, dim=1), target)


def textbook_forward(part: FixedNormConv, x: torch.Tensor) -> torch.Tensor:
    "Convolution with its stride, batch normalisation by the batch, ReLU6, one after the other."
    conv = part.conv
    total = conv.kernel_size[0] - conv.stride[0]
    before, after = total // 2, total - total // 2
    x = functional.pad(x, (before, after, before, after)) if total > 0 else x
    x = part.bn(functional.conv2d(x, conv.weight, None, conv.stride, groups=part.groups))
    return functional.relu6(x) if part.active else x


def model_of(variant: str) -> tuple[NetworkModel, TrainConfig]:
    "A network with random weights, and the settings of its training."
    torch.manual_seed(0)
    if variant.startswith("resunet"):
        return ResUnet("S1v1", scale=0.5), TrainConfig()
    return EfficientUnet("S1v1"), TrainConfig.from_dict(recipe("lite0"))


def measure(variant: str, steps: int) -> tuple[float, float, float]:  # Seconds by the clock, of the processor; MB
    "Time the steps of a variant in this process, and see what memory it takes."
    plain = variant.endswith("-plain")
    model, config = model_of(variant)
    if plain:
        sys.modules["petroscope.segmentation.train"].segmentation_loss = planes_loss  # type: ignore[attr-defined]
        FixedNormConv.forward = textbook_forward  # type: ignore[assignment]
        model.net.requires_grad_(True)
    average, rng = model_of(variant)[0].net, np.random.default_rng(0)
    optimizer = torch.optim.AdamW(parameter_groups(model.net, config.encoder_rate), lr=config.learning_rate)
    side = config.patch_size
    patches = rng.integers(0, 256, (config.batch_size, side, side, 3), np.uint8)
    index = rng.integers(0, 7, (config.batch_size, side, side), np.uint8)
    clock, processor = [], []
    with contextlib.nullcontext() if plain else kept_memory():
        for _ in range(WARM_UP + steps):
            began = time.perf_counter(), time.process_time()
            train_mode(model.net)
            train_step(model, optimizer, (patches, index), 1e-4, config)
            update_average(average, model.net, 0.99)
            clock.append(time.perf_counter() - began[0])
            processor.append(time.process_time() - began[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return statistics.median(clock[WARM_UP:]), statistics.median(processor[WARM_UP:]), peak


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each variant (default: 3)")
    parser.add_argument("--steps", type=int, default=6, help="timed steps in each (default: 6)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    if args.one:
        print(*measure(args.one, args.steps))
        return
    found: dict[str, list[list[float]]] = {variant: [] for variant in args.variants}
    for _ in range(args.rounds):
        for variant in args.variants:
            command = [sys.executable, __file__, "--one", variant, "--threads", str(args.threads)]
            done = subprocess.run([*command, "--steps", str(args.steps)], capture_output=True, text=True, check=True)
            found[variant].append([float(x) for x in done.stdout.split()])
    print(f"{torch.__version__}, {args.threads} threads, bfloat16 where native; medians of {args.rounds} processes")
    print(f"{'variant':<15}{'Mpx/s':>8}{'Mpx/s of the processor':>25}{'times as fast as plain':>25}{'MB':>8}")
    for variant, times in found.items():
        config = model_of(variant)[1]
        mpx = config.batch_size * config.patch_size**2 / 1e6
        clock, processor, peak = (statistics.median(column) for column in zip(*times, strict=True))
        plain = found.get(f"{variant}-plain")
        ratio = f"{statistics.median(p for _, p, _ in plain) / processor:.2f}" if plain else ""
        print(f"{variant:<15}{mpx / clock:>8.2f}{mpx / processor * args.threads:>25.2f}{ratio:>25}{peak:>8.0f}")


if __name__ == "__main__":
    main()
