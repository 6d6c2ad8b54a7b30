"Uneven light: what is found again of a light that is known, and what bad input gets."

import os
import subprocess
import sys
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petroscope.io.images import read_image, write_image
from petroscope.optics.calibrate import calibrate
from petroscope.optics.flatfield import FlatField
from petroscope.optics.illumination_fit import field_terms, gain_surface, sum_of_products, weighted_terms
from petroscope.synth.rock import scene
from petroscope.synth.scan import fields

SHAPE = (240, 320)


def grid(shape):
    return np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")


def vignette(shape, loss, at=(0.0, 0.0)):
    y, x = grid(shape)
    return 1 - loss * ((0.6 * (y - at[0])) ** 2 + (0.8 * (x - at[1])) ** 2)


def lit(images, light):
    light = light if light.ndim == 3 else light[..., None]
    return [np.clip(image * light + 0.5, 0, 255).astype(np.uint8) for image in images]


def left(flat, light):
    "Range and rms of the light that is left, in per cent."
    rest = (light if light.ndim == 3 else light[..., None]) / flat.gain
    rest = rest / rest.mean(axis=(0, 1))
    return 100 * np.ptp(rest, axis=(0, 1)).max(), 100 * rest.std(axis=(0, 1)).max()


@pytest.fixture(scope="module")
def even():
    "Twelve fields of a section in even light, of three exposures."
    drawn = fields(3, 4, SHAPE, vignetting=0, gain=0.08, noise_sd=2, scale=0.16, seed=3)
    return drawn.images


@pytest.mark.parametrize(
    "light",
    [np.ones(SHAPE), vignette(SHAPE, 0.4), vignette(SHAPE, 0.3, (0.2, -0.3)), 1 + 0.1 * grid(SHAPE)[1]],
    ids=["even", "vignetting", "off centre", "tilt"],
)
def test_a_known_light_is_found_again(even, light):
    rest = left(FlatField.from_fields(lit(even, light)), light)
    assert rest[0] < 5 and rest[1] < 0.5, rest


def test_the_error_is_told(even):
    flat = FlatField.from_fields(lit(even, vignette(SHAPE, 0.3)))
    assert 0.0003 < flat.error < 0.005
    assert 0.3 < left(flat, vignette(SHAPE, 0.3))[1] / (100 * flat.error) < 3


def test_grey_photos(even):
    grey = [cv2.merge([cv2.cvtColor(i, cv2.COLOR_RGB2GRAY)] * 3) for i in lit(even, vignette(SHAPE, 0.35))]
    flat = FlatField.from_fields(grey)
    assert left(flat, vignette(SHAPE, 0.35))[1] < 1
    assert (flat.gain[..., 0] == flat.gain[..., 1]).all()


def test_blank_fields_do_no_harm(even):
    blank = np.random.default_rng(0).normal(45, 4, (5, *SHAPE, 3)).clip(0, 255).astype(np.uint8)
    images = lit([*even[:6], *blank, *even[6:]], vignette(SHAPE, 0.35))
    assert left(FlatField.from_fields(images), vignette(SHAPE, 0.35))[0] < 3
    assert left(FlatField.from_fields(lit([*blank, *blank], vignette(SHAPE, 0.35))), vignette(SHAPE, 0.35))[1] < 1


def test_black_fields_are_left_out_of_the_sums(even):
    black = [np.zeros((*SHAPE, 3), np.uint8)] * 2
    light = vignette(SHAPE, 0.25)
    assert left(FlatField.from_fields([*black, *lit(even, light)]), light)[0] < 3


