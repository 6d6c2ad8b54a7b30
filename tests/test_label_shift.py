"Label-shift correction: traces survive it, and what it does is said."

import csv

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from petroscope.io.images import read_mask, write_image, write_mask
from petroscope.segmentation import predict as pipeline
from petroscope.segmentation.classes import VOID, LumenStoneClasses
from petroscope.segmentation.label_shift import NEAR, corrected_bands, shift_factors
from petroscope.segmentation.model import CallableModel
from petroscope.segmentation.predict import predict_file
from petroscope.segmentation.tiling import photo_scale
from petroscope.synth.rock import scene

THREE = LumenStoneClasses.S1v1.subset(["BG", "Gl", "Sph"])
PRIOR = [0.4, 0.3, 0.3]


def colours(batch):
    "Red is the probability of galena, green that of sphalerite, in percent."
    galena, sphalerite = batch[..., 0] / 100, batch[..., 1] / 100
    return np.stack([1 - galena - sphalerite, galena, sphalerite], axis=1).astype(np.float32)


def section(shape=(300, 400)):
    "Rock with 36 px of sure galena, and a broad doubtful patch of sphalerite."
    image = np.zeros((*shape, 3), np.uint8)
    image[..., 0], image[..., 1] = 2, 2
    image[40:240, 200:300, 1] = 52
    image[100:106, 60:66] = 95, 2, 0
    return image


@pytest.mark.parametrize("presence", [0, 0.65])
def test_a_sure_trace_survives_and_a_doubtful_patch_does_not(presence):
    model = CallableModel(THREE, colours, prior=PRIOR)
    model.presence = presence
    image = section()
    plain = model.predict_image(image, 1.0, label_shift=0)
    assert ((plain == 2).sum(), (plain == 8).sum()) == (36, 20_000)
    for strength in (0.15, 0.5, 1.0):
        mask = model.predict_image(image, 1.0, label_shift=strength)
        assert (mask == 2).sum() == 36, strength
    model.prior = np.array([0.2, 0.4, 0.4])  # trained on patches that show twice as much of it
    mask = model.predict_image(image, 1.0)
    assert ((mask == 2).sum(), (mask == 8).sum()) == (36, 0)


def test_photo_section_tiles_and_sample_say_the_same(tmp_path, monkeypatch):
    "The floor needs rows above and below: tiles, bands and strips that cut a trace must not show."
    model = CallableModel(THREE, colours, prior=PRIOR)
    image = section()
    for row in (0, 61, 126, 294):  # at the edges, and across the strips
        image[row : row + 6, 350:356] = 95, 2, 0
    expected = model.predict(image, 1.0)
    assert (expected.mask == 2).sum() == 5 * 36
    for tile, overlap in ((64, 16), (96, 48), (400, 0)):
        assert np.array_equal(model.predict_image(image, 1.0, tile=tile, overlap=overlap), expected.mask)
    write_image(tmp_path / "s.tif", image)
    done = predict_file(model, tmp_path / "s.tif", tmp_path / "m.tif", 1.0, outside="keep", tile=64, overlap=16)
    assert np.array_equal(tifffile.imread(tmp_path / "m.tif"), expected.mask)
    np.testing.assert_allclose(done.uncorrected, expected.uncorrected)
    monkeypatch.setattr(pipeline, "HELD", 1000)
    sampled = model.predict_image(image, 1.0, tile=64, overlap=16)
    assert np.array_equal(sampled == 2, expected.mask == 2)


def test_what_lies_outside_a_mosaic_is_no_mineral_without_the_correction(tmp_path):
    image = section()
    image[:, :150] = 0
    model = CallableModel(THREE, colours, prior=PRIOR)
    write_image(tmp_path / "s.tif", image)
    done = predict_file(model, tmp_path / "s.tif", tmp_path / "m.tif", 1.0, outside="void")
    inside = read_mask(tmp_path / "m.tif") != VOID
    plain = model.predict_image(image, 1.0, label_shift=0)[inside]
    np.testing.assert_allclose(done.uncorrected, [(plain == code).mean() for code in THREE.codes], atol=1e-6)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6), strength=st.floats(0, 1), heights=st.lists(st.integers(1, 90), min_size=1, max_size=4)
)
def test_bands_of_any_height_give_the_same(seed, strength, heights):
    probs = np.random.default_rng(seed).dirichlet([0.03, 0.03, 0.03], (sum(heights), 30)).transpose(2, 0, 1)
    prior = np.array(PRIOR)
    factors = shift_factors(probs.reshape(3, -1).clip(1e-5), prior, strength)

    def whole(cuts):
        bands = (
            (row, probs[:, row:end].astype(np.float32)) for row, end in zip([0, *cuts], [*cuts, None], strict=True)
        )
        return np.concatenate([band for _, band in corrected_bands(bands, factors, prior, strength)], axis=1)

    cut = whole(np.cumsum(heights)[:-1].tolist())
    assert np.array_equal(cut, whole([]))
    np.testing.assert_allclose(cut.sum(axis=0), 1, rtol=1e-5)


