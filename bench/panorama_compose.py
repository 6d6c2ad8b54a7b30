"""How fast 2,500 fields are composed from files to disk, beside decoding the same files and writing the same tiles.

    python bench/panorama_compose.py [--grid 50] [--field 255x340] [--formats png jpg] [--codecs deflate zstd] [--quick]

The section is a drawn scene, mirrored side by side as often as it takes; fields overlap by a fifth, are turned by up to
0.3 degrees, differ in exposure by up to 5 per cent and in light by 20 per cent from middle to corner. The limit is what
nobody can go below: the CPU time of decoding every file once, and of compressing and writing every tile of the composed
file, reduced levels included, with the same codec. CPU time counts, of all threads; the aim is half the limit's rate.
Memory is the peak of a process of its own, for this mosaic and for one with a quarter of its rows. Everything lies in a
temporary folder that is removed. Nothing fails because a machine is slow.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

# Libraries read these when they are imported, which is why they stand before the imports.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import cv2
import numpy as np
import tifffile

from petroscope.io.images import read_image, write_image
from petroscope.io.ometiff import CODECS, tile_encoder
from petroscope.panorama.mosaic import compose
from petroscope.synth.rock import scene

OVERLAP, TURN_DEG, JITTER_PX, GAIN, FALLOFF, NOISE_SD, TILE = 0.2, 0.3, 6, 0.05, 0.2, 2.5, 512
AIM = 0.5


class Files(Sequence[np.ndarray]):
    "Fields, decoded when they are asked for."

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:  # type: ignore[override]
        return read_image(self.paths[i])


def poses(rows: int, cols: int, shape: tuple[int, int]) -> SimpleNamespace:
    "Where the fields lie, as an alignment."
    rng = np.random.default_rng(0)
    step = np.array(shape) * (1 - OVERLAP)
    offset = np.stack([*np.mgrid[0:rows, 0:cols]], -1).reshape(-1, 2) * step
    offset = offset + rng.uniform(-JITTER_PX, JITTER_PX, offset.shape)
    t = np.radians(rng.uniform(-TURN_DEG, TURN_DEG, len(offset)))
    linear = np.stack([np.cos(t), np.sin(t), -np.sin(t), np.cos(t)], -1).reshape(-1, 2, 2)
    return SimpleNamespace(offset=offset, linear=linear, distortion=0.0, component=np.zeros(len(t), int))


def falloff(shape: tuple[int, int]) -> np.ndarray:
    "The light of every field, mean 1."
    v, u = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])
    light = (1 - FALLOFF / 2 * (u * u + v * v)).astype(np.float32)
    return cv2.merge([light / light.mean()] * 3)


def draw(folder: Path, place: SimpleNamespace, shape: tuple[int, int], suffix: str) -> tuple[list[Path], np.ndarray]:
    "The files of the fields, and the gains that even them out."
    rng = np.random.default_rng(1)
    section = scene((1500, 2000), seed=1).image
    gains = 1 + rng.uniform(-GAIN, GAIN, len(place.offset))
    light, (h, w) = falloff(shape), shape
    noise = rng.normal(0, NOISE_SD, (2 * h, 2 * w, 3)).astype(np.float32)
    rows, cols = np.arange(-8, h + 8), np.arange(-8, w + 8)  # a field and what turning it asks for beyond
    paths = []
    for i, (offset, linear) in enumerate(zip(place.offset, place.linear)):
        at = [np.abs((n + int(o)) % (2 * m) - m) % m for n, o, m in zip((rows, cols), offset, section.shape)]
        away = offset - offset.astype(int) + 8
        matrix = np.array([[linear[1, 1], linear[1, 0], away[1]], [linear[0, 1], linear[0, 0], away[0]]])
        seen = cv2.warpAffine(section[np.ix_(*at)].astype(np.float32), matrix, (w, h),
                              flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)  # fmt: skip
        r, c = rng.integers(0, h), rng.integers(0, w)
        photo = seen * light / gains[i] + noise[r : r + h, c : c + w]
        paths.append(folder / f"{i:05d}.{suffix}")
        write_image(paths[-1], np.clip(photo + 0.5, 0, 255).astype(np.uint8), quality=92)
    return paths, np.repeat(gains[:, None], 3, 1)


def decoding(paths: list[Path]) -> float:
    "CPU seconds of decoding every file once."
    start = time.process_time()
    for path in paths:
        read_image(path)
    return time.process_time() - start


def writing(made: Path, out: Path, codec: str) -> float:
    "CPU seconds of compressing and writing the tiles of a composed file; the clock stands while they are read from it."
    spent, encode = 0.0, tile_encoder(codec, TILE, 90)

    def tiles(page: tifffile.TiffPage) -> Iterator[bytes]:
        nonlocal spent
        for pixels, _, _ in page.segments():
            block = np.ascontiguousarray(pixels.reshape(TILE, TILE, 3))
            start = time.process_time()
            data = encode(block)
            spent += time.process_time() - start
            yield data

    with tifffile.TiffFile(made) as source, open(out, "wb") as file:
        for level in source.series[0].levels:
            for data in tiles(level.pages[0].aspage()):
                start = time.process_time()
                file.write(data)
                spent += time.process_time() - start
    return spent


def peak_mb() -> float:
    "The most memory that this process has held; `getrusage` would tell of the process that started it, too."
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024


def composing(
    folder: Path, paths: list[Path], gains: np.ndarray, cols: int, shape: tuple[int, int], codec: str, threads: int
) -> dict:  # fmt: skip
    "Compose in this process and tell what it took."
    import imagecodecs  # noqa: F401 (loading it is no part of the work)

    rows = len(paths) // cols
    idle = peak_mb()
    start, clock = time.process_time(), time.perf_counter()
    made = compose(folder / "mosaic.ome.tif", Files(paths), poses(rows, cols, shape), [shape] * len(paths), gains=gains,
                   flatfield=falloff(shape), codec=codec, tile=TILE, threads=threads)  # fmt: skip
    return {"cpu": time.process_time() - start, "wall": time.perf_counter() - clock, "shape": made.shape, "idle": idle,
            "held": made.most_held, "peak": peak_mb()}  # fmt: skip


def alone(*args: object) -> dict:
    "`composing` in a fresh process."
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(composing, *args).result()  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", type=int, default=50, help="fields in a row, and rows")
    parser.add_argument("--field", default="255x340", help="height x width of a field, px")
    parser.add_argument("--formats", nargs="+", default=["png"], choices=["png", "jpg", "tif"])
    parser.add_argument("--codecs", nargs="+", default=["deflate", "zstd"], choices=list(CODECS))
    parser.add_argument("--threads", type=int, default=1, choices=[1, 2], help="that compose; the limit has one")
    parser.add_argument("--quick", action="store_true", help="a grid of 12 x 12")
    args = parser.parse_args()
    n, shape = 12 if args.quick else args.grid, tuple(map(int, args.field.split("x")))
    print(f"{n} x {n} fields of {shape[0]} x {shape[1]} px = {n * n * shape[0] * shape[1] / 1e6:.0f} Mpx; CPU seconds")
    print("files codec     compose     wall   decode    write   rate   memory")
    for suffix in args.formats:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            paths, gains = draw(folder, poses(n, n, shape), shape, suffix)
            decode = decoding(paths)
            for codec in args.codecs:
                part = n // 4 * n
                short = alone(folder, paths[:part], gains[:part], n, shape, codec, args.threads)
                done = alone(folder, paths, gains, n, shape, codec, args.threads)
                write = writing(folder / "mosaic.ome.tif", folder / "again.bin", codec)
                rate = (decode + write) / done["cpu"]
                times = " ".join(f"{value:8.2f}" for value in (done["cpu"], done["wall"], decode, write))
                print(f"{suffix:5} {codec:8} {times} {rate:6.2f}   "
                      f"{done['shape'][0]} x {done['shape'][1]} px, {done['held']} fields held, "
                      f"peak {done['peak']:.0f} MB ({done['idle']:.0f} of them before it began); "
                      f"a quarter of the rows: {short['peak']:.0f} MB; aim {AIM}: {'' if rate >= AIM else 'NOT '}met",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
