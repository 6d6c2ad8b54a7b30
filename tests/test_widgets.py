"What the widgets do with damaged and mistaken input, and with what a browser may send."

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petroscope.io.images import VOID, read_mask, write_image, write_mask
from petroscope.notebook.pyramid import Pyramid
from petroscope.notebook.retouch import Retouch, grain_at, stroke_pixels
from petroscope.segmentation.balancer import SelfBalancingDataset
from petroscope.segmentation.classes import LumenStoneClasses

ROOT = Path(__file__).resolve().parent.parent
S1 = LumenStoneClasses.S1v1
CODES = [*S1.codes, VOID]

pytest.importorskip("petroscope.notebook.widgets", reason="needs petroscope[notebook]", exc_type=ImportError)
widgets = pytest.importorskip("petroscope.notebook")
viewers = pytest.importorskip("petroscope.notebook.viewer", reason="needs petroscope[notebook]", exc_type=ImportError)


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)


@pytest.fixture
def mask():
    coarse = np.random.default_rng(1).choice(np.array(S1.codes, np.uint8), (6, 8))
    return coarse.repeat(10, 0).repeat(10, 1)


def masks(most=24):
    shape = st.tuples(st.integers(1, most), st.integers(1, most))
    return st.tuples(shape, st.integers(0, 2**32)).map(
        lambda given: np.random.default_rng(given[1]).choice(np.array(CODES, np.uint8), given[0])
    )


# ---- without the extra


@pytest.mark.parametrize("module", ["notebook.viewer", "notebook.widgets"])
@pytest.mark.parametrize("absent", ["anywidget", "ipywidgets"])
def test_the_missing_extra_is_named(module, absent):
    code = f"import sys; sys.modules[{absent!r}] = None; import petroscope.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "pip install 'petroscope[notebook]'" in done.stderr.strip().splitlines()[-1]