def test_far_from_sure_pixels_nothing_is_lifted():
    prior, factors = np.array(PRIOR), np.array([1.0, 0.01, 1.0])
    probs = np.full((3, 40, 40), 0.1, np.float32)
    probs[1] = 0.8
    probs[:, 18:23, 18:23] = np.array([0.01, 0.98, 0.01])[:, None, None]
    out = np.concatenate([b for _, b in corrected_bands(iter([(0, probs)]), factors, prior, 0.5)], axis=1)
    plain = probs * factors[:, None, None]
    changed = np.abs(out - plain / plain.sum(axis=0)).max(axis=0) > 1e-5
    rows, columns = np.nonzero(changed)
    # A square sees the whole block of 25 from as far as this; 24 are enough, but no row or column of it holds so few.
    near, far = 22 - NEAR // 2, 18 + NEAR // 2
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (near, far, near, far)
    probs[:, 18, 18:20] = np.array([0.1, 0.8, 0.1])[:, None]  # 23 are noise
    out = np.concatenate([b for _, b in corrected_bands(iter([(0, probs)]), factors, prior, 0.5)], axis=1)
    np.testing.assert_allclose(
        out, (probs * factors[:, None, None]) / (probs * factors[:, None, None]).sum(axis=0), 1e-5
    )


def test_galena_of_half_a_percent_survives_on_a_real_photo(s1):
    "Photo 40 holds 12,300 px of galena; without the correction 12,300 are found, and no longer none with it."
    pytest.importorskip("torch")
    from petroscope.io.images import read_image
    from petroscope.segmentation.resunet import ResUnet

    model, image = ResUnet.pretrained("s1v1"), read_image(s1 / "imgs/train/40.jpg")
    truth = read_mask(s1 / "masks/train/40.png") == 2
    plain = model.predict_image(image, 0.5, label_shift=0) == 2
    now = model.predict_image(image, 0.5) == 2
    assert (now & truth).sum() > 0.7 * (plain & truth).sum() > 5000


