"The global solve: exact without noise, the same in any order and frame, and nothing dropped, whatever comes in."

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petroscope.panorama.align import align
from petroscope.panorama.alignment import Alignment
from petroscope.panorama.alignment_map import map_figure

SHAPE, STEP = (102, 136), (80, 108)


@dataclass(frozen=True)
class Measured:
    "A simulated match."

    first: int
    second: int
    at_first: np.ndarray
    at_second: np.ndarray
    weight: np.ndarray
    quality: float = 0.9
    reason: str = ""

    @property
    def usable(self):
        return not self.reason


def rotation(theta):
    c, s = np.cos(theta), np.sin(theta)
    return np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], -2)


def section(rows, cols, seed=0, turned=0.2, jitter=8.0, k=0.0, shape=SHAPE, step=STEP):
    "The true poses of a grid of fields, and where the stage meant them to be."
    rng, n = np.random.default_rng(seed), rows * cols
    nominal = np.array([(r * step[0], c * step[1]) for r in range(rows) for c in range(cols)], float)
    linear = rotation(np.radians(rng.normal(0, turned, n)))
    middle = (np.array(shape) - 1) / 2
    offset = nominal + rng.uniform(-jitter, jitter, (n, 2)) + middle - linear @ middle
    none = np.zeros(0)
    true = Alignment(
        *(offset, linear, np.array([shape] * n), k, np.zeros(n, int), np.full(n, np.nan), np.zeros(n, bool)),
        *([""] * n, np.zeros((0, 2), int), none, none > 0, none > 0, []),
    )
    return true, nominal


def measured(true, pairs, noise=0.1, points=30, seed=0):
    "Points that two fields share."
    rng, out = np.random.default_rng(seed), []
    for i, j in pairs:
        p = rng.uniform(0, 1, (60 * points, 2)) * (true.shapes[i] - 1)
        q = true.to_field(j, true.to_mosaic(i, p))
        inside = ((q >= 0) & (q <= true.shapes[j] - 1)).all(1).nonzero()[0][:points]
        if len(inside) >= 4:
            p, q = (x[inside] + rng.normal(0, noise, (len(inside), 2)) for x in (p, q))
            out.append(Measured(i, j, p, q, np.ones(len(p))))
    return out


def beside(rows, cols):
    "Pairs of a grid: to the right and down."
    n = np.arange(rows * cols).reshape(rows, cols)
    both = (n[:, :-1], n[:, 1:]), (n[:-1], n[1:])
    return [(int(i), int(j)) for a, b in both for i, j in zip(a.ravel(), b.ravel(), strict=True)]


def corners(alignment, fields=slice(None)):
    at = np.array([(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)])
    every = [alignment.to_mosaic(i, at * (alignment.shapes[i] - 1)) for i in range(len(alignment))]
    return np.array(every)[fields] @ np.array([1, 1j])


def error_px(found, true, fit=slice(None)):
    "Distance from the truth after one rigid fit over the fields `fit`, `(N,)`."
    f, t = corners(found), corners(true)
    f0, t0 = f[fit].mean(), t[fit].mean()
    turn = (np.conj(f[fit] - f0) * (t[fit] - t0)).sum()
    return np.abs((f - f0) * turn / abs(turn) + t0 - t).mean(1)


def same(a, b, eps=1e-6):
    np.testing.assert_allclose(corners(a), corners(b), atol=eps)
    np.testing.assert_array_equal(a.component, b.component)
    np.testing.assert_array_equal(a.carried, b.carried)
    np.testing.assert_allclose(a.residual_px, b.residual_px, atol=eps)


# Exactness


