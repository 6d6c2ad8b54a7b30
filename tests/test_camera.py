"What shows the camera and not the section: circles, frames, scale bars, labels, filler tiles, copies."

import warnings

import cv2
import numpy as np
import pytest
import tifffile

from petroscope import synth
from petroscope.io.images import write_image
from petroscope.panorama import camera
from petroscope.panorama.panorama import Panorama

SHAPE = (300, 400)


@pytest.fixture(scope="module")
def section():
    return synth.fields(3, 4, field_shape=SHAPE, overlap=0.3, jitter_px=6, seed=1)


def circle(image):
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    return image * ((y - 150) ** 2 + (x - 200) ** 2 <= 184**2).astype(np.uint8)[..., None]


def noisy_circle(image):
    dark = np.random.default_rng(int(image.sum()) % 1000).normal(4, 1.2, image.shape).round().clip(0).astype(np.uint8)
    return np.where(circle(np.ones_like(image)) > 0, image, dark)


def scale_bar(image):
    out = image.copy()
    cv2.rectangle(out, (250, 240), (310, 245), (255, 255, 255), -1)
    return cv2.putText(out, "50 um", (255, 234), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 2)


def label(image):
    out = image.copy()
    out[-24:] = 230
    return cv2.putText(out, "Sample 12", (10, 293), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1)


def frame(image, level=0):
    out = np.full_like(image, level)
    out[12:-12, 12:-12] = image[12:-12, 12:-12]
    return out


def grey_frame(image):
    return frame(image, 128)


def jpeg(draw):
    return lambda image: cv2.imdecode(cv2.imencode(".jpg", draw(image), [cv2.IMWRITE_JPEG_QUALITY, 80])[1], 1)


KINDS = {
    "circle": circle, "noisy circle": noisy_circle, "scale bar": scale_bar, "label": label, "frame": frame,
    "grey frame": grey_frame, "circle with scale bar": lambda image: scale_bar(circle(image)),
    "circle in JPEG": jpeg(circle), "scale bar in JPEG": jpeg(scale_bar), "frame in JPEG": jpeg(frame),
}  # fmt: skip


def marks_of(images):
    watch = camera.Watch()
    for i, image in enumerate(images):
        watch.add(i, image)
    return camera.find_marks(watch, images.__getitem__)