@pytest.fixture
def petroscope(capsys):
    "Run the command line in this process: exit status, output, errors."
    pytest.importorskip("torch")
    from petroscope.cli.main import main

    def run(*argv):
        status = main([str(a) for a in argv])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def photo(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "p1.png"
    write_image(path, scene((256, 340), seed=1, scale=0.5).image)
    return path


def minerals(path):
    with open(path, encoding="utf-8", newline="") as file:
        return {row["label"]: row for row in csv.DictReader(file)}


def test_the_table_says_what_it_was_before(petroscope, photo, tmp_path):
    for strength in ("0", "1"):
        status, _, err = petroscope(
            "segment", photo, "--out", tmp_path / strength, "--scale", 0.5, "--label-shift", strength
        )
        assert status == 0, err
    plain, full = (minerals(tmp_path / s / "p1_minerals.csv") for s in "01")
    head = "area % without label shift"
    assert head not in plain["BG"]
    for label, row in full.items():
        # Counted at the network's scale, a quarter: edges of grains differ a little.
        assert float(row[head]) == pytest.approx(float(plain[label]["area %"]), abs=1)


def test_a_mineral_that_changed_much_is_named(petroscope, photo, tmp_path):
    _, out, _ = petroscope("segment", photo, "--out", tmp_path / "o", "--scale", 0.5, "--label-shift", 1)
    table = minerals(tmp_path / "o/p1_minerals.csv")
    now, before = ([float(row[head]) for row in table.values()] for head in ("area %", "area % without label shift"))
    much = [
        label for label, a, b in zip(table, now, before, strict=True) if max(a, b) >= 0.1 and max(a, b) > 2 * min(a, b)
    ]
    said = [line for line in out.splitlines() if "without the label-shift correction" in line]
    assert much and all(f"{label} " in said[0] for label in much)


def test_evaluate_and_analyse_take_a_strength(petroscope, photo, tmp_path, plain_plots):
    for part in ("imgs/test", "masks/test"):
        (tmp_path / "set" / part).mkdir(parents=True)
    drawn = scene((256, 340), seed=1, scale=0.5)
    write_image(tmp_path / "set/imgs/test/1.png", drawn.image)
    write_mask(tmp_path / "set/masks/test/1.png", drawn.mask)
    for strength in (0, 1):
        out = tmp_path / f"a{strength}"
        options = ("--scale", 0.5, "--label-shift", strength)
        judged = (tmp_path / "set", "--no-pictures")
        status, _, err = petroscope("analyse", photo, "--photos", "--out", out, *options)
        assert status == 0, err
        status, _, err = petroscope("evaluate", *judged, "--out", tmp_path / f"e{strength}", *options)
        assert status == 0, err
        petroscope("segment", photo, "--out", tmp_path / f"s{strength}", *options)
        assert np.array_equal(read_mask(out / "p1_mask.png"), read_mask(tmp_path / f"s{strength}/p1_mask.png"))
    assert not np.array_equal(read_mask(tmp_path / "s0/p1_mask.png"), read_mask(tmp_path / "s1/p1_mask.png"))
    figures = [(tmp_path / f"e{i}/metrics.json").read_text() for i in (0, 1)]
    assert figures[0] != figures[1]


@pytest.mark.parametrize("strength", ["1.5", "-0.1", "nan", "much"])
def test_what_is_no_strength_is_refused(petroscope, tmp_path, strength):
    status, _, err = petroscope("segment", "p.png", "--out", tmp_path / "o", f"--label-shift={strength}")
    assert status == 2 and "expected a number from 0 to 1" in err
    assert not (tmp_path / "o").exists()


def test_a_photo_of_full_size_with_another_scale_is_warned_about(recwarn):
    for shape in ((2547, 3396, 3), (3396, 2547, 3)):
        assert photo_scale(shape, 0.5) == 0.5
        assert "--scale 1 " in str(recwarn.pop(UserWarning).message)
    for shape, scale in (((2547, 3396), 1.0), ((2547, 3396), None), ((2546, 3396), 0.5)):
        photo_scale(shape, scale)
    assert not recwarn


def test_each_command_warns_of_a_full_size_photo_once(petroscope, tmp_path, monkeypatch, plain_plots):
    monkeypatch.setattr("petroscope.segmentation.tiling.LUMENSTONE_SHAPE", (180, 240))  # smaller than any is
    for part in ("imgs/test", "masks/test", "imgs/train", "masks/train"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for split in ("test", "train"):
        for name in "ab":
            write_image(tmp_path / f"set/imgs/{split}/{name}.png", np.full((180, 240, 3), 60, np.uint8))
            write_mask(tmp_path / f"set/masks/{split}/{name}.png", np.zeros((180, 240), np.uint8))
    one = tmp_path / "set/imgs/test/a.png"
    quick = ("--filters", 2, "--depth", 1, "--set", "steps=1", "--set", "batch_size=1", "--set", "patch_size=32")
    runs = [
        ("segment", one, "--out", tmp_path / "s", "--weights", "s1v1-small"),
        ("evaluate", tmp_path / "set", "--out", tmp_path / "e", "--no-pictures", "--weights", "s1v1-small"),
        ("analyse", one, "--photos", "--out", tmp_path / "a", "--weights", "s1v1-small", "--no-geojson"),
        ("train", tmp_path / "set", "--out", tmp_path / "t", *quick),
    ]
    for argv in runs:
        _, _, err = petroscope(*argv, "--scale", 0.9)
        assert err.count("full size, but the scale given is 0.9") == 1, (argv[0], err)


def test_evaluate_scores_what_training_leaves_out(petroscope, tmp_path, plain_plots):
    from petroscope.segmentation.dataset import LumenStone

    for part in ("imgs/train", "masks/train"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for seed in range(5):
        drawn = scene((96, 128), seed=seed, scale=0.5)
        write_image(tmp_path / f"set/imgs/train/{seed}.png", drawn.image)
        write_mask(tmp_path / f"set/masks/train/{seed}.png", drawn.mask)
    options = ("--split", "train", "--hold-out", 0.4, "--scale", 0.5, "--weights", "s1v1-small", "--no-pictures")
    status, out, err = petroscope("evaluate", tmp_path / "set", "--out", tmp_path / "e", *options)
    assert status == 0, err
    held = LumenStone(tmp_path / "set", LumenStoneClasses.S1v1, "train").hold_out(0.4, seed=0)[1]
    assert f"{len(held)} photos" in out and len(held) == 2
    with open(tmp_path / "e/photos.csv", encoding="utf-8", newline="") as file:
        assert {row["photo"] for row in csv.DictReader(file)} == {sample.name for sample in held}


def test_a_section_says_what_the_correction_changed_also_when_it_goes_on(tmp_path, plain_plots):
    from petroscope.analysis.section import analyse

    model = CallableModel(THREE, colours, scale=1.0, prior=[0.2, 0.4, 0.4])
    write_image(tmp_path / "a.png", section())
    told = "a: without the label-shift correction: Sph 17 % (now 0 %)"
    with pytest.warns(UserWarning, match="without the label-shift correction"):
        found = analyse([tmp_path / "a.png"], tmp_path / "o", THREE, model=model, kind="photo")
    assert told in found.notes and told in (tmp_path / "o/report.html").read_text(encoding="utf-8")
    (tmp_path / "o/report.html").unlink()
    with pytest.warns(UserWarning, match="without the label-shift correction"):
        again = analyse([tmp_path / "a.png"], tmp_path / "o", THREE, model=model, kind="photo", resume=True)
    assert told in again.notes
    model.adaptation = 0
    assert not analyse([tmp_path / "a.png"], tmp_path / "p", THREE, model=model, kind="photo").notes[1:]