@settings(max_examples=12)
@given(
    rows=st.integers(1, 4),
    cols=st.integers(2, 4),
    seed=st.integers(0, 10_000),
    turned=st.sampled_from([0.0, 0.3, 5.0]),
    k=st.sampled_from([0.0, 0.01, -0.02]),
)
def test_without_noise_the_truth_comes_back(rows, cols, seed, turned, k):
    true, _ = section(rows, cols, seed, turned, k=k)
    matches = measured(true, beside(rows, cols), noise=0, seed=seed)
    found = align(matches, true.shapes, distortion=bool(k))
    assert error_px(found, true).max() < 1e-5
    assert found.used.all() and np.nanmax(np.append(found.residual_px, 0)) < 1e-5
    assert np.isfinite(found.residual_px).all() == (rows > 1)  # in a single row no pair confirms another
    assert found.distortion == pytest.approx(k, abs=1e-6)


@pytest.mark.parametrize("model", ["translation", "rigid", "affine"])
def test_fields_that_are_only_shifted_are_exact_in_every_model(model):
    true, _ = section(3, 4, turned=0)
    found = align(measured(true, beside(3, 4), noise=0), true.shapes, model)
    assert error_px(found, true).max() < 1e-5
    assert model != "translation" or (found.linear == np.eye(2)).all()


def test_stretched_fields_are_exact_in_the_affine_model():
    true, _ = section(4, 5)
    bend = np.random.default_rng(1).normal(0, 0.001, (20, 2, 2))
    true = replace(true, linear=true.linear @ (np.eye(2) + bend - bend.mean(0)))
    matches = measured(true, beside(4, 5), noise=0)
    assert error_px(align(matches, true.shapes, "affine"), true).max() < 0.005
    assert error_px(align(matches, true.shapes), true).max() > 0.05


def test_fields_turned_by_a_quarter_and_by_half():
    true, _ = section(3, 3, turned=0, shape=(100, 100), step=(70, 70))
    quarter = np.arange(9) % 4
    linear = np.round(rotation(quarter * np.pi / 2))
    middle = np.array([49.5, 49.5])
    true = replace(true, linear=linear, offset=true.offset + middle - linear @ middle)
    found = align(measured(true, beside(3, 3), noise=0.05), true.shapes)
    assert error_px(found, true).max() < 0.2


def test_mixed_sizes():
    true, _ = section(3, 3)
    true = replace(true, shapes=true.shapes + np.arange(9)[:, None] * (3, 2))
    assert error_px(align(measured(true, beside(3, 3), noise=0), true.shapes), true).max() < 1e-6


@settings(max_examples=20)
@given(k=st.floats(-0.1, 0.2), theta=st.floats(-180, 180), seed=st.integers(0, 99))
def test_to_field_undoes_to_mosaic(k, theta, seed):
    true, _ = section(1, 2, seed, turned=0, k=k)
    true = replace(true, linear=rotation(np.radians([theta, 0.0])))
    points = np.random.default_rng(seed).uniform(0, 1, (7, 2)) * SHAPE
    np.testing.assert_allclose(true.to_field(0, true.to_mosaic(0, points)), points, atol=1e-8)


# Order and frame


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), staged=st.booleans())
def test_the_order_of_fields_and_matches_means_nothing(seed, staged):
    rng = np.random.default_rng(seed)
    true, nominal = section(4, 4, seed)
    matches = measured(true, beside(4, 4), seed=seed)
    matches[7] = replace(matches[7], at_first=matches[7].at_first + (60, -20))
    matches = [m for m in matches if 15 not in (m.first, m.second)]
    found = align(matches, true.shapes, positions=nominal if staged else None)
    new = rng.permutation(16)  # field i is now called new[i]
    mixed = []
    for m in rng.permutation(len(matches)):
        match = replace(matches[m], first=int(new[matches[m].first]), second=int(new[matches[m].second]))
        if rng.random() < 0.5:
            match = replace(
                match, first=match.second, second=match.first, at_first=match.at_second, at_second=match.at_first
            )
        mixed.append(match)
    positions = nominal[np.argsort(new)] if staged else None
    other = align(mixed, true.shapes, positions=positions)
    back = replace(
        other,
        **{name: getattr(other, name)[new] for name in ("offset", "linear", "component", "carried", "residual_px")},
    )
    same(found, back)
    assert found.used.sum() == other.used.sum() == len(matches) - 1


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), angle=st.floats(-180, 180), far=st.floats(-1e5, 1e5))
def test_turning_and_moving_the_section_changes_nothing(seed, angle, far):
    "Matches tell nothing of the frame, so the same come out; the stage may be anywhere and turned."
    true, nominal = section(3, 4, seed)
    matches = measured(true, beside(3, 4), seed=seed)
    plain = align(matches, true.shapes)
    turned = replace(true, linear=rotation(np.full(12, np.radians(angle))) @ true.linear)
    turned = replace(turned, offset=true.offset @ rotation(np.radians(angle)).T + far)
    again = measured(turned, beside(3, 4), seed=seed)
    same(plain, align(again, true.shapes), eps=1e-4)
    staged = align(matches, true.shapes, positions=nominal + far)
    assert error_px(staged, plain).max() < 1e-6
    assert np.abs(np.median(staged.offset - nominal - far, axis=0)).max() < 10


