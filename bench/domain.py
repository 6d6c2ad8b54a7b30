"""How well the domain of a model tells photos of its kind from others, on real photos.

    python bench/domain.py S1_v1 [--other S2_v1] [--foreign FOLDER ...]

Photos of a training set are judged by a domain that was learned from the other photos of the set, fold by fold: how
many are refused wrongly, and how many are refused after a change of light, focus or magnification. Pictures that are
no polished sections are judged by the domain of all: noise, landscapes and thin sections drawn by numbers, and the
photos in the folders that are named.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import cKDTree

from petroscope.io.images import read_image
from petroscope.segmentation.dataset import LumenStone
from petroscope.segmentation.domain import Domain, photo_features
from petroscope.view.tables import Column, Table

SHAPE = (1273, 1698)
JPEG = cv2.IMWRITE_JPEG_QUALITY


def gains(*factors):
    return lambda image: (image * np.array(factors)).clip(0, 255).astype(np.uint8)


def packed(quality):
    return lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [JPEG, quality])[1], cv2.IMREAD_COLOR)


def corners(image):
    rows, columns = (np.linspace(-1, 1, n) ** 2 for n in image.shape[:2])
    return (image * (1 - 0.1 * (rows[:, None] + columns))[..., None]).astype(np.uint8)


CHANGES = {
    "none": lambda image: image,
    "corners 20 % darker": corners,
    "exposure +30 %": gains(1.3, 1.3, 1.3),
    "exposure -30 %": gains(0.7, 0.7, 0.7),
    "exposure +60 %": gains(1.6, 1.6, 1.6),
    "exposure -50 %": gains(0.5, 0.5, 0.5),
    "red +8 %, blue -8 %": gains(1.08, 1, 0.92),
    "red -15 %, blue +15 %": gains(0.85, 1, 1.15),
    "blur of 1 px": lambda image: cv2.GaussianBlur(image, (0, 0), 1),
    "blur of 4 px": lambda image: cv2.GaussianBlur(image, (0, 0), 4),
    "magnified twice": lambda image: cv2.resize(image, None, fx=2, fy=2)[: image.shape[0], : image.shape[1]],
    "reduced to half": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "JPEG quality 40": packed(40),
    "JPEG quality 10": packed(10),
    "grey": lambda image: np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2),
    "negative": lambda image: 255 - image,
}


def cloud(rng, exponent=1.5):
    "Smooth noise in 0..1 whose amplitude falls with frequency."
    frequency = np.hypot(np.fft.fftfreq(SHAPE[0])[:, None], np.fft.fftfreq(SHAPE[1]))
    frequency[0, 0] = 1
    found = np.fft.ifft2(np.exp(2j * np.pi * rng.random(SHAPE)) / frequency**exponent).real
    return (found - found.min()) / np.ptp(found)


def landscape(rng):
    "Sky, hills and a meadow."
    height, width = SHAPE
    down = np.linspace(0, 1, height)[:, None, None]
    image = np.array([90, 140, 220]) * (1 - down) + np.array([200, 220, 240]) * down + np.zeros((height, width, 1))
    for k, color in enumerate(([90, 110, 130], [60, 100, 60], [40, 80, 30])):
        ridge = height * (0.45 + 0.15 * k) + 120 * np.cumsum(rng.normal(0, 0.02, width))
        below = (np.arange(height)[:, None] > ridge)[..., None]
        image = np.where(below, np.array(color) * (0.5 + cloud(rng)[..., None]), image)
    return (image + rng.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)


def thin_section(rng):
    "Grains in the interference colours of a thin section between crossed polarisers."
    height, width = SHAPE
    rows, columns = np.mgrid[:height:4, :width:4]
    seeds = rng.random((300, 2)) * SHAPE
    grain = cKDTree(seeds).query(np.stack([rows.ravel(), columns.ravel()], axis=1))[1].reshape(rows.shape)
    grain = cv2.resize(grain.astype(np.uint16), (width, height), interpolation=cv2.INTER_NEAREST)
    hues = np.stack([rng.integers(0, 180, 300), rng.integers(30, 230, 300), rng.integers(60, 255, 300)], axis=1)
    colors = cv2.cvtColor(hues[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0]
    shaded = colors[grain] * (0.8 + 0.3 * cloud(rng)[..., None]) + rng.normal(0, 3, (height, width, 1))
    return shaded.clip(0, 255).astype(np.uint8)


DRAWN = {
    "noise in colour": lambda rng: rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8),
    "noise in grey": lambda rng: np.repeat(rng.normal(120, 30, (*SHAPE, 1)).clip(0, 255).astype(np.uint8), 3, axis=2),
    "clouds": lambda rng: np.repeat((255 * cloud(rng)).astype(np.uint8)[..., None], 3, axis=2),
    "landscapes": landscape,
    "thin sections": thin_section,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="dataset whose photos the domain is learned from")
    parser.add_argument("--other", type=Path, help="another dataset, judged by the domain of all photos")
    parser.add_argument("--foreign", type=Path, nargs="*", default=[], help="folders of photos of another kind")
    parser.add_argument("--scale", type=float, default=0.5, help="scale of the photos")
    parser.add_argument("--model-scale", type=float, default=0.25, help="scale at which the model works")
    parser.add_argument("--folds", type=int, default=5)
    args = parser.parse_args()

    def measured(image):
        return photo_features(image, args.scale, args.model_scale)

    photos = [sample.read()[0] for sample in LumenStone(args.root, "S1v1")]
    features = [measured(photo) for photo in photos]
    fold = np.random.default_rng(0).permutation(len(photos)) % args.folds
    domains = [Domain.learn(f for f, own in zip(features, fold, strict=True) if own != k) for k in range(args.folds)]
    rows = []
    for name, change in CHANGES.items():
        judged = [domains[k].judge(measured(change(photo))) for k, photo in zip(fold, photos, strict=True)]
        rows.append((f"held out, {name}", judged))
    whole = Domain.learn(features)
    for name, draw in DRAWN.items():
        rows.append((f"drawn {name}", [whole.judge(measured(draw(np.random.default_rng(i)))) for i in range(10)]))
    for folder in args.foreign:
        files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".jpg", ".png", ".tif")]
        rows.append((folder.name, [whole.judge(measured(read_image(path))) for path in files]))
    if args.other:
        others = LumenStone(args.other, "S2v1")
        rows.append((args.other.name, [whole.judge(measured(sample.read()[0])) for sample in others]))
    print(Table([
        Column("photos", [name for name, _ in rows], left=True),
        Column("number", [len(judged) for _, judged in rows]),
        Column("refused", [np.mean([not v.known for v in judged]) for _, judged in rows], format=".1%"),
        Column("distance / limit", [np.median([v.distance / v.limit for v in g]) for _, g in rows], format=".2f"),
        Column("unknown area", [np.mean([v.unknown_share for v in judged]) for _, judged in rows], format=".1%"),
        Column("words", [", ".join(max(judged, key=lambda v: v.distance).reasons) for _, judged in rows], left=True),
    ]))  # fmt: skip


if __name__ == "__main__":
    main()
