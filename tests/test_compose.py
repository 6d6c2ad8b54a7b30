"Composing: any poses, any bad luck; what a notebook's six fields do not show."

import errno
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from petroscope.io import ometiff
from petroscope.panorama.align import align
from petroscope.panorama.blend import BLENDS, INTERPOLATION
from petroscope.panorama.canvas import canvas
from petroscope.panorama.exposure import _even, balance, exposure, thumbnail
from petroscope.panorama.mosaic import compose, compose_mask, preview
from petroscope.panorama.pose import Match
from petroscope.synth.scan import fields


def poses(offset, theta_deg=0.0, component=None, stretch=1.0):
    "An alignment of known poses."
    offset = np.asarray(offset, float)
    t = np.radians(np.broadcast_to(theta_deg, len(offset)))
    linear = stretch * np.stack([np.cos(t), np.sin(t), -np.sin(t), np.cos(t)], -1).reshape(-1, 2, 2)
    component = np.zeros(len(offset), int) if component is None else np.asarray(component)
    return SimpleNamespace(offset=offset, linear=linear, distortion=0.0, component=component)


class Bent:
    "Poses through a lens with radial distortion: undistorted = c + (p - c)(1 + k r^2)."

    def __init__(self, offset, shape, k):
        self.__dict__ |= vars(poses(offset))
        self.distortion, self.middle = k, (np.array(shape) - 1) / 2
        self.half = np.hypot(*self.middle)

    def to_mosaic(self, index, points):
        away = np.asarray(points) - self.middle
        square = (away**2).sum(-1, keepdims=True) / self.half**2
        return self.offset[index] + self.middle + away * (1 + self.distortion * square)

    def to_field(self, index, points):
        away = np.asarray(points) - self.offset[index] - self.middle
        f = np.ones((*away.shape[:-1], 1))
        for _ in range(50):
            f = 1 + self.distortion * ((away / f) ** 2).sum(-1, keepdims=True) / self.half**2
        return self.middle + away / f


@pytest.fixture(scope="module")
def taken():
    return fields(rows=2, cols=2, field_shape=(120, 160), seed=2, jitter_px=5, rotation_deg=1.5, overlap=0.3, gain=0.1)


@pytest.fixture(scope="module")
def place(taken):
    return poses(taken.positions, taken.theta_deg)


def shapes_of(taken):
    return [mask.shape for mask in taken.masks]


def picture(path, level=0):
    return tifffile.imread(path, level=level)


def slow_mask(masks, alignment, area):
    "A composed mask by its definition."
    rows, cols = (np.arange(n) + o for n, o in zip(area.shape, area.origin))
    at = np.stack(np.meshgrid(rows, cols, indexing="ij"), -1)
    out, best = np.full(area.shape, 255, np.uint8), np.zeros(area.shape)
    for i in area.members:
        h, w = masks[i].shape
        y, x = np.moveaxis((at - alignment.offset[i]) @ np.linalg.inv(alignment.linear[i]).T, -1, 0)
        depth = np.minimum(np.minimum(y + 0.5, h - 0.5 - y), np.minimum(x + 0.5, w - 0.5 - x))
        wins = depth > best
        out[wins] = masks[i][np.rint(y[wins]).astype(int), np.rint(x[wins]).astype(int)]
        best[wins] = depth[wins]
    return out


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 6), turn=st.floats(-30, 30), stretch=st.floats(0.8, 1.2))
def test_a_composed_mask_is_its_definition(tmp_path_factory, seed, n, turn, stretch):
    rng = np.random.default_rng(seed)
    shapes = [tuple(rng.integers(1, 40, 2)) for _ in range(n)]  # of several sizes
    masks = [rng.integers(0, 13, shape, dtype=np.uint8) for shape in shapes]
    alignment = poses(rng.uniform(-60, 60, (n, 2)), rng.uniform(-abs(turn), abs(turn) + 1e-3, n), stretch=stretch)
    path = tmp_path_factory.mktemp("masks") / "m.tif"
    made = compose_mask(path, masks, alignment, shapes, tile=int(rng.choice([16, 48])), codec="zstd")
    area = canvas(alignment, shapes)
    assert (made.shape, made.origin) == (area.shape, area.origin)
    assert (picture(path) == slow_mask(masks, alignment, area)).all()


