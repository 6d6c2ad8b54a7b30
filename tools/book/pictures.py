"The pictures of the front page and of the gallery."

import base64
import posixpath
import re
import sys
from pathlib import Path

import cv2
import numpy as np

from .pages import ROOT, docname, words

THUMBNAIL = (480, 300)  # width and height, in px
HERO = (1600, 620)
# Marks the cell whose figure stands for its tutorial in the gallery; `#| thumbnail: 2` names its second panel.
MARK = re.compile(r"thumbnail(?:: *(\d+))?")
SHARES = {"BG": 0.14, "Py/Mrc": 0.26, "Sph": 0.26, "Ccp": 0.14, "Gl": 0.12, "Brt": 0.05, "Tnt/Ttr": 0.03}


def hero(path: Path) -> None:
    "A drawn polished section that turns, from left to right, from the photo into its minerals."
    sys.path.insert(0, str(ROOT))
    from petroscope.segmentation.classes import LumenStoneClasses
    from petroscope.synth.rock import scene
    from petroscope.view.plot import overlay

    width, height = HERO
    photo, mask = scene((height, width), seed=4, shares=SHARES)
    marked = overlay(photo, mask, LumenStoneClasses.S1v1, opacity=0.65)
    # A slanted line parts the two; both sides are whole, nothing is blended.
    rows, cols = np.mgrid[:height, :width]
    place = cols - (0.5 * width + 0.22 * (height / 2 - rows))
    picture = np.where((place > 0)[..., None], marked, photo)
    picture[np.abs(place) < 2.5] = 255
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def figures(notebook: dict) -> list[tuple[str, np.ndarray]]:
    "The pictures that a notebook shows, each with the directive that makes it a thumbnail, or an empty string."
    found = []
    for cell in notebook["cells"]:
        mark = words(cell).get("thumbnail", "")
        for output in cell.get("outputs", []):
            shown = output.get("data", {})
            data = shown.get("image/png") or shown.get("image/jpeg")
            if data:
                raw = np.frombuffer(base64.b64decode("".join(data)), np.uint8)
                picture = cv2.imdecode(raw, cv2.IMREAD_COLOR)
                if picture is not None:
                    found.append((mark, picture))
    return found


def liveliness(picture: np.ndarray) -> float:
    "How many colours a picture has, and how little white paper: minerals come before heat maps, these before curves."
    hsv = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)
    counts = np.bincount(hsv[..., 0].ravel() // 15, weights=hsv[..., 1].ravel() / 255.0, minlength=12)
    share = counts / max(counts.sum(), 1)
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    paper = (picture > 245).all(2).mean()
    saturation = hsv[..., 1].mean() / 255
    return float((1 - paper) * (0.3 + entropy) * min(1.0, 0.2 + 2 * saturation))


def stretches(ink: np.ndarray, least: int) -> list[slice]:
    "Where a row of truths holds, in pieces of at least so many."
    edges = np.flatnonzero(np.diff(np.r_[False, ink, False].astype(np.int8)))
    return [slice(a, b) for a, b in zip(edges[::2], edges[1::2]) if b - a >= least]


def panels(figure: np.ndarray, least: int = 110) -> list[np.ndarray]:
    "The pictures within a figure, without titles and axes: what stands apart from the rest on white paper."
    ink = (figure < 245).any(2)
    found = []
    for rows in stretches(ink.mean(1) > 0.3, least):
        for cols in stretches(ink[rows].mean(0) > 0.6, least):
            found.append(figure[rows, cols])
    return found


def chosen_panel(mark: str, figure: np.ndarray) -> np.ndarray:
    "The panel that a directive names, the liveliest where it names none, the whole figure where there is but paper."
    found, asked = panels(figure), MARK.fullmatch(mark)
    if asked is None or not 0 <= int(asked[1] or 0) <= len(found):
        raise RuntimeError(f"`#| {mark}`: expected `#| thumbnail: 1` to {len(found)}, the panels of this figure")
    return found[int(asked[1]) - 1] if int(asked[1] or 0) else max(found, key=liveliness, default=figure)


def thumbnail(notebook: dict) -> np.ndarray | None:
    "A small picture for the gallery, from the figure of the marked cell; None where that was not run."
    picture = next((chosen_panel(mark, figure) for mark, figure in figures(notebook) if mark), None)
    if picture is None:
        return None
    width, height = THUMBNAIL
    rows, cols = picture.shape[:2]
    scale = max(width / cols, height / rows)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=how)
    top, left = (small.shape[0] - height) // 2, (small.shape[1] - width) // 2
    return small[top : top + height, left : left + width]


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
