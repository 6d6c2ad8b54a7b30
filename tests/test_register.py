"Pair offsets: what a notebook cannot show well."

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petroscope.panorama.pose import ORDINARY_PX, Match
from petroscope.panorama.register import MIN_QUALITY, match_fields, match_near, near_pairs
from petroscope.panorama.search import match_unknown
from petroscope.synth.rock import scene
from petroscope.synth.scan import fields

SHAPE = (340, 460)


def expected(section, i, j):
    "Offset and angle of field j in the frame of field i, by the truth."
    theta = math.radians(section.theta_deg[i])
    turn = np.array([[math.cos(theta), math.sin(theta)], [-math.sin(theta), math.cos(theta)]])
    return (section.positions[j] - section.positions[i]) @ turn, section.theta_deg[j] - section.theta_deg[i]


def in_second(points, offset, theta_deg):
    "Points of the first field in the second."
    t = math.radians(theta_deg)
    return (points - offset) @ np.array([[math.cos(t), math.sin(t)], [-math.sin(t), math.cos(t)]])


def errors(section, matches):
    "Error of each match at the middle of its points, px."
    found = []
    for m in matches:
        middle = m.at_first.mean(0)
        true = in_second(middle, *expected(section, m.first, m.second))
        found.append(in_second(middle, m.offset, m.theta_deg) - true)
    return np.array(found)


@pytest.fixture(scope="module")
def section():
    "Six fields, as a stage takes them."
    return fields(2, 3, SHAPE, overlap=0.3, jitter_px=8, rotation_deg=0.3, seed=11)


@pytest.fixture(scope="module")
def picture():
    "A section without noise."
    return scene((500, 700), seed=3).image


def photo(picture, seed=0, sd=2.5):
    "A picture with a sensor's noise."
    noise = np.random.default_rng(seed).normal(0, sd, picture.shape)
    return np.clip(picture + noise + 0.5, 0, 255).astype(np.uint8)


def test_pairs_are_found_to_a_few_hundredths_of_a_pixel(section):
    matches = match_fields(section.images, section.nominal, min_overlap=0.15)
    assert len(matches) == 7 and all(m.usable and m.quality > 0.9 for m in matches)
    error = errors(section, matches)
    assert np.hypot(*error.T).max() < 0.06
    assert np.abs(error.mean(0)).max() < 0.03  # no bias
    assert max(abs(m.theta_deg - expected(section, m.first, m.second)[1]) for m in matches) < 0.02


def test_nothing_known_gives_the_same_as_positions(section):
    order = np.random.default_rng(1).permutation(6)
    matches = match_unknown([section.images[i] for i in order], min_overlap=0.15)
    pairs = {tuple(sorted((int(order[m.first]), int(order[m.second])))) for m in matches if m.usable}
    assert pairs == set(near_pairs(section.nominal, SHAPE, 0.15))
    for m in matches:
        if m.usable:
            i, j = order[m.first], order[m.second]
            middle = m.at_first.mean(0)
            away = in_second(middle, m.offset, m.theta_deg) - in_second(middle, *expected(section, i, j))
            assert np.hypot(*away) < 0.06


def test_a_stage_that_is_wrong_by_much_and_a_dark_corner_do_not_matter(section):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    light = 1 - 0.4 * ((x - 230) ** 2 + (y - 170) ** 2) / (230**2 + 170**2)
    dark = [(image * light[..., None] + 0.5).astype(np.uint8) for image in section.images[:2]]
    match = match_near(*dark, section.nominal[1] - section.nominal[0] + [33, -36])
    assert match.usable and np.hypot(*errors(section, [match])[0]) < 0.08


def test_exchanging_the_fields_inverts_the_pose(section):
    stage = section.nominal[1] - section.nominal[0]
    there = match_near(section.images[0], section.images[1], stage)
    back = match_near(section.images[1], section.images[0], -stage)
    middle = there.at_first.mean(0)
    mapped = in_second(middle, there.offset, there.theta_deg)
    assert np.abs(in_second(mapped, back.offset, back.theta_deg) - middle).max() < 0.02


@given(st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)))
@settings(max_examples=12)
def test_any_fraction_of_a_pixel(picture, fraction):
    soft = cv2.GaussianBlur(picture, (0, 0), 1.2).astype(np.float32)
    frequency = [np.fft.fftfreq(n) for n in soft.shape[:2]]
    phase = np.exp(2j * np.pi * (frequency[0][:, None] * fraction[0] + frequency[1] * fraction[1]))
    moved = np.fft.ifft2(np.fft.fft2(soft, axes=(0, 1)) * phase[..., None], axes=(0, 1)).real
    first, second = photo(soft[40:340, 40:340], 1), photo(moved[60:360, 200:500], 2)
    match = match_near(first, second, (15, 165))
    np.testing.assert_allclose(match.offset, np.array([20, 160]) + fraction, atol=0.03)


