"""What is believed of places: positions and grids that the photos contradict, and pairs that nothing confirms."""

import cv2
import numpy as np
import pytest

from petroscope import synth
from petroscope.cli.main import main
from petroscope.io.images import write_image
from petroscope.panorama import neighbours as room
from petroscope.panorama.panorama import Panorama
from petroscope.panorama.pose import Match
from petroscope.panorama.positions import ORDERS, STARTS, walk
from petroscope.panorama.search import match_unknown

ROWS, COLS, SHAPE = 3, 4, (300, 400)


@pytest.fixture(scope="module")
def section():
    return synth.fields(ROWS, COLS, SHAPE, overlap=0.2, jitter_px=6, seed=1)


@pytest.fixture(scope="module")
def scan(section, tmp_path_factory):
    "The fields as files, row by row."
    return written(section.images, tmp_path_factory.mktemp("scan"))


def written(images, folder, names=None):
    paths = [folder / (names[i] if names else f"f{i:03d}.png") for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        write_image(path, image)
    return paths


def errors(panorama, true):
    "Distance of each field's first pixel from the truth, after one rigid fit over the fields of the panorama."
    inside = panorama.alignment.component == 0
    found, true = (x[inside] @ np.array([1, 1j]) for x in (panorama.alignment.offset, np.asarray(true)))
    found, true = found - found.mean(), true - true.mean()
    turn = (np.conj(true) * found).sum()
    return np.abs(true * turn / max(abs(turn), 1e-9) - found)


def notes(panorama):
    return "\n".join(panorama.report().notes())


def read_so(panorama, true, words):
    "All fields are tied where they are, and the report says what was meant."
    told = notes(panorama)
    assert errors(panorama, true).mean() < 1 and not panorama.contradicted
    assert f"Among these, {len(true)} tied by pairs that confirm each other." in told
    assert all(word in told for word in words), told


# Positions


@pytest.mark.parametrize(
    ("meant", "words"),
    [
        (lambda p: p * [-1, 1], ["y points up"]),
        (lambda p: p * [1, -1], ["x points left"]),
        (lambda p: p[:, ::-1], ["row and column (y and x) are exchanged"]),
        (lambda p: p[:, ::-1] * [-1, 1], ["are exchanged", "x points left"]),
        (lambda p: p * 0.2, ["about 5 px a unit"]),  # micrometres, 0.2 a pixel
        (lambda p: p * 5, ["about 0.2 px a unit"]),
        (lambda p: p * [-0.2, 0.2], ["about 5 px a unit", "y points up"]),
        (lambda p: p / p.max() * 2.5, ["px a unit"]),
    ],
    ids=["y up", "x left", "swapped", "turned", "micrometres", "fifths", "micrometres up", "millimetres"],
)
def test_positions_are_read_as_the_photos_show_them(scan, section, meant, words):
    panorama = Panorama.from_fields(scan, positions=meant(section.nominal)).align()
    read_so(panorama, section.positions, ["The photos contradict the positions as given", *words])


@pytest.mark.parametrize(("swapped", "words"), [(False, ["0.20", "not 0.15"]), (True, ["are exchanged"])])
def test_numbers_of_rows_and_columns_are_no_pixels(scan, section, swapped, words):
    numbers = walk((ROWS, COLS)).astype(float)
    panorama = Panorama.from_fields(scan, positions=numbers[:, ::-1] if swapped else numbers).align()
    read_so(panorama, section.positions, ["numbers of rows and columns, not pixels", *words])


@pytest.mark.parametrize("name", ["tile_x{1}_y{0}.png", "r{0:03d}_c{1:03d}.png"])
def test_names_may_tell_the_places(section, tmp_path, name):
    names = [name.format(*place) for place in walk((ROWS, COLS)).tolist()]
    paths = written(section.images, tmp_path, names)
    read_so(Panorama.from_fields(paths, positions="names", overlap=0.2).align(), section.positions, ["numbers of rows"])
    assert "--positions names" in notes(Panorama.from_fields(paths).align())  # pointed out where nothing is said
    order = sorted(range(12), key=lambda i: names[i])  # the order of their names, said to be by rows
    panorama = Panorama.from_fields([paths[i] for i in order], grid=(ROWS, COLS), overlap=0.2).align()
    read_so(panorama, section.positions[order], ["by columns from the top left"] if "x{1}" in name else [])


def test_right_positions_are_left_alone(scan, section):
    panorama = Panorama.from_fields(scan, positions=section.nominal).align()
    read_so(panorama, section.positions, [])
    assert "contradict" not in notes(panorama) and panorama.alignment.remarks == []


@pytest.mark.parametrize("meant", [(1, 1), (-1, 1)], ids=["as said", "y up"])
def test_the_stage_carries_blank_fields_however_it_was_meant(tmp_path, meant):
    section = synth.fields(4, 5, SHAPE, overlap=0.2, jitter_px=6, rotation_deg=0, blank=0.4, seed=2)
    paths = written(section.images, tmp_path)
    panorama = Panorama.from_fields(paths, positions=section.nominal * meant).align()
    carried = panorama.alignment.carried
    assert carried.any() and (panorama.alignment.component == 0).all()
    assert errors(panorama, section.positions)[~carried].max() < 1
    assert errors(panorama, section.positions)[carried].max() < 17  # the stage's own error, twice 6 px along each axis
    assert f"{carried.sum()} placed by the stage alone" in notes(panorama)


# Grids


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("order", ORDERS)
def test_a_grid_is_walked_as_the_photos_show(scan, section, order, start):
    taken = walk((ROWS, COLS), order, start) @ [COLS, 1]
    panorama = Panorama.from_fields([scan[i] for i in taken], grid=(ROWS, COLS), overlap=0.2).align()
    told = notes(panorama)
    assert errors(panorama, section.positions[taken]).mean() < 1 and not panorama.contradicted
    assert "Among these, 12 tied" in told
    assert (f"--order {order} --from {start}" in told) == ((order, start) != ("row", "top-left"))


def test_a_walk_that_is_said_is_believed(scan, section):
    taken = walk((ROWS, COLS), "snake-column", "bottom-right") @ [COLS, 1]
    options = {"grid": (ROWS, COLS), "overlap": 0.2, "order": "snake-column", "start": "bottom-right"}
    panorama = Panorama.from_fields([scan[i] for i in taken], **options).align()
    read_so(panorama, section.positions[taken], [])
    assert panorama.alignment.remarks == []


def test_rows_and_columns_of_a_grid_exchanged(scan, section):
    panorama = Panorama.from_fields(scan, grid=(COLS, ROWS), overlap=0.2).align()
    read_so(panorama, section.positions, ["the grid is 3x4 (rows x columns), not 4x3"])


@pytest.mark.parametrize(("true", "said"), [(0.2, 0.1), (0.2, 0.5), (0.5, 0.15)])
def test_another_overlap_is_found_and_said(section, scan, tmp_path, true, said):
    if true != 0.2:
        section = synth.fields(ROWS, COLS, SHAPE, overlap=true, jitter_px=6, seed=5)
        scan = written(section.images, tmp_path)
    panorama = Panorama.from_fields(scan, grid=(ROWS, COLS), overlap=said).align()
    read_so(panorama, section.positions, [f"not {said:g}"])


def test_names_without_zeros_are_walked_by_their_numbers(section, tmp_path, capsys):
    paths = written(section.images, tmp_path, [f"F{i + 1}.png" for i in range(12)])
    listed = sorted(paths)  # as the shell lists them: F1, F10, F11
    true = section.positions[[paths.index(path) for path in listed]]
    panorama = Panorama.from_fields(listed, grid=(ROWS, COLS), overlap=0.2).align()
    read_so(panorama, true, ["in the order of the numbers in their names (F1.png, F2.png, F3.png ...)"])
    assert [row["field"] for row in panorama.report().fields()] == [str(path) for path in listed]
    (tmp_path / "out").mkdir()
    out = str(tmp_path / "out" / "a.ome.tif")
    assert main(["stitch", str(tmp_path), "--out", out, "--grid", "3x4", "--overlap", "0.2"]) == 0
    told = capsys.readouterr().out
    assert "contradict" not in told and told.index("F2.png") < told.index("F10.png")


def test_photos_in_no_order_lie_where_they_agree(scan, section):
    taken = np.random.default_rng(0).permutation(12)
    panorama = Panorama.from_fields([scan[i] for i in taken], grid=(ROWS, COLS), overlap=0.2).align()
    read_so(panorama, section.positions[taken], ["no turn, mirror, unit or walk explains that"])


def test_unrelated_photos_end_with_status_1(tmp_path, capsys):
    paths = written([synth.scene(SHAPE, seed=s).image for s in range(4)], tmp_path)
    (tmp_path / "out").mkdir()
    out = str(tmp_path / "out" / "a.ome.tif")
    assert main(["stitch", *map(str, paths), "--out", out, "--grid", "2x2"]) == 1
    assert "0 of 4 textured overlaps agree, and nothing better was found" in capsys.readouterr().out


def test_options_of_a_grid_need_a_grid(scan, tmp_path, capsys):
    assert main(["stitch", *map(str, scan), "--out", str(tmp_path / "a.ome.tif"), "--from", "top-right"]) == 1
    assert "--from is of a grid" in capsys.readouterr().err


def test_what_was_meant_is_kept_with_the_geometry(scan, section, tmp_path):
    panorama = Panorama.from_fields(scan, positions=section.nominal * [-1, 1]).align()
    panorama.save(tmp_path / "g.json")
    assert Panorama.load(tmp_path / "g.json").report().notes() == panorama.report().notes()


# Pairs that nothing confirms


def photographed(picture, rows, cols, overlap=0.2, jitter=6, seed=0):
    "Photos of a drawn section with noise, their true places and those of the stage."
    rng, step = np.random.default_rng(seed), np.array(SHAPE) * (1 - overlap)
    nominal = walk((rows, cols)) * step + jitter + 2
    true = np.rint(nominal + rng.uniform(-jitter, jitter, nominal.shape)).astype(int)
    height, width = np.ceil(nominal[-1] + SHAPE + jitter + 4).astype(int)
    drawn = picture(int(height), int(width))
    cuts = [drawn[r : r + SHAPE[0], c : c + SHAPE[1]] for r, c in true]
    images = [np.clip(cut[..., None] + rng.normal(0, 2.5, (*SHAPE, 3)), 0, 255).astype(np.uint8) for cut in cuts]
    return images, true.astype(float), nominal


def stripes(period, angle):
    def picture(height, width):
        y, x = np.mgrid[:height, :width]
        return 120 + 50 * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)

    return picture


