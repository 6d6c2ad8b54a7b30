"""What another light, blur and compression cost a model, and what a normalisation brings back, as mean IoU.

    python bench/robustness.py [--sections 6] [--root ROOT --split train --scale 0.5] [--ways none auto reference]
                               [--weights FILE | --crossval DIR] [--photos NAME ...] [--json FILE]

Drawn sections, and photos of a LumenStone-like dataset if ROOT is given, are segmented as they are and after changes,
each alone and all at once. With `--crossval DIR`, of `petroscope crossval`, the network of its fold, which has not
seen it, answers for each photo. Ways to meet a change:

`none`        the colours as they are
`grey-world`  the white balance by the photo's mean colour
`auto`        the exposure at which the network is surest; corners by the flat field that all photos show together
`reference`   a photo of silicon carbide and one of a mirror, taken under the changed light as LumenStone's camera
              would show them, measured as `petroscope calibrate` does
`patch`       the commonest mineral of the photo itself (by its mask), whose colour is known

Areas are pooled over the photos; a loss is against the photos as they are, by the way `none`. Beside each change
stands the share of photos that the weights call unlike what they were trained on. Aim: a loss of .03 at most.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from petroscope.optics.flatfield import FlatField
from petroscope.optics.reference import Reference, measure_reference
from petroscope.optics.reflectance import reflectance
from petroscope.segmentation.dataset import LumenStone, Sample, samples_of
from petroscope.segmentation.illumination import LUMENSTONE_MEAN, MINERAL_COLORS, apply_gains, training_color
from petroscope.segmentation.metrics import SegmMetrics
from petroscope.segmentation.networks import read_model
from petroscope.segmentation.resunet import ResUnet
from petroscope.segmentation.torch_model import NetworkModel
from petroscope.synth.rock import scene

AIM = 0.03
WAYS = ("none", "grey-world", "auto", "reference", "patch")
Change = Callable[[np.ndarray], np.ndarray]


def gain(*factors: float) -> Change:
    "Multiply each channel."
    return lambda image: apply_gains(image, np.array(factors))


def corners(image: np.ndarray) -> np.ndarray:
    "Darken with the square of the distance from the middle, by 20 % in the corners."
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in image.shape[:2])
    dark = 1 - 0.1 * (y[:, None] ** 2 + x**2)
    return np.clip(np.round(image * dark[..., None]), 0, 255).astype(np.uint8)


def blur(sigma: float) -> Change:
    "Blur by a Gaussian of this standard deviation, px."
    return lambda image: cv2.GaussianBlur(image, (0, 0), sigma)


def jpeg(quality: int) -> Change:
    "Compress and read again."

    def change(image: np.ndarray) -> np.ndarray:
        _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])

    return change


def in_turn(*changes: Change) -> Change:
    "Make one change after another."

    def change(image: np.ndarray) -> np.ndarray:
        for one in changes:
            image = one(image)
        return image

    return change


# Name: what light and lens do, and what happens to the picture afterwards.
CHANGES: dict[str, tuple[Sequence[Change], Sequence[Change]]] = {
    "as it is": ((), ()),
    "corners -20 %": ((corners,), ()),
    "exposure +30 %": ((gain(1.3, 1.3, 1.3),), ()),
    "exposure -30 %": ((gain(0.7, 0.7, 0.7),), ()),
    "red +8 %, blue -8 %": ((gain(1.08, 1.0, 0.92),), ()),
    "red -8 %, blue +8 %": ((gain(0.92, 1.0, 1.08),), ()),
    "blur 1 px": ((), (blur(1.0),)),
    "JPEG 40": ((), (jpeg(40),)),
    "all at once, brighter": ((corners, gain(1.4, 1.3, 1.2)), (blur(1.0), jpeg(40))),
    "all at once, darker": ((corners, gain(0.64, 0.7, 0.76)), (blur(1.0), jpeg(40))),
}


def even_field(known: FlatField | None, shape: tuple[int, int]) -> np.ndarray:
    "Return what an even sample shows in LumenStone's camera, `(h, w, 3)`, mean 1."
    # A quarter of the side tells as much of a light that changes slowly.
    shape = shape[0] // 4, shape[1] // 4
    return np.ones((*shape, 3), np.float32) if known is None else known.resized(shape).gain


def mirror(light: Change, even: np.ndarray) -> FlatField:
    "Measure the flat field from three photos of a mirror under the changed light."
    rng = np.random.default_rng(0)
    # As bright as no channel clips.
    photos = [np.clip(150 * even + rng.normal(0, 2, even.shape), 0, 255).astype(np.uint8) for _ in range(3)]
    return FlatField.from_reference([light(photo) for photo in photos])


def standard(light: Change, even: np.ndarray, flat: FlatField | None) -> Reference:
    "Measure a photo of silicon carbide under the changed light, as `calibrate --reference --flatfield` does."
    known = reflectance("silicon carbide")
    color = training_color(Reference(known.name, known.percent, (1, 1, 1), ""), LUMENSTONE_MEAN)
    photo = light(np.clip(np.round(color * even), 0, 255).astype(np.uint8))
    photo = photo if flat is None else flat.apply(photo)
    h, w = photo.shape[:2]
    return measure_reference(photo[h // 3 : 2 * h // 3, w // 3 : 2 * w // 3], known)


def patch(model: NetworkModel, image: np.ndarray, mask: np.ndarray) -> Any:
    "Return the colour of the photo's commonest mineral, and the one that it has in LumenStone's photos."
    names = {mineral.code: mineral.name.replace("-", "/").split("/")[0] for mineral in model.classes}
    codes, counts = np.unique(mask, return_counts=True)
    known = [(n, code) for code, n in zip(codes, counts, strict=True) if names.get(code) in MINERAL_COLORS]
    if not known:
        return None
    code = max(known)[1]
    return np.median(image[mask == code], axis=0), MINERAL_COLORS[names[code]]


class Changed(Sequence[np.ndarray]):
    "The photos after a change, made when they are asked for."

    def __init__(self, samples: Sequence[Sample], change: Change) -> None:
        self.samples, self.change = samples, change

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> np.ndarray:  # type: ignore[override]
        return self.change(self.samples[i].photo())


def options_of(way: str, light: Change, samples: Sequence[Sample], model: NetworkModel, frame: bool) -> dict[str, Any]:
    "Return what the prediction is given, for all photos of a change alike."
    if way == "reference":
        even = even_field(model.flatfield if frame else None, samples[0].shape)
        flat = mirror(light, even) if frame else None
        return {"white_balance": standard(light, even, flat), "flatfield": flat or "none"}
    if way == "auto" and frame and len(samples) >= 8:
        return {"white_balance": "auto", "flatfield": FlatField.from_fields(Changed(samples, light))}
    return {"white_balance": None if way in ("none", "patch") else way}


def measured(
    way: str, name: str, samples: Sequence[Sample], models: Sequence[NetworkModel], scale: float, frame: bool
) -> tuple[float, float]:
    "Return the mean IoU over all photos after a change, met in a way, and the share of photos that are warned of."
    before, after = (in_turn(*changes) for changes in CHANGES[name])
    total, warned = SegmMetrics(models[0].classes), []
    options = options_of(way, before, samples, models[0], frame)
    for sample, model in zip(samples, models, strict=True):
        image, mask = sample.read(model.classes)
        image = after(before(image))
        if way == "patch":
            options = {"white_balance": patch(model, image, mask)}
        found = model.predict(image, scale, **options)
        total += SegmMetrics.from_masks(found.mask, mask, model.classes)
        warned.append(bool(found.verdict and not found.verdict.known))
    return total.mean_iou, float(np.mean(warned))


def table(title: str, samples: Sequence[Sample], models: Sequence[NetworkModel], scale: float, args: Any) -> list[dict]:
    "Print the loss of mean IoU for each change and way."
    print(f"\n{title}\n{'change':<24}" + "".join(f"{way:>24}" for way in args.ways) + f"{'warned of':>12}", flush=True)
    rows, first, frame = [], None, args.root is not None and samples[0].files != ()
    for name in CHANGES:
        found = {way: measured(way, name, samples, models, scale, frame) for way in args.ways}
        first = found[args.ways[0]][0] if first is None else first
        cells = [f"{iou:.4f} loss {first - iou:+.4f}{'!' if first - iou > AIM else ' '}" for iou, _ in found.values()]
        warned = found[args.ways[0]][1]
        print(f"{name:<24}" + "".join(f"{cell:>24}" for cell in cells) + f"{warned:>12.0%}", flush=True)
        rows.append({"change": name, "warned": warned, **{way: round(iou, 5) for way, (iou, _) in found.items()}})
    return rows


def networks(args: Any, samples: Sequence[Sample]) -> tuple[list[Sample], list[NetworkModel]]:
    "Return photos, and the network that answers for each."
    if args.crossval is None:
        model = read_model(args.weights) if args.weights else ResUnet.pretrained()
        return list(samples), [model] * len(samples)
    folder = Path(args.crossval)
    dealt = json.loads((folder / "folds.json").read_text(encoding="utf-8"))["photos"]
    files = {fold: folder / f"fold_{fold}" / "last.safetensors" for fold, _ in dealt.values()}
    models = {fold: read_model(file) for fold, file in files.items() if file.is_file()}
    kept = [sample for sample in samples if dealt[sample.name][0] in models]
    return kept, [models[dealt[sample.name][0]] for sample in kept]


def main() -> int:
    read = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    read.add_argument("--sections", type=int, default=6, help="drawn sections")
    read.add_argument("--root", help="dataset: ROOT/imgs/SPLIT, ROOT/masks/SPLIT")
    read.add_argument("--split", default="train")
    read.add_argument("--scale", type=float, default=0.5, help="scale of the photos under ROOT")
    read.add_argument("--photos", nargs="+", metavar="NAME", help="only these (default: all)")
    read.add_argument("--weights", help="a .safetensors (default: the weights of the package)")
    read.add_argument("--crossval", help="folder of a cross-validation: each photo by the network that has not seen it")
    read.add_argument("--ways", nargs="+", choices=WAYS, default=["none", "auto", "reference"])
    read.add_argument("--json", help="write the figures here too")
    args = read.parse_args()
    tables = {}
    if args.sections:
        model = read_model(args.weights) if args.weights else ResUnet.pretrained()
        seeds = range(20_000, 20_000 + args.sections)
        drawn = samples_of([scene(minerals=model.classes.labels, seed=seed, scale=0.5) for seed in seeds])
        tables["drawn"] = table(f"{len(drawn)} drawn sections", drawn, [model] * len(drawn), 0.5, args)
    if args.root:
        photos = [s for s in LumenStone(args.root, "S1v1", args.split) if s.name in (args.photos or [s.name])]
        samples, models = networks(args, photos)
        tables["photos"] = table(f"{len(samples)} photos of {args.split}", samples, models, args.scale, args)
    if args.json:
        Path(args.json).write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