def test_the_mean_rotation_is_zero():
    true, nominal = section(4, 4, turned=1)
    matches = measured(true, beside(4, 4))
    for positions in (None, nominal):
        assert align(matches, true.shapes, positions=positions).theta_deg.mean() == pytest.approx(0, abs=1e-3)


# Components


@settings(max_examples=15)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_pieces_are_components_and_the_largest_comes_first(sizes, seed):
    rng = np.random.default_rng(seed)
    piece = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    true, _ = section(1, len(piece), seed)
    matches = []
    for number in range(len(sizes)):
        members = np.flatnonzero(piece == number)
        for i, j in zip(members[:-1].tolist(), members[1:].tolist(), strict=True):
            at = rng.uniform(0, 1, (5, 2)) * SHAPE
            matches.append(Measured(i, j, true.to_field(i, true.to_mosaic(j, at)), at, np.ones(5)))
    found = align(matches, true.shapes)
    order = sorted(range(len(sizes)), key=lambda n: (-sizes[n], np.flatnonzero(piece == n)[0]))
    np.testing.assert_array_equal(found.component, [order.index(n) for n in piece])
    for number in range(len(sizes)):
        np.testing.assert_allclose(found.bounds(component=number)[:2], 0, atol=1e-9)
    told = (found.component > 0) | found.hangs | (len(piece) == 1)  # no loop in any piece: all but its first field hang
    assert [bool(text) for text in found.reasons] == told.tolist()


def test_a_piece_is_joined_by_the_stage_and_turned_with_the_camera():
    true, nominal = section(6, 10, turned=0.05, jitter=3, seed=5)
    left = [p for p in beside(6, 10) if not {c % 10 for c in p} & {4, 5}]  # two columns are blank
    found = align(measured(true, left), true.shapes, positions=nominal)
    assert (found.component == 0).all()
    main = ~found.carried
    assert found.carried.sum() == 24 + 12 or found.carried.sum() == 24 + 12
    off = error_px(found, true, main)
    assert off[main].max() < 0.3 and off.max() < 6
    assert "one of a piece of 24 fields" in " ".join(found.reasons)


# False pairs


@pytest.mark.parametrize("model", ["translation", "rigid", "affine"])
def test_false_pairs_are_found(model):
    rng = np.random.default_rng(2)
    true, _ = section(10, 12, turned=0 if model == "translation" else 0.2)
    matches = measured(true, beside(10, 12), points=8)
    inner = [m for m, x in enumerate(matches) if not {0, 11, 108, 119} & {x.first, x.second}]
    false = rng.choice(inner, 10, replace=False)
    for m in false:
        direction = rng.uniform(0, 2 * np.pi)
        off = rng.uniform(5, 500) * np.array([np.sin(direction), np.cos(direction)])
        matches[m] = replace(matches[m], at_first=matches[m].at_first + off)
    found = align(matches, true.shapes, model)
    assert set(np.flatnonzero(~found.used)) == set(false)
    assert error_px(found, true).max() < 0.4
    assert all("contradicts the other pairs by" in found.pair_reasons[m] for m in false)


