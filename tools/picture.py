"""Draw docs/_static/front.jpg, the picture of README.md and of the site's front page: make picture

Drawn fields of a made-up polished section, the panorama that `petroscope stitch` makes of them, and its minerals as the
shipped network sees them. Nothing in it was photographed, and nothing but this script decides what it shows.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from petroscope import synth
from petroscope.io.files import atomic_path
from petroscope.io.images import read_image, write_image
from petroscope.panorama.panorama import Panorama
from petroscope.segmentation.resunet import ResUnet
from petroscope.view import plot

TARGET = Path(__file__).resolve().parent.parent / "docs" / "_static" / "front.jpg"
ROWS, COLUMNS = 3, 4
EDGE = 20
INK, PAPER = "#1f2328", "white"


def desk(fields: list[np.ndarray], gap: int = 24) -> np.ndarray:
    "The fields side by side, as they come from the microscope."
    height, width = fields[0].shape[:2]
    picture = np.full((ROWS * (height + gap) - gap, COLUMNS * (width + gap) - gap, 3), 255, np.uint8)
    for i, field in enumerate(fields):
        row, column = i // COLUMNS * (height + gap), i % COLUMNS * (width + gap)
        picture[row : row + height, column : column + width] = field
    return picture


def main() -> None:
    drawn = synth.fields(ROWS, COLUMNS, (480, 640), overlap=0.2, seed=11)
    model = ResUnet.pretrained("s1v1")
    with tempfile.TemporaryDirectory() as folder:
        photos = [Path(folder) / f"field_{i:02}.png" for i in range(len(drawn.images))]
        for path, image in zip(photos, drawn.images, strict=True):
            write_image(path, image)
        panorama = Panorama.from_fields(photos, grid=(ROWS, COLUMNS), overlap=0.2)
        panorama.align()
        panorama.compose(Path(folder) / "section.ome.tif")
        # The stage wanders, so the edge of a panorama is ragged.
        section = read_image(Path(folder) / "section.ome.tif")[EDGE:-EDGE, EDGE:-EDGE]
    mask = model.predict_image(section, scale=0.5)
    panels = [
        (f"{len(photos)} photos", desk(drawn.images)),
        ("one panorama", section),
        ("its minerals", plot.overlay(section, mask, model.classes, opacity=0.75)),
    ]
    figure, axes = plt.subplots(1, 3, figsize=(15, 3.75), facecolor=PAPER, gridspec_kw={"wspace": 0.04})
    for axis, (title, picture) in zip(axes, panels, strict=True):
        axis.imshow(picture, interpolation="lanczos")
        axis.set_title(title, color=INK, fontsize=17, pad=8)
        axis.axis("off")
    rows = [row for row in plot.areas(mask, model.classes) if row[-1] >= 0.5]
    colors = {mineral.label: mineral.color for mineral in model.classes}
    boxes = [plt.Rectangle((0, 0), 1, 1, color=np.array(colors[row[0]]) / 255, ec=INK, lw=0.4) for row in rows]
    texts = [f"{row[1]}  {row[-1]:.0f} %" for row in rows]
    figure.legend(boxes, texts, loc="lower center", ncols=len(rows), frameon=False, fontsize=13, labelcolor=INK)
    figure.subplots_adjust(0.005, 0.13, 0.995, 0.9)
    with atomic_path(TARGET) as path:
        figure.savefig(path, dpi=110, pil_kwargs={"quality": 88})
    print(f"{TARGET.name}: {TARGET.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
