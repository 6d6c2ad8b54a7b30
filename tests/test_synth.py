"Drawn sections: what holds for any shape, minerals and seed, and that the table of measurements is what was measured."

import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petroscope import synth
from petroscope.synth.scan import _resample

LABELS = list(synth.LOOKS)
CODE = {label: look.code for label, look in synth.LOOKS.items()}
CODES_OF_LUMENSTONE = {
    "BG": 0, "Ccp": 1, "Gl": 2, "Mag": 3, "Brt": 4, "Po": 5, "Py/Mrc": 6, "Pn": 7,
    "Sph": 8, "Apy": 9, "Hem": 10, "Tnt/Ttr": 11, "Cv": 12, "Mrc": 13, "Au": 14,
}  # fmt: skip


def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def test_codes_are_those_of_lumenstone():
    assert CODE == CODES_OF_LUMENSTONE


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    minerals=st.lists(st.sampled_from(LABELS), min_size=1, max_size=15),
    rare=st.none() | st.sampled_from([m for m in LABELS if m != "BG"]),
    scale=st.sampled_from([0.1, 0.5, 1.0, 3.0]),
    light=st.sampled_from([0, 1, 3]),
    seed=st.integers(0, 2**40),
)
def test_any_section_is_whole(shape, minerals, rare, scale, light, seed):
    drawn = synth.scene(shape, minerals, seed, scale, rare=rare, variation=light)
    assert drawn.image.shape == (*shape, 3) and drawn.mask.shape == shape
    assert drawn.image.dtype == drawn.mask.dtype == np.uint8
    assert set(np.unique(drawn.mask)) <= {CODE[m] for m in (*minerals, *([rare] if rare else []))}


@settings(max_examples=25)
@given(
    weights=st.lists(st.floats(0, 10), min_size=3, max_size=6).filter(lambda w: sum(w) > 0.1),
    first=st.integers(0, 12),
    seed=st.integers(0, 10**6),
)
def test_shares_without_background_are_kept(weights, first, seed):
    labels = [m for m in LABELS if m != "BG"] * 2
    shares = dict(zip(labels[first:], weights, strict=False))
    mask = synth.scene((64, 80), shares=shares, seed=seed).mask
    for label, x in shares.items():
        share = x / sum(shares.values())
        # Inclusions move up to a fifth of a guest and 5 % of a host, from each of several.
        assert abs(np.mean(mask == CODE[label]) - share) < 0.3 * share + 0.15


def test_a_demo_scene_is_worth_scoring():
    "3 to 5 minerals and the background, nearly all of them of more than half a per cent, all of S1 over the seeds."
    seen, small, n = set(), 0, 0
    for seed in range(16):
        codes, counts = np.unique(synth.scene((400, 533), seed=seed).mask, return_counts=True)
        assert 4 <= len(codes) <= 6 and codes[0] == 0
        seen |= set(codes.tolist())
        small, n = small + np.sum(counts < 0.005 * 400 * 533), n + len(codes)
    assert seen == {CODE[m] for m in synth.S1}
    assert small <= 0.1 * n


@pytest.mark.parametrize("label", [m for m in LABELS if m != "BG"])
def test_a_rare_mineral_is_rare_and_there(label):
    minerals = [m for m in synth.S1 if m != label]
    for seed in range(3):
        share = np.mean(synth.scene((300, 400), minerals, seed, rare=label).mask == CODE[label])
        assert 0 < share < 0.005


def test_same_bytes_in_another_process_and_with_any_number_of_threads():
    code = (
        "import sys, cv2, hashlib; cv2.setNumThreads(int(sys.argv[1]));"
        "from petroscope.synth.rock import scene; from petroscope.synth.scan import fields; "
        "s = scene((150, 211), seed=5); f = fields(1, 2, (60, 80), seed=6); "
        "print(hashlib.sha256(s.image.tobytes() + s.mask.tobytes() + f.images[1].tobytes()).hexdigest())"
    )
    seen = {
        subprocess.run([sys.executable, "-c", code, str(n)], capture_output=True, text=True, check=True).stdout.strip()
        for n in (1, 3)
    }
    s, f = synth.scene((150, 211), seed=5), synth.fields(1, 2, (60, 80), seed=6)
    assert seen == {digest(s.image, s.mask, f.images[1])}


def test_the_global_random_state_is_left_alone():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    synth.scene((40, 40), seed=1)
    assert (np.random.get_state()[1] == before).all()


def test_bright_minerals_are_brighter():
    "In even light the order of reflectance holds."
    order = ["BG", "Sph", "Gl", "Py/Mrc", "Au"]
    means = [synth.scene((60, 60), [m], seed=2, variation=0).image[..., 1].mean() for m in order]
    assert means == sorted(means)


