"One pipeline: the same pixels have the same mask, to the byte, in every form and through every door."

import json
import warnings

import numpy as np
import pytest
import tifffile

from petroscope.analysis.job import segment_photo
from petroscope.io.images import read_mask, write_image, write_mask
from petroscope.io.ometiff import FLAT, OmeTiff, write_bands
from petroscope.io.raster import Raster
from petroscope.optics.flatfield import FlatField
from petroscope.segmentation import predict as pipeline
from petroscope.segmentation.classes import VOID, LumenStoneClasses
from petroscope.segmentation.domain import Domain, photo_features
from petroscope.segmentation.model import CallableModel
from petroscope.segmentation.predict import predict_bands, predict_file
from petroscope.segmentation.preparation import mean_color
from petroscope.segmentation.scaled import as_raster, with_transparency
from petroscope.synth.rock import scene

THREE = LumenStoneClasses.S1v1.subset(["BG", "Gl", "Py/Mrc"])
TWO = LumenStoneClasses.S1v1.subset(["BG", "Py/Mrc"])
SECTION = scene((260, 340), seed=4, scale=0.5)


def blurred(batch):
    "Three classes by the brightness of 8 x 8 blocks, so that it matters where a tile begins."
    light = batch.mean(axis=-1) / 255
    n, h, w = light.shape
    light = light.reshape(n, h // 8, 8, w // 8, 8).mean((2, 4)).repeat(8, 1).repeat(8, 2)
    away = np.stack([np.abs(light - middle) for middle in (0.1, 0.3, 0.5)], axis=1) + 0.05
    return (1 / away / (1 / away).sum(1, keepdims=True)).astype(np.float32)


def toy(scale=0.7, batch=1):
    model = CallableModel(THREE, blurred, scale, multiple=8, prior=[0.5, 0.3, 0.2])
    model.tile, model.temperature, model.presence = 120, 1.5, 0.2
    model.batch = lambda side: batch
    model.mean_color = (120.0, 110.0, 90.0)
    return model


@pytest.fixture
def forms(tmp_path):
    "The same pixels in every form."
    image = SECTION.image.copy()
    image[:50, :70] = 0
    write_image(tmp_path / "p.png", image)
    tifffile.imwrite(tmp_path / "plain.tif", image, photometric="rgb")
    tifffile.imwrite(tmp_path / "tiled.tif", image, photometric="rgb", tile=(64, 48), compression="zlib")
    np.save(tmp_path / "p.npy", image)
    files = {name: tmp_path / name for name in ("p.png", "plain.tif", "tiled.tif", "p.npy")}
    mapped = np.load(tmp_path / "p.npy", mmap_mode="r")
    return {"array": image, "mapped": mapped, "other strides": np.asfortranarray(image), **files}


def uneven(shape):
    "A gain that falls off by a quarter, and a glare of up to 20 levels in the middle."
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    gain = 1 - 0.25 * (0.4 * y * y + 0.6 * (x - 0.2) ** 2)
    glare = 20 * np.exp(-2 * (x * x + y * y))
    planes = (np.repeat(plane[..., None], 3, axis=2).astype(np.float32) for plane in (gain / gain.mean(), glare))
    gain, glare = planes
    return FlatField(gain / gain.mean((0, 1)), source="a formula", glare=glare)


LIGHT = ("outside", "flatfield", "white_balance")
DOMAIN = Domain.learn(photo_features(scene((260, 340), seed=seed).image, 1.0, 0.7) for seed in range(8))
OPTIONS = {
    "plain": {},
    "flat field": {"flatfield": uneven((260, 340)), "white_balance": "grey-world"},
    "flat field of a reduced photo": {"flatfield": uneven((65, 85)), "outside": "background"},
    "void": {"outside": "void"},
    "white balance": {"white_balance": "grey-world", "outside": "background"},
    "auto white balance": {"white_balance": "auto"},
    "views": {"augment": 4, "overlap": 16, "label_shift": 1.0},
}


@pytest.mark.parametrize("how", OPTIONS)
@pytest.mark.parametrize("held", [256 << 20, 0])
def test_the_form_of_a_photo_makes_no_difference(tmp_path, monkeypatch, forms, how, held):
    monkeypatch.setattr(pipeline, "HELD", held)
    warnings.simplefilter("ignore")
    model, options = toy(), OPTIONS[how]
    model.domain = DOMAIN
    expected = model.predict(forms["array"], 1.0, probs=True, **options)
    record, light = expected.applied.to_dict(), {k: v for k, v in options.items() if k in LIGHT}
    assert expected.verdict is not None and expected.verdict == model.judge(forms["p.png"], 1.0, **light)
    assert (record["white_balance"] is not None) == ("white_balance" in options)
    assert (record["flat_field"] is not None) == how.startswith("flat field")
    assert (expected.mask == VOID).any() == (how == "void") and len(np.unique(expected.mask)) > 1
    for name, source in forms.items():
        said = model.predict(source, 1.0, probs=True, **options)
        for part in ("mask", "confidence", "probs", "uncorrected", "image"):
            assert np.array_equal(getattr(said, part), getattr(expected, part)), (name, part)
        assert said.applied.to_dict() == record, name
        assert np.array_equal(model.predict_image(source, 1.0, **options), expected.mask), name
        assert np.array_equal(model.predict_probs(source, 1.0, **options), expected.probs), name
        done = predict_file(model, source, tmp_path / "m.tif", 1.0, confidence=tmp_path / "c.tif", **options)
        assert np.array_equal(tifffile.imread(tmp_path / "m.tif"), expected.mask), name
        percent = (expected.confidence * 100 + 0.5).astype(np.uint8)
        assert np.array_equal(tifffile.imread(tmp_path / "c.tif"), percent), name
        assert np.array_equal(done.uncorrected, expected.uncorrected), name
        assert done.applied.to_dict() == record, name


@pytest.mark.parametrize("how", ["plain", "flat field", "void"])
def test_a_photo_is_not_read_again_to_be_judged(how):
    rows = {}
    for domain in (None, DOMAIN):
        read, model = [], toy()
        model.domain = domain

        def strip(first, last, read=read):
            read.append((first, last))
            return SECTION.image[first:last].copy(), None

        model.predict_image(Raster(SECTION.image.shape[:2], strip, False), 1.0, **OPTIONS[how])
        rows[domain is None] = read
    assert rows[True] == rows[False] and rows[True]


@pytest.mark.filterwarnings("ignore:about 5% of the photo is black")
@pytest.mark.parametrize("shape", [(260, 340), (65, 85)])
def test_a_flat_field_is_the_first_stage(shape):
    "The same as the corrected photo without one, black that no field covers included."
    flat, image = uneven(shape), SECTION.image.copy()
    image[:50, :70] = 0
    corrected, model = flat.apply(image), toy()
    assert (corrected[:50, :70] == 0).all() and not np.array_equal(corrected, image)
    for options in ({}, {"white_balance": "grey-world+exposure", "outside": "void"}):
        expected = model.predict(corrected, 1.0, probs=True, **options)
        said = model.predict(image, 1.0, probs=True, flatfield=flat, **options)
        assert np.array_equal(said.mask, expected.mask) and np.array_equal(said.probs, expected.probs)
        assert np.array_equal(said.image, image) and said.applied.flatfield.startswith("a formula (gain ")


def test_auto_takes_the_flat_field_of_the_weights_for_photos_of_their_camera():
    model = toy()
    model.flatfield = uneven((520, 680))  # at scale 1, of which the section is a half
    said = model.predict(SECTION.image, 0.5)
    assert said.applied.flatfield and np.array_equal(
        said.mask, model.predict(SECTION.image, 0.5, flatfield=model.flatfield).mask
    )
    other = model.predict(SECTION.image, 1.0)
    assert not other.applied.flatfield and np.array_equal(other.mask, toy().predict(SECTION.image, 1.0).mask)
    assert not model.predict(SECTION.image[2:], 0.5).applied.flatfield
    assert not model.predict(SECTION.image, 0.5, flatfield="none").applied.flatfield


def test_weights_of_the_package_correct_photos_of_lumenstones_camera_alone():
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from petroscope.segmentation.resunet import ResUnet
    from petroscope.segmentation.weights import shipped_weights

    model = ResUnet.load(shipped_weights("s1v1"))
    assert model.flatfield.shape == (2547, 3396) and model.flatfield.source.startswith("LumenStone")
    tile = np.tile(SECTION.image, (2, 2, 1))[:318, :424]  # an eighth of the frame, less a fraction of a pixel
    assert model.predict(tile, 0.125).applied.flatfield.startswith("LumenStone")
    assert (
        not model.predict(tile, 0.125, flatfield="none").applied.flatfield
        and not model.predict(tile, 0.25).applied.flatfield
    )
    assert not model.predict(tile[:300], 0.125).applied.flatfield
    assert model.predict(tile[:300, :400], 1.0, flatfield="lumenstone").applied.flatfield.startswith("LumenStone")


def test_a_panorama_that_is_flat_is_not_corrected_again(tmp_path):
    flat, model = uneven((260, 340)), toy()
    for name, about in (("flat.ome.tif", f"panorama of fields, {FLAT}"), ("other.ome.tif", "")):
        write_bands(tmp_path / name, [(0, SECTION.image)], OmeTiff(SECTION.image.shape, description=about))
    said, other = (model.predict(tmp_path / name, 1.0, flatfield=flat) for name in ("flat.ome.tif", "other.ome.tif"))
    assert said.applied.flatfield == "" and np.array_equal(said.mask, model.predict(SECTION.image, 1.0).mask)
    assert other.applied.flatfield and not np.array_equal(other.mask, said.mask)


def test_a_flat_field_that_does_not_belong_is_refused():
    model = toy()
    with pytest.raises(ValueError, match=r"340 x 260 px, but the flat field \(.*\) is of 300 x 260 px"):
        model.predict(SECTION.image, 1.0, flatfield=uneven((260, 300)))
    with pytest.raises(ValueError, match=r"the photo, of mean colour .* is darker than the glare of the flat field"):
        model.predict(SECTION.image // 16, 1.0, flatfield=uneven((260, 340)))
    with pytest.raises(FileNotFoundError, match=r"nowhere.tif: expected a TIFF of a flat field"):
        model.predict(SECTION.image, 1.0, flatfield="nowhere.tif")


@pytest.mark.parametrize("batch", [2, 3, 100])
def test_the_number_of_tiles_at_once_makes_no_difference(batch):
    expected, sizes = toy().predict(SECTION.image, 1.0, probs=True), []

    def watched(patches):
        sizes.append(len(patches))
        return blurred(patches)

    model = toy(batch=batch)
    model.function = watched
    said = model.predict(SECTION.image, 1.0, probs=True)
    assert np.array_equal(said.probs, expected.probs) and 1 < max(sizes) <= batch


def test_what_a_batch_gives_is_checked():
    model = toy(batch=3)
    model.function = lambda patches: blurred(patches)[:1]
    with pytest.raises(ValueError, match=r"expected probabilities \(3, C,"):
        model.predict_image(SECTION.image, 1.0)


def test_an_analysis_takes_the_temperature_of_the_model():
    model = toy()
    found, probs = segment_photo(SECTION.image, model, THREE, 1.0), model.predict_probs(SECTION.image, 1.0)
    np.testing.assert_allclose(found.expected, probs.sum((1, 2), dtype=float), rtol=1e-6)
    assert np.array_equal(found.mask, model.predict_image(SECTION.image, 1.0))
    model.temperature = 1.0
    assert not np.allclose(segment_photo(SECTION.image, model, THREE, 1.0).expected, found.expected, rtol=1e-3)


def test_what_is_transparent_is_void_and_counts_nowhere():
    clear = np.zeros(SECTION.mask.shape, bool)
    clear[60:, 200:] = True
    model, source = toy(), with_transparency(SECTION.image, clear)
    said, found = model.predict(source, 1.0), segment_photo(SECTION.image, model, THREE, 1.0, clear)
    assert np.array_equal(said.mask == VOID, clear) and np.array_equal(said.confidence == 0, clear)
    assert np.array_equal(found.mask, said.mask) and found.expected.sum() == pytest.approx((~clear).sum())
    nothing = model.predict(with_transparency(SECTION.image, np.ones_like(clear)), 1.0)
    assert (nothing.mask == VOID).all() and nothing.uncorrected is None


def test_black_is_named_where_it_may_be_no_field():
    image = SECTION.image.copy()
    image[:60] = 0
    with pytest.warns(UserWarning, match="about 2.% of the photo is black.*--outside void"):
        toy().predict_image(image, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toy().predict_image(image, 1.0, outside="void")
        toy().predict_image(SECTION.image, 1.0)


def test_the_mean_colour_of_a_small_photo_is_exact():
    image = SECTION.image.clip(1)
    with as_raster(image) as raster:
        np.testing.assert_allclose(mean_color(raster, 64), image.mean((0, 1)))


def test_bands_hold_what_a_photo_holds():
    model = toy()
    bands = list(predict_bands(model, SECTION.image, 1.0))
    assert [band.row for band in bands] == np.cumsum([0] + [len(band.mask) for band in bands])[:-1].tolist()
    assert np.array_equal(np.concatenate([band.mask for band in bands]), model.predict_image(SECTION.image, 1.0))
    assert bands[-1].uncorrected.sum() == pytest.approx(1) and bands[0].empty is None


@pytest.mark.parametrize("how", ["none", "file"])
def test_every_command_finds_the_same(tmp_path, here, monkeypatch, how):
    "`segment` of a photo and of a section, `analyse` and `evaluate`, of a PNG and of a tiled TIFF."
    pytest.importorskip("torch", reason="PyTorch is not installed")
    for part in ("imgs/test", "masks/test"):
        (tmp_path / "set" / part).mkdir(parents=True)
    photo = tmp_path / "set/imgs/test/p.png"
    write_image(photo, SECTION.image)
    write_mask(tmp_path / "set/masks/test/p.png", SECTION.mask)
    tifffile.imwrite(tmp_path / "p.tif", SECTION.image, photometric="rgb", tile=(64, 64), compression="zlib")

    uneven((130, 170)).save(tmp_path / "flat.tif")
    flat = tmp_path / "flat.tif" if how == "file" else "none"

    def run(*argv):
        out = tmp_path / "o" / f"{len(found)}"
        status, said, errors = here(*argv, "--scale", 0.5, "--flatfield", flat, "--out", out)
        assert status == 0, errors
        assert ("flat.tif, a formula (gain" in said) == (how == "file")
        records = [json.loads(path.read_text(encoding="utf-8")) for path in out.glob("*s.json")]
        assert all(
            ("'flat field': 'flat.tif" in str(record)) == (how == "file") for record in records if "about" in record
        )
        (mask,) = [
            p for p in (tmp_path / "o" / f"{len(found)}").rglob("*") if p.name.startswith(("p_mask", "prediction"))
        ]
        found.append(read_mask(mask))

    found = []
    run("segment", photo)
    run("segment", tmp_path / "p.tif")
    run("analyse", photo, "--photos")
    run("analyse", tmp_path / "p.tif", "--photos")
    run("evaluate", tmp_path / "set")
    monkeypatch.setattr("petroscope.cli.segment.SECTION_PX", 0)
    run("segment", photo)
    run("segment", tmp_path / "p.tif")
    assert len(np.unique(found[0])) > 2
    assert all(np.array_equal(mask, found[0]) for mask in found)


@pytest.mark.slow
def test_a_tiff_above_100_megapixels_has_the_mask_of_its_array(tmp_path):
    "As large as a section that the command takes by rows; a model of single pixels keeps it short."
    part = np.random.default_rng(0).integers(1, 256, (1000, 1010, 3), np.uint8)
    image = np.tile(part, (10, 10, 1))
    tifffile.imwrite(tmp_path / "s.tif", image, photometric="rgb", tile=(512, 512))

    def bright(batch):
        light = batch[..., 0] * np.float32(1 / 255)
        return np.stack([1 - light, light], axis=1)

    model = CallableModel(TWO, bright, scale=0.25, prior=[0.7, 0.3])
    model.tile = 1024
    predict_file(model, tmp_path / "s.tif", tmp_path / "m.tif", 1.0, preview_px=0)
    assert np.array_equal(tifffile.imread(tmp_path / "m.tif"), model.predict_image(image, 1.0))