def lamellae(height, width):
    "Two sets of exsolution lamellae, of one spacing."
    y, x = np.mgrid[:height, :width]
    either = ((x + y) / 2**0.5 % 30 < 8) | ((x - y) / 2**0.5 % 30 < 8)
    return cv2.GaussianBlur(np.where(either, 170, 110).astype(np.float32), (0, 0), 1.2)


def polished(angle):
    "Polishing lines, all one way."

    def picture(height, width):
        y, x = np.mgrid[:height, :width]
        profile = cv2.GaussianBlur(np.random.default_rng(3).normal(0, 1, (1, 4000)), (0, 0), 1.5)[0]
        across = y * np.cos(angle) + x * np.sin(angle)
        return 130 + 12 * np.interp(across + 1000, np.arange(4000), profile / profile.std())

    return picture


REPEATS = {
    "stripes": stripes(35, 0), "oblique stripes": stripes(35, 0.6), "wide stripes": stripes(70, 0),
    "lamellae": lamellae, "polishing": polished(0), "oblique polishing": polished(0.3),
}  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", REPEATS)
def test_where_texture_repeats_the_stage_is_believed(tmp_path, kind, seed):
    images, true, nominal = photographed(REPEATS[kind], ROWS, COLS, seed=seed)
    panorama = Panorama.from_fields(written(images, tmp_path), positions=nominal).align()
    assert errors(panorama, true).max() < 12 and errors(panorama, true).mean() < 8  # the stage's own error
    assert panorama.alignment.carried.all() and np.isnan(panorama.alignment.residual_px).all()
    assert "12 placed by the stage alone" in notes(panorama) and not panorama.contradicted