def written(folder, images):
    paths = [folder / f"f{i:03}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        write_image(path, image)
    return paths


def aligned(paths, positions):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        return Panorama.from_fields(paths, positions).align(), [str(w.message) for w in told]


def error_px(panorama, truth):
    "Largest distance of a field from its true place, after the best common rotation and shift."
    members = panorama.components()[0]
    found, true = panorama.alignment.offset[members], truth[members]
    found, true = found - found.mean(0), true - true.mean(0)
    u, _, v = np.linalg.svd(found.T @ true)
    return np.linalg.norm(found @ (u @ v) - true, axis=1).max()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_places_do_not_feel_the_camera(kind, known, section, tmp_path):
    stage = section.nominal if known else None
    (tmp_path / "plain").mkdir()
    plain, _ = aligned(written(tmp_path / "plain", section.images), stage)
    panorama, told = aligned(written(tmp_path, [KINDS[kind](image) for image in section.images]), stage)
    assert len(panorama.components()[0]) == len(section.images)
    assert error_px(panorama, section.positions) < error_px(plain, section.positions) + 0.1
    note = str(panorama.marks)
    assert any(note in text for text in told) and f"{note}." in panorama.report().notes()
    assert "left out of matching and blending" in note and "{" not in note


@pytest.mark.parametrize("blend", ["feather", "multiband", "none"])
@pytest.mark.parametrize("kind", ["circle", "label", "grey frame", "scale bar"])
def test_the_mosaic_does_not_show_the_camera(kind, blend, section, tmp_path):
    panorama, _ = aligned(written(tmp_path, [KINDS[kind](image) for image in section.images]), section.nominal)
    made = panorama.compose(tmp_path / "a.ome.tif", blend=blend)
    mosaic = tifffile.imread(made.path, level=0)
    # The mosaic is the section seen from the mean pose of its fields: bring the section there by its own features.
    true = section.scene.image
    shift = np.median(section.positions - panorama.alignment.offset, axis=0) + made.origin
    turn = np.array([[1.0, 0, shift[1]], [0, 1, shift[0]]])
    seen = cv2.warpAffine(true, turn, mosaic.shape[1::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    filled = (mosaic > 0).any(2) & (seen > 0).any(2)
    apart = np.abs(cv2.GaussianBlur(mosaic, (0, 0), 3).astype(int) - cv2.GaussianBlur(seen, (0, 0), 3))
    inside = cv2.erode(filled.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    assert inside.mean() > 0.75
    # Turned by a few tenths of a degree, edges of grains differ; a frame would be off by 50 levels along whole lines.
    assert np.percentile(apart[inside], 99) < 60 and apart[inside].mean() < 9


def test_masks_leave_the_camera_out_too(section, tmp_path):
    panorama, _ = aligned(written(tmp_path, [circle(image) for image in section.images]), section.nominal)
    (tmp_path / "masks").mkdir()
    paths = [tmp_path / "masks" / f"m{i}.png" for i in range(len(section.masks))]
    for path, mask in zip(paths, section.masks, strict=True):
        cv2.imwrite(str(path), np.where(circle(np.ones((*SHAPE, 3), np.uint8))[..., 0] > 0, mask, 77))
    made = panorama.compose_masks(paths, tmp_path / "mask.ome.tif")
    assert 77 not in tifffile.imread(made.path, level=0)


@pytest.mark.parametrize("count", [2, 3, 4, 12])
def test_photos_of_the_section_show_no_camera(count, section):
    images = section.images[:count]
    grown = [np.minimum(image.astype(int) * 3, 255).astype(np.uint8) for image in images]
    black = [np.maximum(image.astype(int) - 60, 0).astype(np.uint8) for image in images]
    assert (np.min(grown, 0) == 255).all(2).any() or count == 12
    for kind in (images, grown, black, [image // 6 for image in images], [jpeg(lambda i: i)(i) for i in images],
                 [cv2.GaussianBlur(image, (0, 0), 3) for image in images]):  # fmt: skip
        assert marks_of(kind) is None


@pytest.mark.parametrize("count", [2, 4, 12])
def test_resin_under_uneven_light_shows_no_camera(count):
    "The same level at the same place in all fields, but for the noise: what a blank section looks like."
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:300, :400]
    light = 120 * (1 - 0.5 * ((y - 150) ** 2 + (x - 200) ** 2) / (150**2 + 200**2))
    images = [
        np.clip(light[..., None] + rng.normal(0, 1.0, (300, 400, 3)), 0, 255).astype(np.uint8) for _ in range(count)
    ]
    for i, image in enumerate(images):  # some grains here and there
        cv2.circle(image, (60 + 25 * i, 80 + 12 * i), 40, (220, 210, 180), -1)
    assert marks_of(images) is None


def test_one_place_photographed_again_shows_no_camera(section):
    assert marks_of([section.images[0]] * 3) is None


@pytest.mark.parametrize("known", [True, False])
def test_filler_tiles_are_left_out(known, section, tmp_path):
    images = list(section.images)
    images[5] = images[11] = np.zeros_like(images[0])
    images[6] = np.full_like(images[0], 128)
    panorama, told = aligned(written(tmp_path, images), section.nominal if known else None)
    assert sorted(panorama.components()[0]) == [0, 1, 2, 3, 4, 7, 8, 9, 10]
    for i in (5, 6, 11):
        assert "one colour all over" in panorama.alignment.reasons[i]
        assert np.isnan(panorama.report().fields()[i]["row"])
        assert any(f"f{i:03}.png" in text and "one colour" in text for text in told)


def test_a_labelled_filler_tile_is_one(section, tmp_path):
    images = [label(image) for image in section.images]
    images[5] = label(np.zeros_like(images[0]))
    panorama, _ = aligned(written(tmp_path, images), section.nominal)
    assert "one colour all over" in panorama.alignment.reasons[5]


def test_blank_fields_with_equal_bytes_stay_where_the_stage_has_them(section, tmp_path):
    images = list(section.images)
    resin = np.random.default_rng(0).normal(60, 2, images[0].shape).astype(np.uint8)
    images[3] = images[8] = resin
    panorama, told = aligned(written(tmp_path, images), section.nominal)
    apart = panorama.alignment.offset[8] - panorama.alignment.offset[3]
    assert np.linalg.norm(apart - (section.nominal[8] - section.nominal[3])) < 12
    assert any("f008.png: is a copy of" in text and "another position" in text for text in told)


def test_a_copy_in_place_of_another_field_is_left_out(section, tmp_path):
    paths = written(tmp_path, section.images)
    paths[5].write_bytes(paths[3].read_bytes())
    panorama, _ = aligned(paths, section.nominal)
    assert 5 not in panorama.components()[0] and 3 in panorama.components()[0]
    assert "f003.png, whose place the overlaps confirm" in panorama.alignment.reasons[5]


def test_a_copy_at_the_same_position_is_one_place(section, tmp_path):
    paths = [*written(tmp_path, section.images), tmp_path / "again.png"]
    paths[-1].write_bytes(paths[3].read_bytes())
    panorama, _ = aligned(paths, np.vstack([section.nominal, section.nominal[3]]))
    assert panorama.fields.copies == {12: 3}
    assert np.allclose(panorama.alignment.offset[12], panorama.alignment.offset[3], atol=0.1)
