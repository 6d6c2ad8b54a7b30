"""The global solve alone: how long thousands of fields take, how well they lie, and which false pairs are found.

    python bench/panorama_align.py [--sides 50 100] [--seeds 3] [--corners] [--turned 0.3]
        [--noise 0.1 0.005] [--false 0.02] [--model rigid]

A grid of `side` x `side` fields of 1360 x 1020 px, 20 % overlap, each off by up to 8 px and turned by 0.3 deg (standard
deviation). Each field has a pair with its right and its lower neighbour (with `--corners` also with those across its
corners): where the second lies as the first sees it, with normal errors. False pairs are off by 5 to 500 px in any
direction. The error is that of the fields' middles after one rigid fit. Peak memory is that of a process of its own.
A second run is given the stage's positions, and 5 % of its fields have no pair at all: what they are off by is told
beside what the stage is off by there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time

import numpy as np

from petroscope.panorama.align import align
from petroscope.panorama.pose import Match

SHAPE, STEP = (1020, 1360), np.array([816.0, 1088.0])


def turn(theta_deg: float | np.ndarray) -> np.ndarray:
    "What turns (row, col)."
    c, s = np.cos(np.radians(theta_deg)), np.sin(np.radians(theta_deg))
    return np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], -2)


def simulate(side: int, args: argparse.Namespace, bare: float, seed: int):
    "Poses, pairs, which of them are false, and the stage."
    rng = np.random.default_rng(seed)
    rows, cols = (x.ravel() for x in np.mgrid[:side, :side])
    stage = np.stack([rows, cols], -1) * STEP
    theta = rng.normal(0, args.turned, side**2)
    centre = (np.array(SHAPE) - 1) / 2
    offset = stage + rng.uniform(-8, 8, stage.shape) + centre - turn(theta) @ centre  # the stage turns about the middle
    number = np.arange(side**2).reshape(side, side)
    beside = [(number[:, :-1], number[:, 1:]), (number[:-1], number[1:])]
    if args.corners:
        beside += [(number[:-1, :-1], number[1:, 1:]), (number[:-1, 1:], number[1:, :-1])]
    pairs = np.concatenate([np.stack([a.ravel(), b.ravel()], -1) for a, b in beside])
    nothing = rng.random(side**2) < bare
    pairs = pairs[~nothing[pairs].any(1)]
    wrong = rng.random(len(pairs)) < args.false
    sigma_px, sigma_deg = args.noise
    # Four points whose spread says how well the angle is known beside the place.
    reach = 1.0 if sigma_deg == 0 else sigma_px / np.radians(sigma_deg)
    around = reach * np.array([(-1, 0), (1, 0), (0, -1), (0, 1)]) if reach > 0 else np.zeros((1, 2))
    matches = []
    for (i, j), bad in zip(pairs.tolist(), wrong):
        at = turn(theta[i]).T @ (offset[j] - offset[i]) + rng.normal(0, sigma_px, 2)
        if bad:
            direction = rng.uniform(0, 2 * np.pi)
            at = at + rng.uniform(5, 500) * np.array([np.sin(direction), np.cos(direction)])
        angle = theta[j] - theta[i] + rng.normal(0, sigma_deg)
        matches.append(Match(i, j, at + around @ turn(angle).T, around, np.full(len(around), 1.0), quality=0.9))
    return offset, theta, matches, wrong, stage, nothing


def middles(offset: np.ndarray, linear: np.ndarray) -> np.ndarray:
    "Where the middles of the fields are."
    return offset + linear @ ((np.array(SHAPE) - 1) / 2)


def off_by(found: np.ndarray, true: np.ndarray, fit: np.ndarray) -> np.ndarray:
    "Distances after one rigid fit over the fields `fit`."
    f, t = (x[:, 0] + 1j * x[:, 1] for x in (found, true))
    f0, t0 = f[fit].mean(), t[fit].mean()
    turned = (np.conj(f[fit] - f0) * (t[fit] - t0)).sum()
    return np.abs((f - f0) * turned / abs(turned) + t0 - t)


def run(side: int, args: argparse.Namespace, seed: int, with_stage: bool, queue) -> None:
    "One case in a process of its own."
    bare = 0.05 if with_stage else 0.0
    offset, theta, matches, wrong, stage, nothing = simulate(side, args, bare, seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, wall = time.process_time(), time.perf_counter()
    found = align(matches, [SHAPE] * side**2, args.model, positions=stage if with_stage else None)
    took, wall = time.process_time() - began, time.perf_counter() - wall
    tied = ~nothing & (found.component == 0) & ~found.carried
    error = off_by(middles(found.offset, found.linear), middles(offset, turn(theta)), tied)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = (
        f"{side**2:6d} fields {len(matches):6d} pairs seed {seed} {'stage' if with_stage else '     '}: "
        f"CPU {took:6.2f} s (wall {wall:6.2f}), rms {np.sqrt((error[tied] ** 2).mean()):.4f} px, "
        f"largest {error[tied].max():.3f} px, false found {(wrong & ~found.used).sum()} of {wrong.sum()}, "
        f"true left out {(~wrong & ~found.used).sum()}, used unconfirmed {(found.used & ~found.confirmed).sum()}, "
        f"components {found.component.max() + 1}, peak {peak / 1024:.0f} MB ({before / 1024:.0f} before)"
    )
    if with_stage:
        away = off_by(middles(stage, turn(np.zeros(len(stage)))), middles(offset, turn(theta)), tied)
        carried, jitter = (np.sqrt((x[nothing] ** 2).mean()) for x in (error, away))
        line += f"; {nothing.sum()} without pairs: rms {carried:.2f} px, stage {jitter:.2f} px"
    queue.put(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, nargs=2, default=(0.1, 0.005), metavar=("PX", "DEG"))
    parser.add_argument("--false", type=float, default=0.02)
    parser.add_argument("--turned", type=float, default=0.3, help="standard deviation of the fields' rotations, deg")
    parser.add_argument("--corners", action="store_true", help="pairs also where fields overlap with their corners")
    parser.add_argument("--model", default="rigid")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for side in args.sides:
        for seed in range(args.seeds):
            for with_stage in (False, True):
                queue = context.SimpleQueue()
                process = context.Process(target=run, args=(side, args, seed, with_stage, queue))
                process.start()
                process.join()
                print(queue.get() if process.exitcode == 0 else f"failed with {process.exitcode}", flush=True)


if __name__ == "__main__":
    main()