@pytest.mark.parametrize("kind", ["stripes", "lamellae", "polishing"])
def test_where_texture_repeats_nothing_is_found_without_a_stage(kind):
    images, _, _ = photographed(REPEATS[kind], 2, 3)
    assert not [match for match in match_unknown(images) if match.usable]


def grains(height, width):
    return synth.scene((height, width), seed=4, variation=0).image.mean(2)


def test_a_row_of_fields_hangs_on_single_pairs_and_says_so(tmp_path):
    images, true, nominal = photographed(grains, 1, 5)
    panorama = Panorama.from_fields(written(images, tmp_path), positions=nominal).align()
    assert errors(panorama, true).max() < 0.2  # grains are unmistakable
    assert np.isnan(panorama.alignment.residual_px).all() and panorama.alignment.hangs.sum() == 4
    assert np.isnan([row["residual_px"] for row in panorama.report().pairs()]).all()
    assert "Among these, 5 hanging on one pair." in notes(panorama)
    assert all("hangs" in reason for reason in panorama.alignment.reasons[1:])
    assert "hangs on one pair, with f003.png" in panorama.alignment.reasons[4]


def test_the_last_field_of_a_row_is_said_to_hang(section, tmp_path):
    kept = [0, 1, 2, 4, 5, 6, 7]  # field 3, above 7, is missing; 7 has field 6 and the corner of 2
    section_paths = written([section.images[i] for i in kept], tmp_path)
    panorama = Panorama.from_fields(section_paths[:6] + section_paths[6:], positions=section.nominal[kept]).align()
    assert errors(panorama, section.positions[kept]).max() < 0.5
    hangs = panorama.alignment.hangs
    assert not hangs[:6].any() and np.isnan(panorama.alignment.residual_px[6]) == hangs[6]