def test_where_nothing_decides_the_better_pair_is_believed_and_the_doubt_is_told():
    true, _ = section(2, 2)
    matches = measured(true, beside(2, 2))
    matches[2] = replace(matches[2], at_first=matches[2].at_first + (30, 0), quality=0.4)
    found = align(matches, true.shapes)
    np.testing.assert_array_equal(found.used, [True, True, False, True])
    assert not found.confirmed.any()
    assert "no third way tells which is wrong" in found.pair_reasons[2]
    assert any("in doubt" in text for text in found.reasons)
    assert error_px(found, true).max() < 0.3


def test_the_stage_denies_a_false_pair_that_no_loop_can():
    true, nominal = section(1, 12)
    matches = measured(true, beside(1, 12))
    matches[5] = replace(matches[5], at_first=matches[5].at_first + (0, 300))
    alone, staged = align(matches, true.shapes), align(matches, true.shapes, positions=nominal)
    assert alone.used.all() and not alone.confirmed.any()
    assert set(np.flatnonzero(~staged.used)) == {5} and "the stage denies it" in staged.pair_reasons[5]
    assert staged.carried.sum() == 6 and (staged.component == 0).all()


def test_a_lone_pair_of_low_quality_is_not_believed():
    true, _ = section(1, 3)
    matches = measured(true, beside(1, 3))
    matches[1] = replace(matches[1], quality=0.05)
    found = align(matches, true.shapes)
    np.testing.assert_array_equal(found.component, [0, 0, 1])
    assert "its quality is 0.05" in found.reasons[2] and "its quality is 0.05" in found.pair_reasons[1]
    assert align(matches, true.shapes, lone_quality=0).component.max() == 0


def test_several_pairs_of_the_same_fields_confirm_each_other():
    true, _ = section(1, 2)
    found = align(measured(true, [(0, 1), (1, 0)]), true.shapes)
    assert found.confirmed.all()


# The stage


def test_the_stage_does_not_move_fields_that_pairs_place():
    true, nominal = section(6, 6)
    matches = measured(true, beside(6, 6))
    plain, staged = align(matches, true.shapes), align(matches, true.shapes, positions=nominal)
    wild = align(matches, true.shapes, positions=nominal + np.random.default_rng(0).normal(0, 30, nominal.shape))
    assert error_px(staged, plain).max() < 0.01 and error_px(wild, plain).max() < 0.01
    assert staged.stage_px == pytest.approx(8 / 3**0.5, rel=0.4)


def test_a_stage_turned_against_the_camera():
    true, nominal = section(8, 8, jitter=1)
    bare = {20, 21, 28}
    matches = measured(true, [p for p in beside(8, 8) if not bare & set(p)])
    found = align(matches, true.shapes, positions=nominal @ rotation(np.radians(1.5)).T)
    off = error_px(found, true, ~found.carried)
    assert set(np.flatnonzero(found.carried)) == bare and off[list(bare)].max() < 3
    assert found.stage_deg == pytest.approx(-1.5, abs=0.15)


def test_one_wild_stage_position_does_not_carry_its_neighbours_away():
    true, nominal = section(6, 6, jitter=1)
    matches = measured(true, [p for p in beside(6, 6) if 14 not in p])
    nominal[15] += (400, -300)
    found = align(matches, true.shapes, positions=nominal)
    assert error_px(found, true, ~found.carried)[14] < 4


def test_fields_that_the_stage_does_not_know():
    true, nominal = section(3, 3)
    matches = measured(true, [p for p in beside(3, 3) if not {8, 2} & set(p)])
    nominal[[2, 4]] = np.nan
    found = align(matches, true.shapes, positions=nominal)
    np.testing.assert_array_equal(np.flatnonzero(found.carried), [8])
    np.testing.assert_array_equal(np.flatnonzero(found.component), [2])


def test_positions_alone():
    positions = [(0, 0), (0, 100), (5, 205)]
    found = align([], [SHAPE] * 3, positions=positions)
    np.testing.assert_allclose(found.offset, positions, atol=1e-9)
    assert found.carried.all() and (found.component == 0).all() and np.isnan(found.residual_px).all()