def test_clipped_minerals_do_not_bend_the_light(even):
    "With pyrite above 255 in the middle of the field, but not in its corners, the rest still tells the light."
    light = 1.3 * vignette(SHAPE, 0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flat = FlatField.from_fields(lit(even, light))
    assert left(flat, light)[1] < 0.6


def test_colors_only_where_the_fields_say_so(even):
    y, x = grid(SHAPE)
    tint = np.stack([1 + 0.05 * x, np.ones(SHAPE), 1 - 0.04 * y], -1)
    light = vignette(SHAPE, 0.25)[..., None] * tint
    assert left(FlatField.from_fields(lit(even, light)), light)[1] < 0.6
    plain = FlatField.from_fields(lit(even, vignette(SHAPE, 0.25)))
    assert (plain.gain == plain.gain[..., :1]).all()
    forced = FlatField.from_fields(lit(even, vignette(SHAPE, 0.25)), color="each")
    assert (forced.gain != forced.gain[..., :1]).any()


def test_the_same_bytes_whatever_the_threads(even):
    images, before = lit(even, vignette(SHAPE, 0.3)), cv2.getNumThreads()
    try:
        made = []
        for threads in (1, 2):
            cv2.setNumThreads(threads)
            flat = FlatField.from_fields(images)
            made.append((flat.gain.tobytes(), flat.apply(images[0]).tobytes()))
    finally:
        cv2.setNumThreads(before)
    assert made[0] == made[1]


class Lazy:
    "Fields that count how often each is read; some of them cannot be."

    def __init__(self, images, broken=()):
        self.images, self.broken, self.read = images, set(broken), []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.read.append(i)
        if i in self.broken:
            raise ValueError(f"field_{i}.png: cut off")
        return self.images[i]


def test_fields_are_read_once_and_in_order(even):
    lazy = Lazy(even * 10)
    FlatField.from_fields(lazy, at_most=10)
    assert len(lazy.read) == 10 and lazy.read == sorted(set(lazy.read)) and lazy.read[-1] == 119


def test_a_damaged_field_is_named_and_the_rest_goes_on(even):
    with pytest.warns(UserWarning, match=r"without field 4: field_4.png: cut off"):
        flat = FlatField.from_fields(Lazy(lit(even, vignette(SHAPE, 0.3)), broken=[4]))
    assert flat.source == "11 fields"
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="11 of 12 could not be read"):
        FlatField.from_fields(Lazy(even, broken=range(1, 12)))


def test_few_fields_say_how_uncertain_they_are(even):
    with pytest.warns(UserWarning, match=r"of 3 fields is uncertain by about \d"):
        FlatField.from_fields(even[:3])


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([], "got 0"),
        ([scene(SHAPE).image], "one field cannot tell gain from minerals"),
        (scene(SHAPE).image, "single array"),
        ([np.zeros((30, 40, 3), np.uint8), np.zeros((30, 41, 3), np.uint8)], "field 1 has 41 x 30 px.*40 x 30"),
        ([np.zeros((30, 40), np.uint8)] * 9, r"field 0 must be \(H, W, 3\) uint8 RGB, got \(30, 40\) uint8"),
        ([np.zeros((30, 40, 3), np.float32)] * 9, "float32"),
        ([np.zeros((30, 40, 3), np.uint8)] * 9, "only 0 spots"),
        ([np.full((30, 40, 3), 255, np.uint8)] * 9, "only 0 spots"),
        ([np.zeros((3, 4, 3), np.uint8)] * 9, "too small"),
        (["a.png", "b.png"], "got str"),
    ],
)
def test_bad_fields(images, says):
    with pytest.raises(ValueError, match=says):
        FlatField.from_fields(images)
    with pytest.raises(ValueError, match="'auto', 'same' or 'each'"):
        FlatField.from_fields(images, color="both")


def mirror(light, level=200, noise=2.0, seed=0):
    rng = np.random.default_rng(seed)
    light = light if light.ndim == 3 else light[..., None]
    image = level * light / light.max() + rng.normal(0, noise, (*light.shape[:2], 3))
    for _ in range(12):
        at = int(rng.integers(0, light.shape[1])), int(rng.integers(0, light.shape[0]))
        cv2.circle(image, at, int(rng.integers(1, 6)), (60, 60, 60), -1)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def test_a_reference_without_its_dust():
    y, x = grid(SHAPE)
    spot = vignette(SHAPE, 0.3, (0.2, 0.1)) * (1 + 0.08 * np.exp(-((x - 0.4) ** 2 + y**2) / 0.1))  # no low polynomial
    for light in (spot, np.stack([spot, spot * (1 + 0.03 * x), spot], -1)):
        range_left, rms_left = left(FlatField.from_reference(mirror(light)), light)
        assert range_left < 3 and rms_left < 0.3
        several = FlatField.from_reference([mirror(light, level, seed=level) for level in (150, 180, 210)])
        assert left(several, light)[1] < 0.15 and several.source == "3 reference photos"


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([], "got none"),
        (np.full((60, 80, 3), 255, np.uint8), "reference 0: 100.0 % of the pixels are clipped"),
        ([mirror(vignette((60, 80), 0.2)), np.full((60, 80, 3), 9, np.uint8)], r"reference 1.*too dark.*\[9, 9, 9\]"),
        ([mirror(vignette((60, 80), 0.2)), mirror(vignette((61, 80), 0.2))], "reference 1 has 80 x 61 px"),
        (scene(SHAPE, seed=2).image // 2 + 60, "no even surface"),
        (np.full((60, 80), 100, np.uint8), r"got \(60, 80\) uint8"),
        (np.full((60, 80, 3), 0.5), "float64"),
    ],
)
def test_bad_references(images, says):
    with pytest.raises(ValueError, match=says):
        FlatField.from_reference(images)


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_apply_divides_rounds_and_clips(height, width, seed):
    rng = np.random.default_rng(seed)
    light = rng.uniform(0.3, 1.7, (height, width, 3))
    flat = FlatField((light / light.mean(axis=(0, 1))).astype(np.float32))
    image = rng.integers(0, 256, (max(height, 16), max(width, 16), 3), dtype=np.uint8)[:height, :width]
    if min(height, width) < 16:
        with pytest.raises(ValueError, match="too small"):
            flat.apply(image)
        return
    exact = np.clip(image / flat.gain.astype(np.float64), 0, 255)
    assert np.abs(flat.apply(image) - exact).max() <= 0.5 + 1e-4