@settings(max_examples=15)
@given(
    rows=st.integers(1, 3),
    cols=st.integers(1, 3),
    shape=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    overlap=st.floats(0, 0.95),
    jitter=st.floats(0, 20),
    rotation=st.floats(0, 30),
    seed=st.integers(0, 10**6),
)
def test_fields_lie_inside_the_scene(rows, cols, shape, overlap, jitter, rotation, seed):
    taken = synth.fields(rows, cols, shape, overlap, jitter, rotation, seed=seed)
    h, w = taken.scene.mask.shape
    assert len(taken.images) == len(taken.masks) == rows * cols
    for (row, col), t in zip(taken.positions, np.radians(taken.theta_deg), strict=True):
        for x in (0, shape[1] - 1):
            for y in (0, shape[0] - 1):
                i, j = row + x * np.sin(t) + y * np.cos(t), col + x * np.cos(t) - y * np.sin(t)
                assert 2.9 <= i <= h - 3.9 and 2.9 <= j <= w - 3.9
    assert np.abs(taken.positions - taken.nominal).max() <= jitter


def test_a_field_is_the_scene_at_the_stated_places():
    "A section that is a plane wave is interpolated to a thousandth of its height, at any angle."
    y, x = np.mgrid[0:120, 0:140].astype(float)

    def wave(x, y):
        return 100 + 80 * np.sin(0.55 * x + 0.4 * y)

    image = np.repeat(wave(x, y)[..., None], 3, 2).astype(np.float32)
    for theta in (0, 0.005, -0.01, 0.3):
        row, col = 30.37, 35.81
        got = _resample(image, row, col, theta, (50, 60))
        v, u = np.mgrid[0:50, 0:60]
        want = wave(col + u * np.cos(theta) - v * np.sin(theta), row + u * np.sin(theta) + v * np.cos(theta))
        assert np.abs(got[..., 1] - want).max() < 0.02 * 80, theta
        assert np.sqrt(np.mean((got[..., 1] - want) ** 2)) < 0.006 * 80, theta


def test_vignetting_gain_and_noise_are_those_asked_for():
    level = {"shares": {"BG": 1e-9, "Gl": 1}, "minerals": ("Gl",), "rotation_deg": 0, "field_shape": (121, 161)}
    plain = synth.fields(1, 1, noise_sd=0, gain=0, vignetting=0, seed=3, **level)
    dim = synth.fields(1, 1, noise_sd=0, gain=0, vignetting=0.3, seed=3, **level)
    ratio = dim.images[0].astype(float).mean(2) / plain.images[0].mean(2)
    assert ratio[60, 80] == pytest.approx(1, abs=0.01)
    assert ratio[[0, 0, -1, -1], [0, -1, 0, -1]] == pytest.approx(0.7, abs=0.015)
    noisy = synth.fields(1, 1, noise_sd=4, gain=0, vignetting=0, seed=3, **level)
    assert np.std(noisy.images[0].astype(float) - plain.images[0]) == pytest.approx(4, rel=0.05)
    many = synth.fields(3, 3, (20, 20), gain=0.2, seed=3)
    assert np.abs(many.gains - 1).max() <= 0.2 and np.ptp(many.gains) > 0.1


@pytest.mark.parametrize(("label", "median", "between"), [
    ("Gl", (157, 152, 144), 24), ("Brt", (136, 114, 99), 17), ("Py/Mrc", (199, 185, 164), 22),
    ("Sph", (104, 101, 97), 20), ("Tnt/Ttr", (147, 145, 137), 21),
])  # fmt: skip
def test_the_table_is_what_the_photos_say(medians_of_photos, label, median, between):
    found = np.array(medians_of_photos[label])
    assert found.mean(0) == pytest.approx(median, abs=1)
    assert found[:, 1].std() == pytest.approx(between, abs=1)


@pytest.fixture(scope="module")
def medians_of_photos(s1):
    "Median colour of each class in each photo, measured as the notebook says."
    found = {label: [] for label in LABELS}
    for path in sorted((s1 / "imgs" / "train").iterdir()):
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        mask = cv2.imread(str(s1 / "masks" / "train" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        mask = mask if mask.ndim == 2 else mask[..., 0]
        for label in ("Gl", "Brt", "Py/Mrc", "Sph", "Tnt/Ttr"):
            inside = (mask == CODE[label]).astype(np.uint8)
            core = cv2.erode(inside, np.ones((9, 9), np.uint8))
            core[:5], core[-5:], core[:, :5], core[:, -5:] = 0, 0, 0, 0
            if inside.sum() >= 2000 and core.sum() >= 1500:
                found[label].append(np.median(image[core > 0], 0))
    return found