# Odd input


@pytest.mark.parametrize("positions", [None, [(7, 9)]])
def test_one_field(positions):
    found = align([], [SHAPE], positions=positions)
    assert len(found) == 1 and found.reasons == ["the only field"]
    np.testing.assert_allclose(found.offset[0], positions[0] if positions else (0, 0))


def test_a_pair_with_one_point_or_with_points_in_one_place():
    one = Measured(0, 1, np.array([[50.0, 120.0]]), np.array([[50.0, 12.0]]), np.ones(1))
    found = align([one], [SHAPE] * 2)
    np.testing.assert_allclose(found.offset[1] - found.offset[0], (0, 108), atol=1e-6)
    many = Measured(0, 1, *(np.repeat(x, 5, 0) for x in (one.at_first, one.at_second)), np.ones(5))
    assert np.isfinite(align([many], [SHAPE] * 2, "affine", distortion=True).offset).all()


def test_copies_of_a_field_are_named():
    true, _ = section(2, 3)
    points = np.random.default_rng(0).uniform(0, 1, (20, 2)) * SHAPE
    copy = Measured(1, 6, points, points, np.ones(20))
    found = align([*measured(true, beside(2, 3)), copy], [*true.shapes, SHAPE])
    assert "lies upon field 1" in found.reasons[6]
    np.testing.assert_allclose(found.offset[6], found.offset[1], atol=0.1)


def test_weights_of_points_count():
    true, _ = section(1, 2)
    (match,) = measured(true, [(0, 1)], noise=0)
    off = match.at_first + np.where(np.arange(30) < 10, 0.5, 0)[:, None]
    light = replace(match, at_first=off, weight=np.where(np.arange(30) < 10, 0.0, 1.0))
    assert error_px(align([light], true.shapes), true).max() < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": np.zeros(30)}, "not all 0"),
        ({"weight": -np.ones(30)}, ">= 0"),
        ({"quality": 7.0}, "quality from 0 to 1"),
        ({"at_first": np.zeros((30, 3))}, r"at_first \(n, 2\)"),
        ({"at_first": np.full((30, 2), np.nan)}, "finite"),
        ({"second": 2}, "there are 2 fields"),
        ({"second": 0}, "with itself"),
    ],
)
def test_matches_that_cannot_be_are_refused(change, message):
    true, _ = section(1, 2)
    (match,) = measured(true, [(0, 1)])
    with pytest.raises(ValueError, match=message):
        align([replace(match, **change)], true.shapes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "projective"}, "'rigid'"),
        ({"positions": [(0, 0, 0)] * 2}, r"positions \(2, 2\)"),
        ({"positions": [(0, 0), (0, np.inf)]}, "finite"),
        ({"position_sigma_px": 0}, "> 0"),
        ({"tolerance_px": -1}, "> 0"),
        ({"affine_sd": 0}, "> 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        align([], [SHAPE] * 2, **settings)


def test_nothing_at_all_is_refused():
    with pytest.raises(ValueError, match="nothing to align"):
        align([], [])
    with pytest.raises(ValueError, match=">= 1 px"):
        align([], [(0, 5)])


def test_an_unusable_match_may_hold_nothing():
    empty = Measured(0, 1, np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0), 0.0, "blank overlap")
    found = align([empty], [SHAPE] * 2)
    assert found.pair_reasons == ["blank overlap"] and "with field 0: blank overlap" in found.reasons[1]
    assert np.isnan(found.pair_residual_px).all()


# The map


@pytest.mark.parametrize("k", [0.0, 0.05])
def test_the_map_is_drawn_whatever_there_is_to_draw(k):
    true, nominal = section(2, 3, k=k)
    for matches in ([], measured(true, beside(2, 3))):
        for positions in (None, nominal):
            figure = map_figure(align(matches, true.shapes, positions=positions, distortion=bool(k)))
            assert figure.axes[0].get_xlabel() == "column, px"
    with pytest.raises(ValueError, match="6 names"):
        map_figure(align([], true.shapes, positions=nominal), names=["a"])