@pytest.mark.parametrize("true_overlap", [0.1, 0.2, 0.3, 0.4, 0.6])
def test_two_photos_and_a_guessed_overlap(tmp_path, true_overlap):
    images, true, _ = photographed(grains, 1, 2, true_overlap, seed=2)
    panorama = Panorama.from_fields(written(images, tmp_path), grid=(1, 2), overlap=0.2).align()
    step, said = panorama.alignment.offset[1] - panorama.alignment.offset[0], notes(panorama)
    assert np.abs(step - (true[1] - true[0])).max() < 1 and "2 hanging on one pair" in said
    assert np.isnan(panorama.alignment.residual_px).all()


@pytest.mark.parametrize("overlap", [0.05, 0.08])
def test_thin_overlaps_are_no_worse_than_the_stage(tmp_path, overlap):
    for seed in (0, 1, 2):
        images, true, nominal = photographed(grains, ROWS, COLS, overlap, seed=seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        panorama = Panorama.from_fields(written(images, folder), positions=nominal).align()
        assert errors(panorama, true).max() < 12 and errors(panorama, true).mean() < 6


def test_a_false_pair_among_the_probes_moves_nothing(monkeypatch):
    "Three pairs along a row are right, the only one down a column is off by 45 px: the rows stay where they are."
    stage = np.array([[0, 0], [0, 320], [0, 640], [0, 960], [240, 0]], float)

    def probe(_first, _second, offset, *, pair, **_):
        return Match.from_pose(*pair, np.add(offset, [45, 0] if pair == (0, 4) else [0, 30]))

    monkeypatch.setattr(room, "match_near", probe)
    fields, pairs = [np.zeros((*SHAPE, 3), np.uint8)] * 5, [(0, 1), (1, 2), (2, 3), (0, 4)]
    moved = room._corrected_stage(fields, stage, pairs, False, None)
    np.testing.assert_allclose(moved, stage * [1, 350 / 320], atol=1e-6)