def test_a_field_alone_is_itself(tmp_path, taken):
    for blend in BLENDS:
        for interpolation in INTERPOLATION:
            compose(tmp_path / "a.tif", taken.images[:1], poses([[7, -3]]), [(120, 160)], blend=blend, tile=64,
                    interpolation=interpolation)  # fmt: skip
            assert (picture(tmp_path / "a.tif") == taken.images[0]).all()


def test_one_pixel(tmp_path):
    made = compose(tmp_path / "a.tif", [np.full((1, 1, 3), 77, np.uint8)], poses([[0.2, 0.4]]), [(1, 1)])
    assert made.shape == (1, 1) and made.levels == 1 and (picture(tmp_path / "a.tif") == 77).all()


@pytest.mark.parametrize("codec", list(ometiff.CODECS))
@pytest.mark.parametrize("blend", BLENDS)
def test_codecs_keep_the_pixels(tmp_path, taken, place, codec, blend):
    shapes = shapes_of(taken)
    compose(tmp_path / "plain.tif", taken.images, place, shapes, codec="none", blend=blend, tile=64)
    compose(tmp_path / "packed.tif", taken.images, place, shapes, codec=codec, blend=blend, tile=64, quality=95)
    one, two = picture(tmp_path / "plain.tif").astype(int), picture(tmp_path / "packed.tif").astype(int)
    assert (one == two).all() if codec != "jpeg" else np.abs(one - two).mean() < 3


@pytest.mark.parametrize("blend", BLENDS)
def test_threads_do_not_change_a_byte(tmp_path, taken, place, blend):
    once = []
    for threads in (1, 2):
        compose(tmp_path / "a.ome.tif", taken.images, place, shapes_of(taken), tile=48, blend=blend, threads=threads)
        once.append((tmp_path / "a.ome.tif").read_bytes())
    assert once[0] == once[1]