def test_the_light_of_a_field_is_that_of_its_terms():
    coef = np.random.default_rng(0).normal(0, 0.05, (21, 3))
    rows, cols = np.arange(37.0)[:, None], np.arange(50.0)
    slow = np.exp(field_terms(rows, cols, (37, 50)).astype(float) @ coef)
    np.testing.assert_allclose(gain_surface(coef, (37, 50)), slow / slow.mean(axis=(0, 1)), rtol=1e-5)


def test_files(tmp_path):
    light = np.stack([vignette((50, 70), loss) for loss in (0.1, 0.2, 0.3)], -1)
    flat = FlatField((light / light.mean(axis=(0, 1))).astype(np.float32), 0.002, "20 fields")
    flat.save(tmp_path / "licht ü.tif")
    again = FlatField.load(tmp_path / "licht ü.tif")
    assert again.gain.tobytes() == flat.gain.tobytes() and (again.error, again.source) == (0.002, "20 fields")
    FlatField(flat.gain).save(tmp_path / "b.tif")
    assert np.isnan(FlatField.load(tmp_path / "b.tif").error)
    cv2.imwrite(str(tmp_path / "foreign.tif"), flat.gain[..., ::-1])
    np.testing.assert_array_equal(FlatField.load(tmp_path / "foreign.tif").gain, flat.gain)
    (tmp_path / "text.tif").write_text("light")
    write_image(tmp_path / "photo.tif", np.zeros((50, 70, 3), np.uint8))
    (tmp_path / "half.tif").write_bytes((tmp_path / "b.tif").read_bytes()[:3000])
    for name in ("text.tif", "photo.tif", "half.tif"):
        with pytest.raises(ValueError, match=rf"{name}: expected a TIFF of a flat field"):
            FlatField.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"absent\.tif"):
        FlatField.load(tmp_path / "absent.tif")
    with pytest.raises(OSError, match=r"light.tif: could not be written"):
        flat.save(tmp_path / "absent" / "light.tif")


def test_calibrate(tmp_path, even):
    light = vignette(SHAPE, 0.3)
    for i, image in enumerate(lit(even, light)):
        write_image(tmp_path / f"{i:02d}.png", image)
    photos = sorted(tmp_path.glob("*.png"))
    photos[3].write_bytes(photos[3].read_bytes()[:5000])
    with pytest.warns(UserWarning, match=r"without .*03\.png"):
        flat = calibrate(photos, tmp_path / "light.tif", "fields")
    assert left(flat, light)[0] < 3 and "11 fields" in str(flat)
    assert FlatField.load(tmp_path / "light.tif").gain.tobytes() == flat.gain.tobytes()
    assert read_image(tmp_path / "light.png").shape[0] > 200
    with pytest.raises(ValueError, match=r"03\.png"):
        calibrate(photos[3:4], tmp_path / "other.tif")
    with pytest.raises(ValueError, match=r"00\.png.*no even surface"):
        calibrate(photos[:1], tmp_path / "other.tif")
    assert not (tmp_path / "other.tif").exists()
    with pytest.raises(ValueError, match="'reference' or 'fields'"):
        calibrate(photos, tmp_path / "light.tif", "mirror")


