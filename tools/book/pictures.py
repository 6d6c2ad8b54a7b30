"The pictures of the front page and of the gallery."

import base64
import posixpath
import sys
from pathlib import Path

import cv2
import numpy as np

from .pages import ROOT, docname

THUMBNAIL = (480, 300)  # width and height, in px
HERO = (1600, 620)
SHARES = {"BG": 0.14, "Py/Mrc": 0.26, "Sph": 0.26, "Ccp": 0.14, "Gl": 0.12, "Brt": 0.05, "Tnt/Ttr": 0.03}


def hero(path: Path) -> None:
    "A drawn polished section that turns, from left to right, from the photo into its minerals."
    sys.path.insert(0, str(ROOT))
    from petroscope.plot import overlay
    from petroscope.segmentation.classes import LumenStoneClasses
    from petroscope.synth import scene

    width, height = HERO
    photo, mask = scene((height, width), seed=4, shares=SHARES)
    marked = overlay(photo, mask, LumenStoneClasses.S1v1, opacity=0.65)
    # A slanted line parts the two; both sides are whole, nothing is blended.
    rows, cols = np.mgrid[:height, :width]
    place = cols - (0.5 * width + 0.22 * (height / 2 - rows))
    picture = np.where((place > 0)[..., None], marked, photo)
    picture[np.abs(place) < 2.5] = 255
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def figures(notebook: dict) -> list[tuple[bool, np.ndarray]]:
    "The PNG outputs of a notebook, and whether their cell is tagged as the thumbnail."
    found = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {}).get("image/png")
            if data:
                raw = np.frombuffer(base64.b64decode("".join(data)), np.uint8)
                picture = cv2.imdecode(raw, cv2.IMREAD_COLOR)
                if picture is not None:
                    found.append(("thumbnail" in cell["metadata"].get("tags", []), picture))
    return found


def liveliness(picture: np.ndarray) -> float:
    "How much of a picture is neither white paper nor grey: figures of ore come before curves."
    paper = (picture > 245).all(2).mean()
    saturation = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)[..., 1] / 255
    return float((1 - paper) + saturation.mean())


def trimmed(picture: np.ndarray) -> np.ndarray:
    "A figure without its white margin."
    ink = (picture < 245).any(2)
    rows, cols = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return picture[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] if len(rows) else picture


def thumbnail(notebook: dict) -> np.ndarray | None:
    "A small picture for the gallery: the tagged figure, or else the one that shows most."
    found = figures(notebook)
    if not found:
        return None
    picture = trimmed(max(found, key=lambda item: (item[0], liveliness(item[1])))[1])
    width, height = THUMBNAIL
    # The upper left part at the card's proportions, never enlarged beyond what the figure has.
    rows, cols = picture.shape[:2]
    scale = max(width / cols, height / rows)
    small = cv2.resize(
        picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    return small[:height, :width]


def write_thumbnails(folder: Path, notebooks: dict[str, dict]) -> set[str]:
    "The thumbnails of the tutorials; returns the names of those that have one."
    folder.mkdir(parents=True, exist_ok=True)
    done = set()
    for name, notebook in notebooks.items():
        picture = thumbnail(notebook) if name.startswith("tutorials/") else None
        if picture is not None:
            stem = docname(posixpath.basename(name))
            cv2.imwrite(str(folder / f"{stem}.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
            done.add(stem)
    return done