def test_ome_tiff_has_levels_and_a_scale(tmp_path, taken, place):
    path = tmp_path / "a.ome.tif"
    made = compose(path, taken.images, place, shapes_of(taken), tile=32, pixel_size_um=0.345)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome and len(tiff.series) == 1 and not tiff.is_bigtiff
        levels = [level.asarray().astype(int) for level in tiff.series[0].levels]
        assert all(level.pages[0].is_tiled for level in tiff.series[0].levels)
        for word in ('PhysicalSizeX="0.345"', 'PhysicalSizeYUnit="µm"', f'SizeX="{made.shape[1]}"'):
            assert word in tiff.ome_metadata
        resolution = tiff.pages[0].tags["XResolution"].value
        assert resolution[0] / resolution[1] == pytest.approx(1e4 / 0.345, rel=1e-6)
    assert len(levels) == made.levels >= 4 and max(levels[-1].shape) <= 32
    for fine, coarse in pairwise(levels):
        p = np.pad(fine, [(0, fine.shape[0] % 2), (0, fine.shape[1] % 2), (0, 0)], mode="edge")
        assert (coarse == (p[::2, ::2] + p[1::2, ::2] + p[::2, 1::2] + p[1::2, 1::2] + 2) // 4).all()


def test_without_pixel_size_nothing_is_invented(tmp_path, taken, place):
    made = compose(tmp_path / "a.ome.tif", taken.images, place, shapes_of(taken), pyramid=False)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        assert "PhysicalSize" not in tiff.ome_metadata and len(tiff.series[0].levels) == 1
    assert made.notes == ["the pixel size is unknown: the file has no scale"]


def test_each_field_is_read_once_and_few_are_held(tmp_path):
    asked = []

    class Reader:
        def __len__(self):
            return 120

        def __getitem__(self, i):
            asked.append(i)
            return np.full((50, 60, 3), i, np.uint8)

    at = [(40 * r, 48 * c) for r in range(30) for c in range(4)]
    made = compose(tmp_path / "a.tif", Reader(), poses(at), [(50, 60)] * 120, tile=16)
    assert sorted(asked) == list(range(120))
    assert made.most_held <= 12  # two rows of four fields, and what the next tiles begin to read


def test_distortion(tmp_path):
    "A distorted grid comes out straight, and a photo and its mask agree."
    shape, k = (120, 160), 0.06
    bent = Bent([[0, 0], [3.3, 110.4]], shape, k)
    images, masks = [], []
    for i in range(2):
        at = bent.to_mosaic(i, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).astype(float))
        ramp = 60 + 0.3 * at[..., 0] + 0.4 * at[..., 1]
        images.append(np.repeat(np.rint(ramp)[..., None], 3, -1).astype(np.uint8))
        masks.append((np.rint(at[..., 1] / 8) % 2).astype(np.uint8))
    area = canvas(bent, [shape] * 2)
    for blend in BLENDS:
        compose(tmp_path / "a.tif", images, bent, [shape] * 2, blend=blend)
        out = picture(tmp_path / "a.tif").astype(float)[..., 0]
        true = 60 + 0.3 * (np.arange(area.shape[0])[:, None] + area.origin[0])
        true = true + 0.4 * (np.arange(area.shape[1]) + area.origin[1])
        inside = cv2.erode((out > 0).astype(np.uint8), np.ones((5, 5))) > 0
        # Coarse bands know nothing of the slope beyond the edge of all fields, and flatten it there.
        assert inside.mean() > 0.8 and np.abs(out - true)[inside].max() < (3 if blend == "multiband" else 0.8)
    compose_mask(tmp_path / "m.tif", masks, bent, [shape] * 2)
    codes = picture(tmp_path / "m.tif")
    assert ((codes == 255) == (out == 0)).mean() > 0.999
    small = preview(images, bent, [shape] * 2, max_side=140)
    assert np.abs(cv2.resize(small, out.shape[::-1])[..., 0] - true)[inside].mean() < 1


def test_gains_follow_the_exposures(taken, place):
    even = fields(rows=2, cols=3, field_shape=(240, 320), seed=3, vignetting=0, gain=0.1)
    gains = exposure(even.images, poses(even.positions, even.theta_deg), shapes_of(even))
    left = gains.mean(1) * even.gains
    assert np.ptp(left / left.mean()) < 0.02
    alone = exposure(even.images, poses(even.positions * 10), shapes_of(even))
    assert (alone == 1).all()
    apart = poses(even.positions, even.theta_deg, component=[0, 0, 0, 0, 0, 1])
    assert exposure(even.images, apart, shapes_of(even))[5] == pytest.approx(1, abs=1e-9)


def test_light_that_is_left_is_seen_in_overlaps():
    dim = fields(rows=3, cols=3, field_shape=(240, 320), seed=3, vignetting=0.2, gain=0.05, overlap=0.25)
    found = balance([thumbnail(image) for image in dim.images], poses(dim.positions, dim.theta_deg), shapes_of(dim))
    h, w = 240, 320
    y, x = np.arange(h)[:, None] - (h - 1) / 2, np.arange(w) - (w - 1) / 2
    true = 1 - 0.2 * (y * y + x * x) / (((h - 1) ** 2 + (w - 1) ** 2) / 4)
    ratio = found.illumination[..., 1] / (true / true.mean())
    assert np.ptp(ratio) < 0.06 and found.after < found.before / 2
    again = balance(dim.images, poses(dim.positions, dim.theta_deg), shapes_of(dim), flatfield=true)
    assert np.ptp(again.illumination[..., 1]) < 0.04


