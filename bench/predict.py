"""How fast a photo is predicted on two cores, beside the way of the earlier package and the limit of the machine.

    python bench/predict.py [--rounds 5] [--crop 1024] [--threads 2] [--quick] [--panorama FOLDER]

Three networks' worth of questions. The network of 16 filters at its own scale is run on a photo of 8.65 Mpx, tiled,
folded and in bfloat16 where the processor has it; the earlier package's way is one plain float32 forward of the same
network over the whole photo, colours first in memory (here over a crop, since a whole photo takes 5.5 GB, and given as
Mpx/s). The shipped weights are asked for the mask of a full photo, 3396 x 2547 px at scale 1.0, through their own
scale, against the same photo with the plain forward at that scale. Both take turns in rounds, and the median of the
rounds' ratios counts. Beside it: matrix products of the same number of threads in float32 and bfloat16, which no
convolution can outrun; the peak memory of a process of its own; and the share of pixels whose class is that of the
float32 whole-image result, away from the edges of tiles. `--panorama FOLDER` writes a mosaic of 30,000 x 20,000 px
there (1.8 GB), predicts it from file to file and says what memory that took. Nothing fails because a machine is slow.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Libraries read these when they are imported, which is why they stand before the imports.
os.environ |= dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv[:-1] else "2",
)

import cv2
import numpy as np
import torch

from petroscope.segmentation.classes import LumenStoneClasses
from petroscope.segmentation.resunet import ResUnet
from petroscope.segmentation.tiling import resample, shape_at_scale
from petroscope.synth.rock import scene

SHAPE = (2547, 3396)
MAC = 48_976  # a pixel, network of 16 filters and seven classes


def photo(seed: int = 0) -> np.ndarray:
    "A drawn section of the size of LumenStone's photos."
    part = scene((SHAPE[0] // 2 + 1, SHAPE[1] // 2), LumenStoneClasses.S1v1.labels, seed=seed, scale=1.0).image
    row = np.concatenate([part, part[:, ::-1]], axis=1)
    return np.ascontiguousarray(np.concatenate([row, row[::-1]])[: SHAPE[0], : SHAPE[1]])


def network(precision: str = "auto") -> ResUnet:
    "The network of 16 filters, with the shipped weights, made to work at full scale and without a correction."
    model = ResUnet.pretrained("s1v1", precision=precision)
    model.scale, model.prior = 1.0, None
    return model


@torch.inference_mode()
def plain(net: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    "The earlier way: the whole picture at once, float32, colours first, as many rows and columns as the depth allows."
    h, w = (side // 16 * 16 for side in image.shape[:2])
    x = torch.from_numpy(np.ascontiguousarray(image[:h, :w])).permute(2, 0, 1)[None].contiguous().float() / 255
    return net(x)[0].argmax(dim=0).to(torch.uint8).numpy()


def timed(work: Callable[[], object]) -> np.ndarray:
    "Seconds by the clock, and of the processor."
    start = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - start[0], time.process_time() - start[1]])


def turns(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float, str]:
    "Seconds of each, and the ratios theirs / ours in words, medians over rounds in which both take turns."
    ours(), theirs()
    both = np.array([(timed(ours), timed(theirs)) for _ in range(rounds)])
    clock, cpu = np.median(both[:, 1] / both[:, 0], axis=0)
    a, b = np.median(both[..., 0], axis=0)
    return a, b, f"{clock:.2f} times by the clock, {cpu:.2f} by processor time"


def products(dtype: torch.dtype, side: int = 2048, rounds: int = 5) -> float:
    "Matrix products, GMAC/s."
    a, b = (torch.rand(side, side).to(dtype) for _ in range(2))
    a @ b
    return side**3 / 1e9 / min(timed(lambda: a @ b)[0] for _ in range(rounds))


def agreement(crop: int, precision: str) -> float:
    "Share of pixels with the class of the float32 whole-image result, more than 32 px from the edge of a tile's core."
    model, image = network(precision), photo()[:crop, :crop]
    ours = np.concatenate([band.raw.argmax(axis=0) for band in model.predict_bands(image, 1.0)])
    whole = plain(network("float32").net.to(memory_format=torch.contiguous_format), image)
    ours, inner = ours[: whole.shape[0], : whole.shape[1]], np.s_[32:-32, 32:-32]
    return float((ours == whole)[inner].mean())


def peak_mb(code: str) -> float:
    "Peak memory of a process of its own, MB; Linux alone tells it."
    # What `getrusage` says of a process that was just started counts the memory of the one that started it.
    told = "[line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1]"
    line = f"{code}; print(int({told}) / 1024)"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", line], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    return float(done.stdout.split()[-1])


def mosaic(path: Path, shape: tuple[int, int] = (20_000, 30_000)) -> None:
    "A mosaic with a ragged edge, as an array mapped from a file."
    mapped = np.lib.format.open_memmap(path, "w+", np.uint8, (*shape, 3))
    part = photo()
    for top in range(0, shape[0], part.shape[0]):
        for left in range(0, shape[1], part.shape[1]):
            block = mapped[top : top + part.shape[0], left : left + part.shape[1]]
            block[:] = part[: block.shape[0], : block.shape[1]]
        mapped[top : top + 700, : 1000 + top // 10] = 0
    mapped.flush()


def panorama(folder: Path) -> None:
    "Predict a mosaic from file to file."
    source = folder / "mosaic.npy"
    if not source.exists():
        mosaic(source)
    code = (
        "from petroscope.segmentation.predict import predict_file; import predict;"
        f"predict_file(predict.ResUnet.pretrained('s1v1'), r'{source}', r'{folder / 'mask.tif'}', 1.0)"
    )
    start = time.perf_counter()
    peak = peak_mb(code)
    seconds = time.perf_counter() - start
    print(f"panorama of 30,000 x 20,000 px, file to file: {seconds:.0f} s, peak {peak:.0f} MB (aim < 2000)")


def main() -> int:
    read = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    read.add_argument("--rounds", type=int, default=5)
    read.add_argument("--crop", type=int, default=1024, help="side of the crop for the plain forward, px")
    read.add_argument("--threads", type=int, default=2)
    read.add_argument("--quick", action="store_true", help="crops alone, one round: to see that it runs")
    read.add_argument("--panorama", type=Path, metavar="FOLDER")
    args = read.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    if args.panorama:
        panorama(args.panorama)
        return 0
    image, rounds = photo(), 1 if args.quick else args.rounds
    model, crop = network(), image[: args.crop, : args.crop]
    net = network("float32").net.to(memory_format=torch.contiguous_format)
    # The two take turns on the crop; the whole photo follows at the throughput that the rounds give.
    ours, theirs, ratio = turns(lambda: model.predict_image(crop, 1.0), lambda: plain(net, crop), rounds)
    mpx = crop.shape[0] * crop.shape[1] / 1e6
    print(f"bfloat16 native here: {model.bfloat16}; {args.threads} threads; {args.rounds} rounds, medians")
    print(f"at model scale: {mpx / ours:.2f} Mpx/s, plain float32 {mpx / theirs:.2f}; {ratio} (aim 3.5)")
    limits = {str(kind).removeprefix("torch."): products(kind) for kind in (torch.float32, torch.bfloat16)}
    used = MAC * mpx * 1e6 / ours / 1e9
    print(f"that is {used:.0f} GMAC/s; matrix products: " + ", ".join(f"{k} {v:.0f}" for k, v in limits.items()))
    if not args.quick:
        seconds = timed(lambda: model.predict_image(image, 1.0))[0]
        print(f"the whole photo, 8.65 Mpx at model scale: {seconds:.2f} s (aim 4)")
    shipped = ResUnet.pretrained("s1v1")
    small = resample(image, shape_at_scale(SHAPE, shipped.scale))
    # The earlier way at that scale: shrunk, plain forward, enlarged again by nearest neighbours.
    ours, theirs, ratio = turns(
        lambda: shipped.predict_image(image, 1.0),
        lambda: cv2.resize(plain(net, small), SHAPE[::-1], interpolation=cv2.INTER_NEAREST),
        rounds,
    )
    print(f"shipped, full photo at scale 1.0: {ours:.2f} s (aim 2), plain float32 {theirs:.2f} s; {ratio} (aim 1.5)")
    for precision in ("float32", "bfloat16"):
        same = agreement(args.crop if not args.quick else 512, precision)
        print(f"same class as float32 in one piece, tiles in {precision}: {same:.5f} (aim 0.999)")
    for name, code in (
        ("at model scale", "import predict; predict.network().predict_image(predict.photo(), 1.0)"),
        ("shipped", "import predict; predict.ResUnet.pretrained('s1v1').predict_image(predict.photo(), 1.0)"),
    ):
        print(f"peak memory, {name}: {peak_mb(code):.0f} MB (aim < 1000)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
