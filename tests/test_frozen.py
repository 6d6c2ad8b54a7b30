"""What petroscope answers, held to the byte, so that no rebuilding changes a result unnoticed.

`frozen.json` holds the answers, and the machine that gave them. On such a machine every answer must be the same to the
byte. Elsewhere processor and libraries may round the last bit differently: there, what comes of whole numbers must be
the same, and what comes of a network or of resampling must be near. After an intended change of results:

    python tests/test_frozen.py --write [CASE ...]

On another machine, write the file from the commit before a change first, and test the change against that.
"""

import base64
import contextlib
import csv
import hashlib
import importlib
import io
import json
import os
import platform
import re
import sys
import tempfile
import warnings
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
FROZEN = ROOT / "tests" / "frozen.json"


class Held(NamedTuple):
    "An answer: a hash of its bytes, and what a machine that rounds differently is compared with."

    kind: str  # Name of the function that made it
    sha256: str
    near: Any = None


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def of_array(array):
    array = np.ascontiguousarray(array)
    return digest(f"{array.dtype.name} {array.shape}".encode(), array.tobytes())


def codes(mask):
    "A mask of class codes; elsewhere most pixels must be the same, see `MAY_DIFFER`."
    return Held("codes", of_array(mask), base64.b64encode(cv2.imencode(".png", mask)[1].tobytes()).decode())


def picture(pixels):
    "Pixels or other numbers, `(H, W)` or `(H, W, C)`; elsewhere their means in 8 x 8 blocks must be near."
    means = np.asarray(pixels, np.float64)
    for axis in 0, 1:
        means = np.stack([part.mean(axis) for part in np.array_split(means, min(8, means.shape[axis]), axis)], axis)
    return Held("picture", of_array(pixels), " ".join(f"{x:.5g}" for x in means.ravel()))


def text(content):
    "Words and numbers, such as a table; elsewhere the numbers must be near."
    return Held("text", digest(content.encode()), content.splitlines())


def numbers(values):
    "Numbers by name, or a list of them, as text."
    return text("\n".join(f"{k}: {v!r}" for k, v in values.items()))


def columns(content):
    "A table of what a network said; elsewhere only its first row must be the same."
    return Held("columns", digest(content.encode()), content.splitlines()[0])


def whole(*parts):
    "Whole numbers and words, the same on every machine."
    return Held(
        "whole", digest(*(of_array(p).encode() if isinstance(p, np.ndarray) else str(p).encode() for p in parts))
    )


def here(data):
    "What another machine is not asked for."
    return Held("here", of_array(data))


def read_text(path):
    "The text of a file; of a table without the times that something took."
    content = path.read_text(encoding="utf-8-sig")
    rows = list(csv.reader(content.splitlines())) if path.suffix == ".csv" else [[]]
    kept = [i for i, name in enumerate(rows[0]) if not re.search("seconds|time", name)]
    if len(kept) == len(rows[0]):
        return content
    return "\n".join(",".join(row[i] for i in kept) for row in rows)


def levels(path):
    "The pixels in a file; those of all levels of a pyramid."
    if path.suffix in (".tif", ".tiff"):
        tifffile = pytest.importorskip("tifffile")
        with tifffile.TiffFile(path) as file:
            return [level.asarray() for level in file.series[0].levels]
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return [found if found.ndim == 2 else found[..., [2, 1, 0]]]


def files(folder, **kinds):
    "The files of a folder as answers, by name; `kinds`: how to hold those whose names end so, `_mask_png=codes`."
    every = sorted(p for p in folder.rglob("*") if p.is_file())
    # Parquet is written only where a package for it is installed.
    found = {"files": text("\n".join(p.relative_to(folder).as_posix() for p in every if p.suffix != ".parquet"))}
    for path in every:
        for end, hold in kinds.items():
            if path.name.replace(".", "_").endswith(end):
                name = path.relative_to(folder).as_posix()
                if hold in (text, columns):
                    found[name] = hold(read_text(path))
                else:
                    pixels = levels(path)
                    found |= {name + (f" level {i}" if len(pixels) > 1 else ""): hold(p) for i, p in enumerate(pixels)}
    assert len(found) > 1 or not kinds, f"no file in {folder} ends in {', '.join(kinds)}"
    return found