def test_many_fields_are_solved_sparsely_as_few_are_densely():
    rng = np.random.default_rng(0)
    n, pairs = 450, np.array([(i, i + s) for i in range(450) for s in (1, 20) if i + s < 450])
    first, second = pairs.repeat(30, 0).T
    log_gain = rng.normal(0, 0.05, n)
    place, known = rng.uniform(-1, 1, (len(first), 2)), np.array([0.3, 0.3])
    seen = log_gain[first] - log_gain[second] + place @ [0.1, -0.2] + rng.normal(0, 0.01, len(first))
    found, factors, _ = _even(first, second, seen, np.ones(len(first)), place, n, known)
    assert np.std(found - log_gain) < 0.005 and np.abs(factors - [0.1, -0.2]).max() < 0.002
    few = (first < 400) & (second < 400)
    dense, *_ = _even(first[few], second[few], seen[few], np.ones(few.sum()), place[few], 400, known)
    sparse, *_ = _even(first[few], second[few], seen[few], np.ones(few.sum()), place[few], 401, known)
    assert np.abs(dense - sparse[:400]).max() < 1e-9


def test_preview_puts_things_where_the_mosaic_does(tmp_path, taken, place):
    shapes = shapes_of(taken)
    gains = exposure(taken.images, place, shapes)
    compose(tmp_path / "a.tif", taken.images, place, shapes, gains=gains)
    whole = picture(tmp_path / "a.tif")
    small = preview(taken.images, place, shapes, max_side=100, gains=gains)
    assert max(small.shape) == 100
    reduced = cv2.resize(whole, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)[5:-5, 5:-5].astype(float) for p in (reduced, small)]
    away, _ = cv2.phaseCorrelate(*grey)
    assert np.hypot(*away) < 0.2


def test_poses_found_by_align(tmp_path, taken, place):
    "An `Alignment` is what `compose` wants, with and without distortion."
    shapes, pairs = shapes_of(taken), [(0, 1), (0, 2), (1, 3), (2, 3)]
    matches = []
    for i, j in pairs:
        offset = np.linalg.inv(place.linear[i]) @ (place.offset[j] - place.offset[i])
        turn = float(taken.theta_deg[j] - taken.theta_deg[i])
        matches.append(Match.from_pose(i, j, offset, turn, sigma_px=0.02, sigma_deg=0.002))
    found = align(matches, shapes)
    made = compose(tmp_path / "a.tif", taken.images, found, shapes, gains=exposure(taken.images, found, shapes))
    assert made.placed == (0, 1, 2, 3) and abs(np.array(made.shape) - canvas(place, shapes).shape).max() <= 8
    straight = picture(tmp_path / "a.tif")
    compose(tmp_path / "a.tif", taken.images, replace(found, distortion=1e-9), shapes,
            gains=exposure(taken.images, found, shapes))  # fmt: skip
    assert cv2.absdiff(picture(tmp_path / "a.tif"), straight).max() <= 1


# Bad luck


class Faulty:
    "Fields of which some cannot be read."

    def __init__(self, images, faults):
        self.images, self.faults = images, faults

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        if i in self.faults:
            raise self.faults[i]
        return self.images[i]


def test_unreadable_fields_are_named_and_the_rest_is_done(tmp_path, taken, place):
    faults = {1: FileNotFoundError("b.png: expected a photo, got nothing"), 2: ValueError("c.png: cut off")}
    shapes, images = shapes_of(taken), [*taken.images]
    images[3] = images[3][:-1]  # not the size that was announced
    made = compose(tmp_path / "a.tif", Faulty(images, faults), place, shapes, tile=64)
    assert sorted(made.failed) == [1, 2, 3] and "cut off" in made.failed[2] and "(120, 160, 3)" in made.failed[3]
    assert "field 1 is missing: b.png: expected a photo, got nothing" in made.notes
    assert (picture(tmp_path / "a.tif").max(2) > 0).mean() > 0.2
    assert sorted(balance(Faulty(images, faults), place, shapes).failed) == [1, 2, 3]
    assert (balance([None] * 4, place, shapes).gains == 1).all()
    assert preview(Faulty(images, faults), place, shapes, max_side=60).any()


