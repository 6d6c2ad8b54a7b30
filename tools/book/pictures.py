"The pictures of the front page and of the gallery."

import base64
import re
import sys
from pathlib import Path

import cv2
import numpy as np

from .pages import ROOT, docname, tutorials, words

HERO = (1600, 620)
# Marks the cell whose figure stands for its tutorial in the gallery; `#| thumbnail: 2` names its second panel.
MARK = re.compile(r"thumbnail(?:: *([1-9]\d*))?")
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


def panels(figure: np.ndarray, least: int = 110) -> list[np.ndarray]:
    "The pictures within a figure, without titles and axes: what stands apart from the rest on white paper."

    def stretches(ink: np.ndarray) -> list[slice]:
        edges = np.flatnonzero(np.diff(np.r_[False, ink, False].astype(np.int8))).reshape(-1, 2)
        return [slice(a, b) for a, b in edges if b - a >= least]

    ink = (figure < 245).any(2)
    return [figure[r, c] for r in stretches(ink.mean(1) > 0.3) for c in stretches(ink[r].mean(0) > 0.6)]


def thumbnail(notebook: dict) -> np.ndarray | None:
    "The picture that stands for a tutorial, from the figure of the marked cell; None where that was not run."
    cells = [cell for cell in notebook["cells"] if "thumbnail" in words(cell)]
    shown = [(words(cell)["thumbnail"], output.get("data", {})) for cell in cells for output in cell["outputs"]]
    for mark, data in shown:
        if coded := data.get("image/png") or data.get("image/jpeg"):
            found = panels(cv2.imdecode(np.frombuffer(base64.b64decode(coded), np.uint8), cv2.IMREAD_COLOR))
            asked = MARK.fullmatch(mark)
            if asked is None or int(asked[1] or 1) > len(found):
                raise RuntimeError(
                    f"`#| {mark}`: expected `#| thumbnail: 1` to {len(found)}, the panels of this figure"
                )
            return found[int(asked[1] or 1) - 1]
    return None


def write_thumbnails(folder: Path, notebooks: dict[str, dict]) -> set[str]:
    "The thumbnails of the tutorials; returns the names of those that have one."
    made = {name: thumbnail(notebooks[name]) for name in tutorials(notebooks)}
    for name, picture in made.items():
        target = folder / f"{docname(name)}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        if picture is not None:
            cv2.imwrite(str(target), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return {name for name, picture in made.items() if picture is not None}