@cache
def public(name):
    "A definition of the package, in whichever module it lives."
    from petroscope._modidx import d

    homes = [module for module, names in d["syms"].items() if f"{module}.{name}" in names]
    assert len(homes) == 1, f"{name} is defined in {homes or 'no module'}: name it as it is called now"
    return getattr(importlib.import_module(homes[0]), name)


def command(*argv, status=0):
    from petroscope.cli.main import main

    assert main([*map(str, argv)]) == status, f"petroscope {' '.join(map(str, argv))}"


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
    return path


def s1():
    from petroscope.segmentation.classes import LumenStoneClasses

    return LumenStoneClasses.S1v1


@cache
def drawn(seed, shape=(150, 200)):
    "A drawn photo and its mask."
    return public("scene")(shape, seed=seed, scale=0.5)


@cache
def ore(seed, shape=(130, 170), grains=45):
    "A mask drawn by whole numbers: the nearest of some points decides, and a strip is void."
    rng = np.random.default_rng(seed)
    row, col = (rng.integers(0, side, grains) for side in shape)
    away = (np.arange(shape[0])[:, None, None] - row) ** 2 + (np.arange(shape[1])[:, None] - col) ** 2
    mask = rng.choice(np.array(s1().codes, np.uint8), grains)[away.argmin(-1)]
    mask[away.min(-1) < 9] = s1()["BG"].code
    mask[:, 60:63] = 255
    return mask


def lit(mask, seed):
    "A photo of a mask, drawn by whole numbers."
    rng = np.random.default_rng(seed)
    colors = rng.integers(40, 220, (256, 3))
    return np.clip(colors[mask] + rng.integers(-9, 10, (*mask.shape, 3)), 0, 255).astype(np.uint8)


@cache
def photographed():
    "Fields of a drawn section."
    return public("fields")(2, 3, (200, 260), overlap=0.3, jitter_px=4, seed=3)


def save_fields(folder):
    return [save(folder / f"field_{i}.png", image) for i, image in enumerate(photographed().images)]


CASES = {}


def case(rests_on):
    "A door, whose answers rest on whole numbers, on rounding, or on a network."

    def keep(function):
        CASES[function.__name__] = rests_on, function
        return function

    return keep


# ---------------------------------------------------------------------------------------------------------- drawing


@case("rounding")
def synth(folder):
    fields = photographed()
    return {
        "photo": picture(drawn(4).image),
        "mask": codes(drawn(4).mask),
        "first field": picture(fields.images[0]),
        "mask of the last field": codes(fields.masks[-1]),
        "positions": text(str(fields.positions.round(6).tolist())),
    }


# ------------------------------------------------------------------------------------------- commands: segmentation

SEGMENTED = {"_mask_png": codes, "_confidence_png": picture, "_colored_png": picture, "_overlay_jpg": picture}
SEGMENTED |= {"_mask_tif": codes, "_confidence_tif": picture, "_minerals_csv": columns}


@case("network")
def segment(folder):
    photos = [save(folder / f"{seed}.png", drawn(seed).image) for seed in (4, 5)]
    command("segment", *photos, "--out", folder / "o", "--scale", 0.5, "--confidence")
    return files(folder / "o", **SEGMENTED)


@case("network")
def segment_with_options(folder):
    photo = save(folder / "a.png", drawn(4).image)
    views = "--augment", 4, "--white-balance", "grey-world", "--weights", "s1v1-small"
    command("segment", photo, "--out", folder / "o/views", "--scale", 0.4, *views)
    command("segment", photo, "--out", folder / "o/shift", "--scale", 0.5, "--label-shift", 0)
    return files(folder / "o", _mask_png=codes, _minerals_csv=columns)


@case("network")
def segment_beside_transparency(folder):
    opaque = np.full((150, 200, 1), 255, np.uint8)
    opaque[:40, :70] = 0
    photo = save(folder / "a.png", np.concatenate([drawn(6).image, opaque], axis=2))
    command("segment", photo, "--out", folder / "o", "--scale", 0.5)
    return files(folder / "o", _mask_png=codes, _minerals_csv=columns)