def test_an_error_that_is_no_bad_field_stops_at_once(tmp_path, taken, place):
    with pytest.raises(ZeroDivisionError):
        compose(tmp_path / "a.tif", Faulty(taken.images, {1: ZeroDivisionError()}), place, shapes_of(taken), tile=16)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("limit", [3_000, 60_000])  # in the first level; in the reduced ones
def test_full_disk(tmp_path, taken, place, limit, monkeypatch):
    written, real = [0], ometiff.tile_encoder

    def counting(*args):
        encode = real(*args)

        def one(pixels):
            written[0] += 700
            if written[0] > limit:
                raise OSError(errno.ENOSPC, "No space left on device")
            return encode(pixels)

        return one

    (tmp_path / "a.ome.tif").write_bytes(b"the one before")
    monkeypatch.setattr(ometiff, "tile_encoder", counting)
    with pytest.raises(OSError, match=r"a\.ome\.tif: could not be written: no space left on device; free some space"):
        compose(tmp_path / "a.ome.tif", taken.images, place, shapes_of(taken), tile=16)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.tif"]
    assert (tmp_path / "a.ome.tif").read_bytes() == b"the one before"


def test_full_disk_of_the_system_itself(tmp_path):
    "A limit on the size of files is met by the writer itself, in the middle of a tile."
    code = """
        import resource, signal, sys
        import numpy as np
        from types import SimpleNamespace
        from petroscope.panorama.mosaic import compose
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        place = {"offset": np.zeros((1, 2)), "linear": np.eye(2)[None], "component": np.zeros(1, int)}
        one = SimpleNamespace(**place, distortion=0.0)
        image = np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8)
        try:
            compose(sys.argv[1], [image], one, [(600, 600)], tile=64)
        except OSError as error:
            print(error)
    """
    path = tmp_path / "a.ome.tif"
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), path], capture_output=True, text=True)
    assert "a.ome.tif: could not be written: file too large" in done.stdout, done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path, taken, place):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="name a folder that may be written to"):
        compose(tmp_path / "a.tif", taken.images, place, shapes_of(taken))


def test_no_such_folder(tmp_path, taken, place):
    with pytest.raises(OSError, match="make the folder first"):
        compose(tmp_path / "no" / "a.tif", taken.images, place, shapes_of(taken))


def test_poses_that_cannot_be(taken, place):
    shapes = shapes_of(taken)
    nowhere = poses(np.where(np.arange(4)[:, None] == 2, np.nan, taken.positions))
    with pytest.raises(ValueError, match="offset of field 2 is not finite"):
        canvas(nowhere, shapes)
    with pytest.raises(ValueError, match=r"3\.15 gigapixels.*field 3 lies farthest out.*max_gigapixels"):
        canvas(poses([[0, 0], [90, 0], [0, 120], [0, 1.5e7]]), shapes, max_gigapixels=1)
    assert canvas(poses([[0, 0], [90, 0], [0, 120], [0, 1.5e7]]), shapes).shape[1] == 15_000_160
    with pytest.raises(ValueError, match=r"component 1 has no fields; the alignment has the components \[0\]"):
        canvas(place, shapes, 1)


PEAK = """
import re, sys
import numpy as np
from types import SimpleNamespace
from petroscope.panorama.mosaic import compose

class Reader:
    def __len__(self): return rows * 4
    def __getitem__(self, i): return np.full((510, 680, 3), 60 + i, np.uint8)

rows = int(sys.argv[2])
at = np.array([(408 * r, 544 * c) for r in range(rows) for c in range(4)], float)
n = len(at)
place = SimpleNamespace(offset=at, linear=np.stack([np.eye(2)] * n), distortion=0.0, component=np.zeros(n, int))
compose(sys.argv[1], Reader(), place, [(510, 680)] * n, codec="zstd", tile=256)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is there on Linux only")
def test_memory_does_not_grow_with_the_height(tmp_path):
    peaks = []
    for rows in (4, 16):
        command = [sys.executable, "-c", PEAK, tmp_path / "a.tif", str(rows)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] < 1.12 * peaks[0]