def test_a_lens_that_distorts_shows_in_the_points(picture):
    big = scene((640, 900), seed=5).image
    k = 0.01  # undistorted = c + (p - c)(1 + k r^2), r in half diagonals

    def seen(top, left):
        y, x = np.mgrid[:400, :500].astype(np.float32)
        dy, dx = y - 199.5, x - 249.5
        grow = 1 + k * (dy**2 + dx**2) / (199.5**2 + 249.5**2)
        return photo(cv2.remap(big, left + 249.5 + dx * grow, top + 199.5 + dy * grow, cv2.INTER_LANCZOS4), top, 1.5)

    match = match_near(seen(100, 50), seen(110, 400), (10, 350))
    straight = []
    for points in (match.at_first, match.at_second):
        away = points - [199.5, 249.5]
        straight.append(away * (1 + k * (away**2).sum(1, keepdims=True) / (199.5**2 + 249.5**2)))
    left = straight[0] - straight[1] - [10, 350]
    raw = match.at_first - match.at_second
    assert raw.std(0).max() > 0.3  # what distortion does
    assert np.sqrt((left**2).mean()) < 0.25 * raw.std(0).max()  # is undone by the lens's own law


def test_strangers_are_told_from_neighbours(picture):
    wrong = 0
    for seed in range(6):
        other = scene((300, 400), seed=40 + seed).image
        match = match_near(photo(picture[:300, :400], seed), photo(other, seed + 1), (10 - seed, 280 + seed))
        assert len(match.weight) == 0 or match.usable
        wrong += match.usable
        assert match.usable == (match.quality >= MIN_QUALITY)
    assert wrong == 0


def test_faint_clouds_in_resin_are_enough():
    rng = np.random.default_rng(3)
    clouds = cv2.GaussianBlur(rng.normal(0, 1, (700, 900)), (0, 0), 7)
    resin = 46 + clouds[..., None] / clouds.std() * np.ones(3)
    match = match_near(photo(resin[:600, :500], 1, 5), photo(resin[20:620, 300:800], 2, 5), (0, 320))
    assert match.usable
    assert np.abs(match.offset - [20, 300]).max() < 4 * ORDINARY_PX / math.sqrt(match.weight.sum())


def test_dust_on_the_camera_is_no_match():
    rng = np.random.default_rng(5)
    dust = np.zeros((400, 500), np.float32)
    for y, x in rng.integers(10, 390, (60, 2)):
        cv2.circle(dust, (int(x * 1.25), int(y)), 5, 1, -1)
    dust = 1 - 0.3 * cv2.GaussianBlur(dust, (0, 0), 2)[..., None]
    images = [photo(scene((400, 500), seed=60 + k).image * dust, k) for k in range(9)]
    assert not any(m.usable for m in match_unknown(images))


def test_images_are_read_one_at_a_time_and_each_about_once(section):
    class Reader:
        "Ten fields a row, as files would be."

        kept, reads = [], 0

        def __len__(self):
            return len(section.images)

        def __getitem__(self, i):
            if i not in self.kept:
                Reader.reads += 1
            self.kept[:] = [k for k in self.kept if k != i][-4:] + [i]
            return section.images[i]

    match_fields(Reader(), section.nominal, shapes=[SHAPE] * 6, min_overlap=0.15, cache=5)
    assert Reader.reads <= 9


def test_pairs_of_a_large_grid_suit_a_small_cache():
    grid = np.stack(np.mgrid[0:40, 0:60], -1).reshape(-1, 2) * [816.0, 1088.0]
    grid += np.random.default_rng(0).uniform(-15, 15, grid.shape)
    pairs = near_pairs(grid, (1020, 1360))
    assert len(pairs) == len(set(pairs)) == 40 * 59 + 39 * 60
    kept, reads = [], 0
    for pair in pairs:
        for i in pair:
            reads += i not in kept
            kept = [k for k in kept if k != i][-11:] + [i]
    assert reads < 1.4 * len(grid)


@given(st.integers(2, 40), st.integers(0, 5))
@settings(max_examples=40)
def test_near_pairs_are_those_of_the_definition(count, seed):
    rng = np.random.default_rng(seed)
    positions, sizes = rng.uniform(0, 300, (count, 2)), rng.integers(30, 120, (count, 2))
    slow = set()
    for i in range(count):
        for j in range(i + 1, count):
            low, high = np.maximum(positions[i], positions[j]), np.minimum(*(positions + sizes)[[i, j]])
            common = np.prod(np.clip(high - low, 0, None))
            if common > 0 and common >= 0.1 * min(sizes[i].prod(), sizes[j].prod()):
                slow.add((i, j))
    assert set(near_pairs(positions, [tuple(s) for s in sizes], 0.1)) == slow


def test_match_refuses_points_that_do_not_pair():
    with pytest.raises(ValueError, match="expected 3 points"):
        Match(0, 1, np.zeros((3, 2)), np.zeros((2, 2)), np.ones(3), 1.0)