@case("network")
def segment_a_tiled_section(folder):
    tifffile = pytest.importorskip("tifffile")
    image = drawn(7, (260, 330)).image.copy()
    image[:90, :80] = 0
    tifffile.imwrite(folder / "a.tif", image, tile=(64, 64), photometric="rgb", compression="deflate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("petroscope.cli.segment.SECTION_PX", 0)
        for outside in "void", "background", "keep":
            out = folder / "o" / outside
            command("segment", folder / "a.tif", "--out", out, "--scale", 0.5, "--outside", outside, "--confidence")
    return files(folder / "o", **SEGMENTED)


def drawn_set(folder, split, *seeds):
    for seed in seeds:
        save(folder / f"imgs/{split}/{seed}.png", drawn(seed).image)
        save(folder / f"masks/{split}/{seed}.png", drawn(seed).mask)
    return folder


EVALUATED = {"metrics_json": columns, "metrics_csv": columns, "photos_csv": columns, "comparison_csv": columns}


@case("network")
def evaluate(folder):
    argv = "evaluate", drawn_set(folder / "set", "test", 4, 5), "--classes", "S1v1", "--scale", 0.5
    command(*argv, "--void", 2, "--out", folder / "o/run")
    command(*argv, "--void", 2, "--label-shift", 0, "--no-pictures", "--out", folder / "o/plain")
    command("compare", folder / "o/run", folder / "o/plain", "--out", folder / "o/both")
    return files(folder / "o", **EVALUATED, prediction_png=codes, errors_png=picture)


@case("whole numbers")
def evaluate_masks(folder):
    for seed in range(3):
        guess = ore(seed).copy()
        guess[20:50, 80:] = ore(seed + 9)[20:50, 80:]
        guess[guess == 255] = 0
        save(folder / f"pred/{seed}.png", guess)
        save(folder / f"true/{seed}.png", ore(seed))
    where = "--pred", folder / "pred", "--target", folder / "true", "--classes", "S1v1", "--void", 3
    command("evaluate", *where, "--out", folder / "o", "--no-pictures")
    return files(folder / "o", metrics_json=text, metrics_csv=text, photos_csv=text, figures_json=columns)


@case("network")
def train(folder):
    where = drawn_set(folder / "set", "train", 4, 5, 6, 8)
    how = {"steps": 4, "batch_size": 3, "patch_size": 32, "validate_every": 2, "scale": 0.5, "jpeg_quality": 80}
    argv = ["train", where, "--filters", 4, "--depth", 2, "--hold-out", 0.25, "--tensorboard", "off"]
    command(*argv, *(f"--set={k}={v}" for k, v in how.items()), "--out", folder / "o")
    from safetensors.numpy import load_file

    answers = {}
    for name in "best", "last":
        weights = load_file(folder / f"o/{name}.safetensors")
        answers[name] = here(np.concatenate([weights[key].astype(np.float64).ravel() for key in sorted(weights)]))
    return answers | {"history.csv": columns(read_text(folder / "o/history.csv"))}


# ----------------------------------------------------------------------------------- commands: panoramas and analysis


STITCHED = {"ome_tif": picture, "_positions_csv": text, "_preview_jpg": picture}


@case("rounding")
def stitch_with_positions(folder):
    fields = save_fields(folder)
    places = [f"{p.name},{r:.0f},{c:.0f}" for p, (r, c) in zip(fields, photographed().nominal, strict=True)]
    (folder / "p.csv").write_text("\n".join(["field,row,col", *places]), encoding="utf-8")
    out = folder / "o/a.ome.tif"
    out.parent.mkdir()
    command("stitch", *fields, "--out", out, "--positions", folder / "p.csv", "--pixel-size-um", 0.65)
    return files(folder / "o", **STITCHED)


@case("rounding")
def stitch_without_positions(folder):
    (folder / "o").mkdir()
    command(
        "stitch", *save_fields(folder), "--out", folder / "o/a.ome.tif", "--blend", "multiband", "--flatfield", "none"
    )
    return files(folder / "o", **STITCHED)


@case("rounding")
def stitch_a_grid(folder):
    (folder / "o").mkdir()
    how = "--grid", "2x3", "--overlap", 0.3, "--model", "affine", "--distortion"
    command("stitch", *save_fields(folder), "--out", folder / "o/a.ome.tif", *how)
    return files(folder / "o", **STITCHED)


@case("rounding")
def calibrate(folder):
    (folder / "o").mkdir()
    fall = 1 - 0.2 * (((np.indices((90, 120)) - np.array([44, 61])[:, None, None]) / 60.0) ** 2).sum(0)
    noise = np.random.default_rng(5).integers(-2, 3, (3, 90, 120, 3))
    mirror = [save(folder / f"{i}.png", (200 * fall[..., None] + noise[i]).astype(np.uint8)) for i in range(3)]
    command("calibrate", *mirror, "--out", folder / "o/mirror.tif")
    scans = public("fields")(3, 3, (120, 160), overlap=0.3, jitter_px=2, seed=4).images
    scans = [save(folder / f"f{i}.png", image) for i, image in enumerate(scans)]
    command("calibrate", *scans, "--fields", "--out", folder / "o/fields.tif")
    return files(folder / "o", tif=picture)


ANALYSED = ("modal_csv", "grains_csv", "contacts_csv", "sizes_csv", "inclusions_csv", "ore_contact_csv")
ANALYSED += ("liberation_csv", "parting_csv")


@case("whole numbers")
def analyse_masks(folder):
    masks = [save(folder / f"{seed}.png", ore(seed, grains=18)) for seed in (1, 2)]
    command("analyse", *masks, "--out", folder / "o/plain", "--pixel-size-um", 0.5)
    how = "--resin", "BG", "--neck", 0.7, "--correction", "miles-lantuejoul", "--min-area", 20, "--no-geojson"
    command("analyse", *masks, "--out", folder / "o/resin", "--pixel-size-um", 0.5, *how)
    shapes = {path.name: whole(shapes_of(path)) for path in sorted((folder / "o/plain").glob("*.geojson"))}
    return files(folder / "o", **dict.fromkeys(ANALYSED, text), _minerals_png=picture) | shapes


def shapes_of(path):
    "Names and outlines of the objects of a GeoJSON file."
    objects = json.loads(read_text(path))["features"]
    return json.dumps([(f["geometry"], f["properties"].get("classification")) for f in objects])


@case("network")
def analyse_photos(folder):
    photos = [save(folder / f"{seed}.png", drawn(seed).image) for seed in (4, 5)]
    command("analyse", *photos, "--out", folder / "o", "--pixel-size-um", 0.5, "--scale", 0.5)
    return files(folder / "o", **dict.fromkeys(ANALYSED, columns), _minerals_png=picture, _mask_png=codes)


# ------------------------------------------------------------------------------------------------------------ Python


def by_color(prior=None, scale=1.0):
    "A model that needs no network: probabilities fall with the distance of colours."
    from petroscope.segmentation.model import GeoSegmModel

    colors = np.random.default_rng(8).integers(40, 220, (len(s1()), 3))

    class ByColor(GeoSegmModel):
        multiple, tile = 8, 128

        def predict_batch(self, batch):
            away = [((batch.astype(np.int64) - color) ** 2).sum(-1) for color in colors]
            likely = 1.0 / (400 + np.stack(away, axis=1)) ** 2
            return (likely / likely.sum(1, keepdims=True)).astype(np.float32)

        def save(self, path):
            raise NotImplementedError

        @classmethod
        def load(cls, path, device="cpu", classes=None):
            raise NotImplementedError

    return ByColor(s1(), scale, prior)


def predicted(name, answer):
    return {
        f"{name}: mask": codes(answer.mask),
        f"{name}: confidence": picture(answer.confidence),
        f"{name}: probabilities": picture(np.moveaxis(answer.probs, 0, -1)),
    }


@case("rounding")
def predict(folder):
    image, shares = lit(ore(3), 3), np.array([0.4, 0.2, 0.1, 0.05, 0.1, 0.1, 0.05])
    model = by_color()
    answers = predicted("plain", model.predict(image, 1.0, probs=True))
    answers |= predicted("views", model.predict(image, 0.8, probs=True, augment=8, overlap=32, tile=64))
    model.temperature, model.mean_color = 1.8, (230.0, 120.0, 70.0)
    answers |= predicted("temperature", model.predict(image, 1.0, probs=True))
    answers |= predicted("light", model.predict(image, 1.0, probs=True, white_balance="grey-world+exposure"))
    model = by_color(shares, 0.5)
    model.temperature, model.presence = 1.4, 0.02
    answers |= predicted("label shift", model.predict(image, 1.0, probs=True))
    answers |= predicted("all of it", model.predict(image, 1.0, probs=True, label_shift=1.0))
    answers["mask alone"] = codes(model.predict_image(image, 1.0))
    answers["probabilities alone"] = picture(np.moveaxis(model.predict_probs(image, 1.0), 0, -1))
    return answers


@case("rounding")
def predict_from_file_to_file(folder):
    image, model = lit(ore(4, (300, 240), 90), 4), by_color(np.full(7, 1 / 7), 0.8)
    image[100:160, :90] = 0
    model.temperature = 1.5
    how = {"augment": 4, "overlap": 32, "outside": "void"}
    public("predict_file")(model, image, folder / "m.tif", 1.0, confidence=folder / "c.tif", **how)
    return files(folder, m_tif=codes, c_tif=picture)


@case("network")
def resunet(folder):
    from petroscope.segmentation.resunet import ResUnet

    # In one precision: a processor that multiplies bfloat16 takes that by itself, and answers a little differently.
    model = ResUnet.pretrained(device="cpu", precision="float32")
    model.save(folder / "copy.safetensors")
    answers = predicted("pretrained", model.predict(drawn(9).image, 0.5, probs=True))
    again = ResUnet.load(folder / "copy.safetensors", "cpu", precision="float32")
    return answers | predicted("copy", again.predict(drawn(9).image, 0.6, probs=True, augment=8))


@case("rounding")
def segm_detailed_tester(folder):
    from petroscope.segmentation.evaluate import SegmDetailedTester

    photos = [(f"n{seed}", lit(ore(seed), 8), ore(seed)) for seed in range(3)]
    tester = SegmDetailedTester(folder, s1(), void=["lumenstone", 2], resamples=300)
    tester.test_on_set(photos, by_color(np.full(7, 1 / 7)), "drawn", scale=1.0)
    return files(folder / "drawn", metrics_json=text, metrics_csv=text, photos_csv=text, prediction_png=codes)


@case("whole numbers")
def metrics(folder):
    from petroscope.segmentation.metrics import SegmMetrics

    parts = [SegmMetrics.from_masks(np.where(ore(i) == 255, 0, ore(i)), ore(i + 4), s1()) for i in range(2)]
    return {"counts of both": text(str(sum(parts, SegmMetrics(s1())).to_dict()))}


@case("whole numbers")
def self_balancing_dataset(folder):
    from petroscope.segmentation.balancer import SelfBalancingDataset

    pairs = [(lit(ore(i), i), ore(i)) for i in range(4)]
    plain = SelfBalancingDataset(pairs, s1(), 32, void_border_width=2, seed=5)
    picky = SelfBalancingDataset(pairs, s1(), 24, candidates=3, patch_positioning_accuracy=1.0, seed=6, acceleration=1)
    return {
        "balanced": whole(*(part for _, pair in zip(range(60), plain.balanced(), strict=False) for part in pair)),
        "uniform": whole(*(part for _, pair in zip(range(20), plain.uniform(), strict=False) for part in pair)),
        "best of three": whole(*(part for _, pair in zip(range(40), picky.balanced(7), strict=False) for part in pair)),
        "batches": whole(*(part for pair in plain.batches(3, first=2, steps=4, rank=1, world_size=2) for part in pair)),
        "pixels handed out": numbers(plain.accumulators(60)),
    }


@case("rounding")
def self_balancing_dataset_augmented(folder):
    from petroscope.segmentation.balancer import SelfBalancingDataset

    pairs = [(lit(ore(i), i), ore(i)) for i in range(4)]
    augment = public("Augment")(jpeg_quality=70)
    data = SelfBalancingDataset(pairs, s1(), 48, augment=augment, seed=5)
    patches, masks = zip(*(data.item(k) for k in range(16)), strict=True)
    return {"patches": picture(np.concatenate(patches)), "masks": codes(np.concatenate(masks))}


@case("rounding")
def panorama(folder):
    from petroscope.panorama.panorama import Panorama

    (folder / "o").mkdir()
    fields = save_fields(folder)
    masks = [save(folder / f"mask_{i}.png", mask) for i, mask in enumerate(photographed().masks)]
    made = Panorama.from_fields(fields, photographed().nominal, pixel_size_um=0.65).align("rigid")
    made.compose(folder / "o/picture.tif", blend="none")
    made.compose_masks(masks, folder / "o/mask.tif")
    made.report().to_csv(folder / "o/fields.csv")
    answers = files(folder / "o", picture_tif=picture, mask_tif=codes, csv=text)
    return answers | {"matrices": text(str(made.matrices().round(5).tolist())), "preview": picture(made.preview(300))}


@case("whole numbers")
def grains_and_contacts(folder):
    found = public("find_grains")(ore(5, grains=20), s1(), 0.5, resin="BG", min_area=12)
    parted = public("find_grains")(ore(6, grains=25), s1(), neck=0.75, connectivity=4)
    for name, table in ("grains", found), ("parted", parted), ("contacts", public("contacts")(found)):
        table.to_csv(folder / f"{name}.csv")
    answers = files(folder, csv=text)
    answers["liberation"] = text("\n".join(str(tuple(line)) for line in public("liberation")(found)))
    answers["numbers of grains"] = whole(public("label_picture")(ore(6, grains=25), parted))
    answers["modal"] = text(public("modal")([ore(5), ore(6)], s1()).to_csv())
    return answers


@case("whole numbers")
def polygons(folder):
    mask, path = ore(7), folder / "a.geojson"
    answers = {"objects": numbers({"grains": public("write_geojson")(path, mask, s1(), leave_out=["BG"])})}
    answers["outlines"], answers["painted"] = whole(shapes_of(path)), codes(public("read_geojson")(path, s1()))
    public("write_geojson")(path, mask, s1(), each="mineral")
    answers["outlines of minerals"] = whole(shapes_of(path))
    for how in "rle", "polygon":
        public("write_coco")(folder / "a.json", {"a.png": mask}, s1(), segmentation=how)
        answers[f"COCO, {how}"] = whole(json.dumps(json.loads(read_text(folder / "a.json"))["annotations"]))
    public("write_colored")(folder / "c.png", mask, s1())
    answers["colours"] = codes(public("read_colored")(folder / "c.png", s1()))
    public("write_label_tiff")(folder / "l.ome.tif", mask, 0.5, tile=64)
    return answers | files(folder, l_ome_tif=codes)


# -------------------------------------------------------------------------------------------------------- comparison


@cache
def machine():
    "What the last bits of an answer may hang on."
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else [f"flags : {platform.processor()}"]
    told = {"system": f"{platform.system()} {platform.machine()}"}
    switches = "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "NPY_DISABLE_CPU_FEATURES", "OPENCV_CPU_DISABLE"
    told |= {name: os.environ[name] for name in switches if name in os.environ}
    told["processor"] = digest(
        *sorted({x.encode() for x in lines if x.startswith(("model name", "flags", "Features"))})
    )
    for name in "numpy", "scipy", "opencv-python", "pillow", "tifffile", "imagecodecs", "torch":
        try:
            told[name] = version(name)
        except PackageNotFoundError:
            told[name] = "none"
    return told


def read_frozen():
    return json.loads(FROZEN.read_text(encoding="utf-8")) if FROZEN.exists() else {"machine": {}, "answers": {}}


def pixels_of(near):
    return cv2.imdecode(np.frombuffer(base64.b64decode(near), np.uint8), cv2.IMREAD_UNCHANGED)


NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def near_lines(was, now):
    "Whether two lines have the same words, and numbers that differ by their rounding."
    one, two = ([float(x) for x in NUMBER.findall(line)] for line in (was, now))
    return NUMBER.sub("#", was) == NUMBER.sub("#", now) and np.allclose(one, two, rtol=2e-3, atol=2e-3)


# Elsewhere: share of a mask's pixels. Of 30,000 pixels 1 differed with older instructions of the same processor, and
# up to 72 where the network computed in bfloat16, as it does on processors that have it.
MAY_DIFFER = {"whole numbers": 0.0, "rounding": 0.001, "network": 0.005}


def differs(was, now, share):
    "How two answers differ, or nothing; `share`: how much of a mask may differ; None: no bit of anything may."
    strict = share is None
    if was.sha256 == now.sha256:
        return ""
    if was.kind != now.kind:
        return f"was held by {was.kind}(), is held by {now.kind}()"
    if now.kind == "codes":
        one, two = pixels_of(was.near), pixels_of(now.near)
        if one.shape != two.shape or one.dtype != two.dtype:
            return f"is {two.shape} {two.dtype}, was {one.shape} {one.dtype}"
        places = np.argwhere(one != two)
        if strict or len(places) > share * one.size:
            row, col = map(int, places[0][:2])
            first = f"row {row}, column {col}: {two[row, col]}, was {one[row, col]}"
            return f"{len(places)} of {one.size} pixels are other ones, the first at {first}"
    if now.kind == "picture":
        one, two = (np.array(held.near.split(), float) for held in (was, now))
        off = np.abs(one - two).max() if one.shape == two.shape else np.inf
        if strict or off > max(8 * share * np.abs(one).max(), 1e-6):
            return f"numbers are other ones, and means of blocks by up to {off:g} (largest: {np.abs(one).max():g})"
    if now.kind in ("text", "columns"):
        one, two = ([held.near] if now.kind == "columns" else held.near for held in (was, now))
        other = [(i, a, b) for i, (a, b) in enumerate(zip(one, two)) if (a != b if strict else not near_lines(a, b))]
        if other or len(one) != len(two):
            i, a, b = other[0] if other else (min(len(one), len(two)), "", "")
            first = f"the first is line {i + 1}:\n  was {a}\n  is  {b}"
            return f"{len(two)} lines, were {len(one)}; {len(other)} differ, {first}"
        return "numbers are other ones" if strict else ""
    return "is another one" if strict else ""


def answers_of(name, folder):
    rests_on, function = CASES[name]
    if rests_on == "network":
        torch = pytest.importorskip("torch", reason="PyTorch is not installed")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
    before = Path.cwd()
    os.chdir(folder)  # answers name files as they were given
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(Path())
    finally:
        os.chdir(before)
        if rests_on == "network":
            torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CASES)