_FIT = """
import numpy as np
from petroscope.io.files import content_key
from petroscope.optics.flatfield import FlatField
from petroscope.synth.scan import fields

drawn = fields(2, 4, (150, 200), vignetting=0.3, gain=0.08, noise_sd=2, scale=0.16, seed=3)
flat = FlatField.from_fields(drawn.images)
y, x = np.mgrid[-1:1:300j, -1:1:400j]
mirror = FlatField.from_reference((200 - 40 * (x * x + y * y)[..., None] * np.ones(3)).astype(np.uint8))
print(content_key(flat.gain, flat.glare, flat.error, mirror.gain))
"""


def test_any_number_of_threads_finds_the_same_flat_field_to_the_last_bit():
    found = set()
    for threads in "12":
        more = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        run = subprocess.run([sys.executable, "-c", _FIT], env=os.environ | more, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        found.add(run.stdout)
    assert len(found) == 1


def test_sums_of_products_are_those_of_numpy():
    rng = np.random.default_rng(0)
    for n in (0, 1, 127, 128, 1000):
        one, other = rng.normal(size=(n, 5)).astype(np.float32), rng.normal(size=(n, 3))
        np.testing.assert_allclose(sum_of_products(one, other), one.astype(float).T @ other, atol=1e-9)
        np.testing.assert_allclose(weighted_terms(other, np.eye(3)), other)
        np.testing.assert_allclose(weighted_terms(other, np.ones(3)), other.sum(axis=1))


def test_real_fields_become_even(stitching):
    "Eleven fields of zircons in epoxy: the epoxy is as bright in the corners as in the middle, and of one colour."
    files = sorted((stitching / "zircon_mount_reflected_light").glob("*.jpg"))
    small = [cv2.resize(read_image(f), (648, 432), interpolation=cv2.INTER_AREA) for f in files]
    flat = FlatField.from_fields(small)
    assert 0.4 < flat.shading < 0.8

    def epoxy(images):
        "Levels of the epoxy in a lattice of 6 x 9 parts without the row of zircons."
        stack = np.stack(images).reshape(len(images), 6, 72, 9, 72, 3)
        return np.median(stack, axis=(0, 2, 4))[[0, 1, 4, 5]]

    before, after = epoxy(small), epoxy([flat.apply(i) for i in small])
    assert np.ptp(before, axis=(0, 1)).max() > 25
    assert np.ptp(after, axis=(0, 1)).max() <= 4


def test_a_panorama_takes_a_glare_off_and_says_that_it_is_flat(tmp_path):
    "Fields seen through a gain and a glare, put together with their flat field, are the fields without them."
    from petroscope.io.ometiff import is_flat
    from petroscope.panorama.panorama import Panorama

    drawn = fields(2, 2, (180, 240), overlap=0.3, vignetting=0, gain=0, scale=0.16, seed=3)
    gain = vignette((180, 240), 0.25)[..., None].repeat(3, axis=2)
    glare = (20 * vignette((180, 240), 0.9))[..., None].repeat(3, axis=2).astype(np.float32)
    flat = FlatField((gain / gain.mean(axis=(0, 1))).astype(np.float32), glare=glare)
    flat.save(tmp_path / "flat.tif")
    pictures = {}
    for name in ("even", "seen"):
        (tmp_path / name).mkdir()
        for i, image in enumerate(drawn.images):
            bright = image * 0.7 + (flat.pedestal if name == "even" else 0)
            shown = bright if name == "even" else image * 0.7 * flat.gain + glare
            write_image(tmp_path / name / f"{i}.png", np.clip(np.rint(shown), 1, 255).astype(np.uint8))
        given = "none" if name == "even" else tmp_path / "flat.tif"
        scan = Panorama.from_fields(sorted((tmp_path / name).glob("*.png")), positions=drawn.nominal, flatfield=given)
        light = scan.flatfield.gain if name == "seen" else None
        scan.align("translation").compose(tmp_path / f"{name}.ome.tif", flatfield=light, gains=None, blend="none")
        pictures[name] = read_image(tmp_path / f"{name}.ome.tif").astype(int)
    assert is_flat(tmp_path / "seen.ome.tif") and not is_flat(tmp_path / "even.ome.tif")
    h, w = (min(p.shape[i] for p in pictures.values()) for i in (0, 1))
    apart = np.abs(pictures["seen"][:h, :w] - pictures["even"][:h, :w])
    assert np.percentile(apart, 95) <= 3, np.percentile(apart, [50, 95, 99])