def test_every_other_room_does_without():
    rooms = ["io.images", "view.plot", "synth", "segmentation.predict", "analysis.section", "cli.main"]
    code = "import sys; sys.modules['anywidget'] = sys.modules['ipywidgets'] = None; import petroscope"
    code += "".join(f"; import petroscope.{room}" for room in rooms)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_script_asks_no_other_host():
    for name in ("viewer.js", "viewer.css"):
        text = (viewers.assets() / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not [word for word in ("http:", "https:", "//cdn", "import(", "@import", "url(") if word in text]


# ---- the pyramid


@settings(max_examples=30)
@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), st.sampled_from([8, 16]))
def test_tiles_cover_every_level_once(shape, tile):
    pixels = np.arange(np.prod(shape), dtype=np.int64).astype(np.uint8).reshape(shape)
    pyramid = Pyramid(pixels, tile)
    for level in range(pyramid.levels):
        h, w = pyramid.level_shape(level)
        rows = [
            np.concatenate([pyramid.cut(level, r, c) for c in range(-(-w // tile))], axis=1)
            for r in range(-(-h // tile))
        ]
        assert (np.concatenate(rows) == pixels[:: 2**level, :: 2**level]).all()


def test_a_picture_that_is_mapped_stays_on_disk(tmp_path):
    big = np.memmap(tmp_path / "big.raw", np.uint8, "w+", shape=(3000, 4100, 3))
    big[1000:, 2000:] = 200
    pyramid = Pyramid(big)
    assert pyramid.levels == 5
    assert pyramid.cut(0, 5, 7).shape == (440, 512, 3) and pyramid.cut(4, 0, 0).shape == (188, 257, 3)
    assert pyramid.cut(4, 0, 0)[-1, -1, 0] == 200 and pyramid.cut(4, 0, 0)[0, 0, 0] == 0
    assert pyramid._eighth.nbytes < big.nbytes / 60


def test_codes_that_are_edited_are_seen_at_every_level():
    pixels = np.zeros((600, 600), np.uint8)
    pyramid = Pyramid(pixels, 8)
    assert pyramid.cut(5, 0, 0).max() == 0
    pixels[:] = 6
    assert pyramid.cut(5, 0, 0).min() == 6


# ---- the mask in the making


@settings(max_examples=40)
@given(
    masks(), st.lists(st.tuples(st.integers(-5, 30), st.integers(-5, 30)), min_size=1, max_size=5), st.integers(1, 12)
)
def test_a_stroke_paints_what_the_rule_says(mask, points, size):
    rows, cols = np.indices(mask.shape)
    away = np.full(mask.shape, np.inf)
    for a, b in pairwise([points[0], *points]):
        a, along = np.array(a, float), np.subtract(b, a).astype(float)
        place = np.stack([rows, cols], -1) - a
        t = np.clip((place @ along) / (along @ along), 0, 1) if along.any() else np.zeros(mask.shape)
        away = np.minimum(away, np.linalg.norm(place - t[..., None] * along, axis=-1))
    found, painted = stroke_pixels(points, size, mask.shape), np.zeros(mask.shape, bool)
    if found:
        painted[found[0].window] = found[1]
    assert (painted == (away <= size / 2 + 1e-9)).all()


@settings(max_examples=40)
@given(masks(12), st.data())
def test_a_grain_is_what_hangs_together(mask, data):
    row, col = (data.draw(st.integers(0, side - 1)) for side in mask.shape)
    seen, front = {(row, col)}, [(row, col)]
    while front:
        r, c = front.pop()
        for near in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
            inside = 0 <= near[0] < mask.shape[0] and 0 <= near[1] < mask.shape[1]
            if inside and near not in seen and mask[near] == mask[row, col]:
                seen.add(near)
                front.append(near)
    box, where = grain_at(mask, row, col)
    assert {(int(r) + box.top, int(c) + box.left) for r, c in np.argwhere(where)} == seen


@settings(max_examples=40)
@given(
    masks(), st.lists(st.tuples(st.sampled_from(["paint", "fill", "undo", "redo"]), st.integers(0, 10**6)), max_size=25)
)
def test_undoing_everything_restores_every_byte(mask, steps):
    work = Retouch(mask, S1)
    for kind, number in steps:
        rng = np.random.default_rng(number)
        row, col, code = int(rng.integers(mask.shape[0])), int(rng.integers(mask.shape[1])), int(rng.choice(CODES))
        if kind == "paint":
            work.paint([(row, col), (col, row)], int(rng.integers(1, 9)), code)
        elif kind == "fill":
            work.fill(row, col, code)
        else:
            getattr(work, kind)()
        assert (work.counts == np.bincount(work.mask.ravel(), minlength=256)).all()
    while work.undo():
        pass
    assert (work.mask == mask).all() and not work.unsaved


def test_little_memory_forgets_the_oldest_steps_only():
    work = Retouch(np.zeros((64, 64), np.uint8), S1, memory_mb=0.0002)
    for i in range(8):
        work.paint([(8 * i, 3)], 5, 6)
    undone = 0
    while work.undo():
        undone += 1
    assert 1 <= undone < 8 and (work.mask == 6).any()


def test_what_was_saved_is_unsaved_again_after_another_way(tmp_path):
    work = Retouch(np.zeros((9, 9), np.uint8), S1)
    work.paint([(1, 1)], 3, 6)
    work.save(tmp_path / "mask.png")
    work.undo()
    work.paint([(7, 7)], 3, 8)
    assert work.unsaved


# ---- bad input


def test_sizes_that_differ(photo, mask, tmp_path):
    for tool in (widgets.explore_overlay, lambda *a: widgets.touch_up(*a, tmp_path / "m.png")):
        with pytest.raises(ValueError, match="is 80 x 59 px, but its photo is 80 x 60 px"):
            tool(photo, mask[1:], S1)


def test_foreign_codes_name_the_file(photo, mask, tmp_path):
    mask[3, 3] = 77
    write_mask(tmp_path / "odd.png", mask)
    with pytest.raises(ValueError, match=r"odd\.png: code 77 is not a class of S1v1"):
        widgets.explore_overlay(photo, tmp_path / "odd.png", S1)
    with pytest.raises(ValueError, match="mask: code 77"):
        widgets.touch_up(photo, mask, S1, tmp_path / "m.png")


@pytest.mark.parametrize("wrong", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), [[1]], None])
def test_no_photo(wrong, mask):
    with pytest.raises((ValueError, TypeError)):
        widgets.explore_overlay(wrong, mask, S1)


def test_damaged_and_missing_files(photo, mask, tmp_path):
    write_image(tmp_path / "photo.jpg", photo)
    data = (tmp_path / "photo.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"cut\.jpg"):
        widgets.explore_overlay(tmp_path / "cut.jpg", mask, S1)
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        widgets.explore_overlay(tmp_path / "photo.jpg", tmp_path / "none.png", S1)


def test_classes_that_are_none(photo, mask):
    with pytest.raises(TypeError, match="expected a ClassSet"):
        widgets.explore_overlay(photo, mask, ["S1v1"])


def test_places_that_cannot_be_saved_to(photo, mask, tmp_path):
    with pytest.raises(FileNotFoundError, match="make it first"):
        widgets.touch_up(photo, mask, S1, tmp_path / "nowhere" / "m.png")
    with pytest.raises(ValueError, match=r"ends in \.png"):
        widgets.touch_up(photo, mask, S1, tmp_path / "m.tif")
    (tmp_path / "folder.png").mkdir()
    tool = widgets.touch_up(photo, mask, S1, tmp_path / "folder.png")
    viewers.answer(tool, {"type": "fill", "at": [0, 0], "code": VOID})
    viewers.answer(tool, {"type": "save"})
    assert "could not be written" in tool.status and tool.retouch.unsaved


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may write anywhere")
def test_a_folder_that_is_read_only(photo, mask, tmp_path):
    tmp_path.chmod(0o500)
    tool = widgets.touch_up(photo, mask, S1, tmp_path / "m.png")
    viewers.answer(tool, {"type": "save"})
    assert "could not be written" in tool.status


def test_saving_keeps_what_is_there_until_it_is_whole(photo, mask, tmp_path, monkeypatch):
    path = tmp_path / "m.png"
    write_mask(path, mask)
    tool = widgets.touch_up(photo, path, S1, path, autosave=True)
    viewers.answer(tool, {"type": "fill", "at": [0, 0], "code": VOID})
    assert (read_mask(path) == tool.retouch.mask).all() and (read_mask(path) != mask).any()
    kept = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        viewers.answer(tool, {"type": "fill", "at": [30, 30], "code": VOID})
    assert "no space left" in tool.status and path.read_bytes() == kept and list(tmp_path.iterdir()) == [path]
    viewers.answer(tool, {"type": "save"})
    assert (read_mask(path) == tool.retouch.mask).all() and tool.status == f"saved to {path}"


MESSAGES = [
    {}, [], None, {"type": "nonsense"}, {"type": "tile"}, {"type": "stroke"}, {"type": "click", "at": [1, 2]},
    {"type": "tile", "layer": "none", "level": 0, "row": 0, "col": 0, "view": "v"},
    {"type": "stroke", "points": [[1, 2]], "size": 3, "code": 77},
    {"type": "stroke", "points": [["a", "b"]], "size": 3, "code": 6},
    {"type": "stroke", "points": [[1, 2]], "size": 10**9, "code": 6},
    {"type": "stroke", "points": [[float("nan"), 1]], "size": 3, "code": 6},
    {"type": "fill", "at": [1], "code": 6},
    {"type": "fill", "at": [999, 0], "code": 6},
]  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES, ids=str)
def test_messages_that_mean_nothing_change_nothing(message, photo, mask, tmp_path):
    tool = widgets.touch_up(photo, mask, S1, tmp_path / "m.png")
    viewers.answer(tool, message)
    assert (tool.retouch.mask == mask).all()
    plain = widgets.explore_overlay(photo, mask, S1)
    viewers.answer(plain, message)
    viewers.answer(plain, {"type": "fill", "at": [0, 0], "code": VOID})
    assert (mask != VOID).all()


def test_what_travels_is_small_however_large_the_photo():
    image = np.random.default_rng(0).integers(0, 255, (2547, 3396, 3), np.uint8)  # noise: no photo is harder to pack
    mask = np.random.default_rng(0).choice(np.array(S1.codes, np.uint8), (2547, 3396))
    tool, sent = widgets.explore_overlay(image, mask, S1), []
    assert repr(tool) == "Viewer(photo, minerals; 3396 x 2547 px)"
    assert sum(len(layer["top"]) for layer in (*tool.pictures, *tool.labels)) < 500_000
    tool.send = lambda content, buffers: sent.append(buffers[0])
    for layer in (*tool.pictures, *tool.labels):
        viewers.answer(tool, {"type": "tile", "layer": layer["key"], "level": 0, "row": 1, "col": 1, "view": "v"})
    assert len(sent) == 2 and max(map(len, sent)) < 500_000


def test_a_stroke_that_is_refused_is_taken_back(photo, mask, tmp_path):
    tool, sent = widgets.touch_up(photo, mask, S1, tmp_path / "m.png"), []
    tool.send = lambda content, buffers=None: sent.append(content)
    viewers.answer(tool, {"type": "stroke", "id": "s1", "points": [[1, 2]], "size": 3, "code": 77})
    assert sent == [{"type": "refused", "done": "s1"}] and "code 77" in tool.status


def test_the_given_mask_is_never_changed(photo, mask, tmp_path):
    before, tool = mask.copy(), widgets.touch_up(photo, mask, S1, tmp_path / "m.png")
    viewers.answer(tool, {"type": "fill", "at": [0, 0], "code": VOID})
    assert (mask == before).all() and (tool.retouch.mask != before).any()


def test_evaluations_that_are_missing_or_incomplete(photo, mask, tmp_path):
    with pytest.raises(FileNotFoundError, match="no evaluation here"):
        widgets.browse_errors(tmp_path / "nowhere")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json"):
        widgets.browse_errors(tmp_path)
    with pytest.raises(ValueError, match="there is no photo to show"):
        widgets.browse_errors(lambda image: image[:2, :2, 0], [(photo, mask)], S1)
    with pytest.raises(TypeError, match="expected a ClassSet"):
        widgets.browse_errors(lambda image: mask, [(photo, mask)])


def test_codes_that_a_set_leaves_out_are_void(photo, mask, tmp_path):
    from petroscope.segmentation.dataset import LumenStone

    odd = mask.copy()
    odd[:10, :10] = 77
    for kind in ("imgs", "masks"):
        (tmp_path / kind / "test").mkdir(parents=True)
    write_image(tmp_path / "imgs" / "test" / "a.png", photo)
    write_mask(tmp_path / "masks" / "test" / "a.png", odd)
    tool = widgets.browse_errors(lambda image: mask, LumenStone(tmp_path, S1, "test", unknown="void"), S1)
    truth = next(layer for layer in tool.viewer.layers if layer.name == "truth")
    assert (truth.pyramid.pixels[:10, :10] == VOID).all() and tool.judged[0].metrics.mean_iou == 1


def test_a_broken_photo_does_not_keep_the_others_from_being_browsed(photo, mask, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    pairs = [("good", photo, mask), ("broken", tmp_path / "broken.jpg", mask)]
    tool = widgets.browse_errors(lambda image: mask, pairs, S1)
    assert [j.record.stem for j in tool.judged] == ["good"] and "broken" in tool.viewer.status


def test_a_picture_that_vanished_is_told(photo, mask, tmp_path):
    write_image(tmp_path / "a.png", photo)
    pairs = [("b", photo, mask), ("a", tmp_path / "a.png", mask)]
    tool = widgets.browse_errors(lambda image: mask, pairs, S1)
    (tmp_path / "a.png").unlink()
    tool.choose("a")
    assert "a.png" in tool.viewer.status


def test_classes_without_pixels_have_no_map(photo, mask):
    mask = np.where(mask == 2, 0, mask).astype(np.uint8)
    with pytest.warns(UserWarning, match="no pixel of Gl"):
        balancer = SelfBalancingDataset([(photo, mask)], S1, 16)
    tool = widgets.browse_occurrence(balancer, most=5)
    assert "galena" not in [name for name, _ in tool.classes.options]
    assert (
        pytest.importorskip("petroscope.notebook.occurrence").chance_map(balancer, 0, S1.labels.index("Gl")).max() == 0
    )


# ---- the size of a pixel


@pytest.fixture
def files(photo, mask, tmp_path):
    "A photo whose file knows the size of its pixels, 0.5 um, and a mask whose file does not."
    import tifffile

    scale = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "a.tif", photo, photometric="rgb", **scale)
    write_mask(tmp_path / "a.png", mask)
    return tmp_path / "a.tif", tmp_path / "a.png"


def viewers_of(files, size, tmp_path):
    "The viewers of all tools that take files."
    balancer = SelfBalancingDataset([files], S1, 16)
    return {
        "overlay": widgets.explore_overlay(*files, S1, pixel_size_um=size),
        "touch_up": widgets.touch_up(*files, S1, tmp_path / "m.png", pixel_size_um=size),
        "errors": widgets.browse_errors(lambda image: read_mask(files[1]), [files], S1, pixel_size_um=size).viewer,
        "occurrence": widgets.browse_occurrence(balancer, most=3, pixel_size_um=size).viewer,
    }


def test_the_size_of_a_pixel_comes_from_the_file(files, tmp_path):
    sizes = {name: viewer.pixel_size_um for name, viewer in viewers_of(files, None, tmp_path).items()}
    assert sizes == dict.fromkeys(sizes, pytest.approx(0.5))


def test_a_given_size_of_a_pixel_holds_and_the_file_is_quoted_where_it_differs(files, tmp_path):
    for name, viewer in viewers_of(files, 0.25, tmp_path).items():
        assert viewer.pixel_size_um == 0.25 and "pixel size 0.25 µm, though" in viewer.status, name
        assert "a.tif says 0.5 µm" in viewer.status, name
    assert "says" not in widgets.explore_overlay(*files, S1, pixel_size_um=0.501).status


def test_pixels_that_are_not_square_are_told_and_the_photo_is_shown(photo, mask, tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "b.tif", photo, resolution=(20000, 10000), resolutionunit="CENTIMETER")
    viewer = widgets.explore_overlay(tmp_path / "b.tif", mask, S1)
    assert viewer.pixel_size_um is None and "not square" in viewer.status


@pytest.mark.parametrize("size", [0, -1, float("nan"), float("inf")])
def test_sizes_of_a_pixel_that_mean_nothing(photo, mask, size):
    with pytest.raises(ValueError, match="pixel_size_um must be a positive number"):
        widgets.explore_overlay(photo, mask, S1, pixel_size_um=size)


def test_panoramas_that_are_none(photo, tmp_path):
    from petroscope.panorama.panorama import Panorama

    write_image(tmp_path / "a.png", photo)
    with pytest.raises(TypeError, match="expected a Panorama, got str"):
        widgets.inspect_panorama("section.ome.tif")
    with pytest.raises(ValueError, match=r"call align\(\) first"):
        widgets.inspect_panorama(Panorama.from_fields([tmp_path / "a.png"]))


@pytest.mark.filterwarnings("ignore")
def test_fields_that_cannot_be_read_or_lie_elsewhere_are_in_the_list(tmp_path):
    from petroscope.panorama.panorama import Panorama
    from petroscope.synth.rock import scene
    from petroscope.synth.scan import fields

    scan = fields(1, 2, (240, 320), overlap=0.3, seed=3)
    for name, image in zip("ab", scan.images, strict=True):
        write_image(tmp_path / f"{name}.png", image)
    write_image(tmp_path / "c.png", scene((240, 320), seed=99).image)
    (tmp_path / "d.png").write_bytes(b"no picture")
    panorama = Panorama.from_fields([tmp_path / f"{name}.png" for name in "abcd"]).align()
    tool = widgets.inspect_panorama(panorama)
    listed = [text for text, _ in tool.list.options]
    assert any(text.startswith("a | b") for text in listed) and sum("elsewhere" in text for text in listed) == 2
    tool.choose("field 3")
    assert "d.png" in tool.details.facts["picture"] and tool.viewer.selected == ""
    tool.choose("field 2")
    assert tool.details.facts["field"] == "c.png" and len(tool.details.picture.value) > 1000
    assert "reason" in tool.details.facts