def test_answers_are_what_they_were(name, tmp_path):
    frozen = read_frozen()
    was = {output: Held(*held) for output, held in frozen["answers"].get(name, {}).items()}
    now = answers_of(name, tmp_path)
    same_machine = frozen["machine"] == machine()
    faults = [f"{output}: is new" for output in now if output not in was]
    for output, held in was.items():
        if output not in now:
            faults.append(f"{output}: is missing")
            continue
        exact = same_machine or held.kind == "whole"
        fault = differs(held, now[output], None if exact else MAY_DIFFER[CASES[name][0]])
        faults += [f"{output}: {fault}"] if fault else []
    how = f"If this is meant: python tests/test_frozen.py --write {name}"
    assert not faults, "\n".join([f"{name}: {len(faults)} of {len(was)} answers changed", *faults, how])


def test_nothing_is_held_that_no_case_asks_for():
    assert sorted(read_frozen()["answers"]) == sorted(CASES)


def test_changes_are_found():
    mask = ore(1)
    other = mask.copy()
    other[5, 7] += 1
    assert differs(codes(mask), codes(mask), None) == "" == differs(codes(mask), codes(other), 0.001)
    assert "1 of 22100 pixels" in differs(codes(mask), codes(other), None)
    assert "pixels are other ones" in differs(codes(mask), codes(np.roll(mask, 1, 0)), 0.001)
    assert "is (130, 169)" in differs(codes(mask), codes(mask[:, 1:]), 0.001)
    image = lit(mask, 1)
    assert differs(picture(image), picture(image ^ 1), 0.001) == ""
    assert "other ones" in differs(picture(image), picture(image ^ 1), None)
    assert "means of blocks" in differs(picture(image), picture(image[::-1]), 0.001)
    assert differs(text("a,1.0\nb,2.0"), text("a,1.0\nb,2.0001"), 0.001) == ""
    assert "line 2" in differs(text("a,1.0\nb,2.0"), text("a,1.0\nb,2.1"), 0.001)
    assert "lines, were 2" in differs(text("a\nb"), text("a"), 0.001)
    assert differs(columns("a,b\n1,2"), columns("a,b\n1,3"), 0.001) == ""
    assert differs(columns("a,b\n1,2"), columns("a,b\n1,3"), None) and differs(columns("a,b"), columns("a,c"), 0.001)
    assert differs(whole(mask), whole(other), None) and whole("a", "b") != whole("ab")


def write(names):
    "Write the answers of these cases, or of all."
    frozen = read_frozen()
    if names and frozen["machine"] != machine():
        sys.exit("these answers come from another machine: write all of them (no CASE)")
    kept = {name: held for name, held in frozen["answers"].items() if name in CASES} if names else {}
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            kept[name] = answers_of(name, Path(folder))
    lines = [f'"machine": {json.dumps(machine())}', '"answers": {']
    cases = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f"{json.dumps(o)}: {json.dumps(h)}" for o, h in kept[name].items())
        + "}"
        for name in CASES
    ]
    FROZEN.write_text("{" + ",\n".join(lines) + "\n" + ",\n".join(cases) + "}}\n", encoding="utf-8")
    print(f"{FROZEN}: {sum(map(len, kept.values()))} answers of {len(kept)} cases")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:2] != ["--write"] or not set(sys.argv[2:]) <= set(CASES):
        sys.exit(f"{__doc__}\ncases: {', '.join(CASES)}")
    write(sys.argv[2:])
