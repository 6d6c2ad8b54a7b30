"Files of every kind that a microscope camera or an annotator may leave, whole and broken."

import errno
import io
import os
import subprocess
import sys
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from petroscope.io import damage, images
from petroscope.io.files import atomic_path
from petroscope.io.images import image_size, read_image, read_mask, read_photo, write_image, write_mask

quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
side = st.integers(1, 24)
photos = st.tuples(side, side, st.just(3)).flatmap(lambda shape: arrays(np.uint8, shape))
masks = st.tuples(side, side).flatmap(lambda shape: arrays(np.uint8, shape))
deep = st.tuples(side, side, st.just(3)).flatmap(lambda shape: arrays(np.uint16, shape))

# Pillow's own way of turning a picture upright, an independent statement of the eight codes.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def pillow(pixels, kind, **options):
    file = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(file, kind, **options)
    return file.getvalue()


def opencv(pixels, suffix, *options):
    pixels = pixels[..., ::-1] if pixels.ndim == 3 and pixels.shape[2] == 3 else pixels
    return cv2.imencode(suffix, np.ascontiguousarray(pixels), list(options))[1].tobytes()


def turned(pixels, orientation):
    picture = Image.fromarray(pixels)
    return np.array(picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture)


def soft(height=37, width=53):
    "A small photo with the smoothness of a real one, so that JPEG has something to do."
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


@quick
@given(photo=photos, suffix=st.sampled_from([".png", ".tif", ".tiff", ".PNG"]))
def test_photos_come_back_exactly(tmp_path, photo, suffix):
    path = tmp_path / f"поле {suffix}"
    write_image(path, photo)
    back = read_image(path)
    assert back.dtype == np.uint8 and back.flags.c_contiguous and back.flags.writeable
    np.testing.assert_array_equal(back, photo)
    assert image_size(path) == photo.shape[:2]


@quick
@given(mask=masks)
def test_masks_come_back_exactly(tmp_path, mask):
    path = tmp_path / "mask.png"
    write_mask(path, mask)
    np.testing.assert_array_equal(read_mask(path), mask)
    assert image_size(path) == mask.shape
    assert np.array(Image.open(path)).shape == mask.shape  # one channel, for other programs


@quick
@given(
    photo=photos,
    kind=st.sampled_from(["PNG", "TIFF", "JPEG"]),
    mode=st.sampled_from(["RGB", "L", "RGBA", "LA", "P"]),
    orientation=st.integers(1, 8),
)
def test_every_format_mode_and_orientation(tmp_path, photo, kind, mode, orientation):
    if kind == "JPEG" and mode in ("RGBA", "LA", "P"):
        mode = "RGB"
    picture = Image.fromarray(photo).convert(mode)
    exif = Image.Exif()
    exif[274] = orientation
    data = pillow(picture, kind, exif=exif)
    path = tmp_path / "photo"
    path.write_bytes(data)
    stored = np.array(Image.open(io.BytesIO(pillow(picture, kind))).convert("RGB"))
    expected = turned(stored, orientation)
    np.testing.assert_array_equal(read_image(path), expected)
    assert image_size(path) == expected.shape[:2]


@quick
@given(
    photo=deep,
    suffix=st.sampled_from([".png", ".tif"]),
    grey=st.booleans(),
    alpha=st.booleans(),
    white=st.sampled_from([4095, 16383, 65535]),
)
def test_sixteen_bits_are_rounded_to_eight(tmp_path, photo, suffix, grey, alpha, white):
    photo = np.minimum(photo, white)
    stored = photo[..., 0] if grey else np.dstack([photo[..., ::-1], photo[..., :1]]) if alpha else photo
    path = tmp_path / "photo"
    path.write_bytes(opencv(stored, suffix))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = read_photo(path, white=white)[0]
    expected = np.floor(photo * 255.0 / white + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(back, np.dstack([expected[..., 0]] * 3) if grey else expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_orientation(tmp_path, orientation, bits):
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    stored = grey if bits == 8 else grey.astype(np.uint16) * 257
    path = tmp_path / "photo.tif"
    path.write_bytes(pillow(stored, "TIFF", tiffinfo={274: orientation}))
    np.testing.assert_array_equal(read_image(path)[..., 0], turned(grey, orientation))
    np.testing.assert_array_equal(image_size(path), turned(grey, orientation).shape)


@quick
@given(mask=masks, data=st.data())
def test_palette_gives_indices(tmp_path, mask, data):
    colors = data.draw(arrays(np.uint8, (256, 3), elements=st.integers(0, 255)))
    colors[:, 0], colors[:, 1] = 10, 20  # never grey
    for kind in "PNG", "TIFF":
        picture = Image.fromarray(mask)
        picture.putpalette(colors.tobytes())
        path = tmp_path / "mask"
        path.write_bytes(pillow(picture, kind))
        np.testing.assert_array_equal(read_mask(path), mask)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_of_few_colors(tmp_path, bits):
    mask = (np.arange(35).reshape(5, 7) % 2**bits).astype(np.uint8)
    picture = Image.fromarray(mask)
    picture.putpalette(np.random.default_rng(0).integers(0, 256, (2**bits, 3), np.uint8).tobytes())
    path = tmp_path / "mask.png"
    path.write_bytes(pillow(picture, "PNG", bits=bits))
    assert path.read_bytes()[24:26] == bytes([bits, 3])
    np.testing.assert_array_equal(read_mask(path), mask)


def test_grey_palette_in_order_is_no_riddle(tmp_path):
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(mask).convert("P").save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), mask)


PHOTO = soft()
DEEP = PHOTO.astype(np.uint16) * 257
FILES = {
    "baseline.jpg": pillow(PHOTO, "JPEG"),
    "progressive.jpg": pillow(PHOTO, "JPEG", progressive=True),
    "restarts.jpg": opencv(PHOTO, ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "grey.jpg": pillow(PHOTO[..., 0], "JPEG"),
    "thumbnail.jpg": pillow(PHOTO, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + pillow(PHOTO[:8, :8], "JPEG")),
    "rgb.png": pillow(PHOTO, "PNG"),
    "deep.png": opencv(DEEP, ".png"),
    "palette.png": pillow(Image.fromarray(PHOTO).quantize(7), "PNG"),
    "plain.tif": pillow(PHOTO, "TIFF"),
    "lzw.tif": pillow(PHOTO, "TIFF", compression="tiff_lzw"),
    "deflate.tif": pillow(PHOTO, "TIFF", compression="tiff_adobe_deflate"),
    "jpeg.tif": pillow(PHOTO, "TIFF", compression="jpeg"),
    "deep.tif": opencv(DEEP, ".tif"),
    "deep plain.tif": opencv(DEEP, ".tif", cv2.IMWRITE_TIFF_COMPRESSION, 1),
    "big.tif": pillow(PHOTO, "TIFF", big_tiff=True),
}


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_cut_off_file_never_gives_a_picture(tmp_path, name, data):
    whole = FILES[name]
    near_the_end = st.integers(1, 40).map(lambda n: len(whole) - n)
    length = data.draw(st.one_of(st.integers(0, len(whole) - 1), near_the_end))
    path = tmp_path / name
    path.write_bytes(whole[:length])
    for read in read_image, read_mask:
        with pytest.raises(ValueError) as failure:
            read(path)
        text = str(failure.value)
        assert text.startswith(f"{path}: expected a ") and "got" in text and "\n" not in text


@pytest.mark.parametrize("name", FILES)
def test_whole_files_are_read_and_may_have_a_tail(tmp_path, name, capfd):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    photo = read_image(path)
    assert photo.shape == PHOTO.shape and image_size(path) == PHOTO.shape[:2]
    path.write_bytes(FILES[name] + b"\0 a tail that some camera adds" * 5)
    np.testing.assert_array_equal(read_image(path), photo)
    assert capfd.readouterr() == ("", "")


@quick
@given(position=st.integers(8, len(FILES["rgb.png"]) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_png_is_seen(tmp_path, position, bit):
    data = bytearray(FILES["rgb.png"])
    data[position] ^= 1 << bit
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"photo\.png: expected a photo"):
        read_image(path)


@quick
@given(junk=st.binary(min_size=1, max_size=300), magic=st.sampled_from([b"", *damage._MAGIC]))
def test_junk_is_refused_in_one_line(tmp_path, junk, magic):
    path = tmp_path / "photo.png"
    path.write_bytes(magic + junk)
    for read in read_image, read_mask, image_size:
        try:
            read(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: expected") and "\n" not in str(error)
        else:
            assert read is image_size  # a head can be right by chance, a picture cannot


def test_more_pixels_than_pillow_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for name in "a.png", "a.tif", "a.jpg":
        write_image(tmp_path / name, PHOTO)
        assert read_image(tmp_path / name).shape == PHOTO.shape
    assert Image.MAX_IMAGE_PIXELS == 10


def test_reading_in_threads(tmp_path, in_threads):
    for name in "a.png", "a.tif", "a.jpg":
        write_image(tmp_path / name, PHOTO)
    limit = Image.MAX_IMAGE_PIXELS

    def read():
        for name in "a.png", "a.tif":
            for _ in range(20):
                np.testing.assert_array_equal(read_image(tmp_path / name), PHOTO)

    in_threads(read)
    assert Image.MAX_IMAGE_PIXELS == limit


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            pillow(PHOTO[..., 0].astype(np.float32), "TIFF"),
            "got 32 bit floating point numbers; export it with 8 or 16 bits per channel",
        ),
        (
            pillow(PHOTO, "TIFF", save_all=True, append_images=[Image.fromarray(PHOTO)]),
            "got a stack of several pages; export the page that is meant into a file of its own",
        ),
        (
            pillow(PHOTO, "TIFF", tiffinfo={254: 1}),
            "got one whose first page is a thumbnail (a camera's raw file?); export it as PNG or TIFF",
        ),
        (pillow(PHOTO, "BMP"), "got a BMP picture; export it as PNG or TIFF"),
        (b"version https://git-lfs.github.com/spec/v1\n", "got a Git LFS pointer; export it as PNG or TIFF"),
        (b"\x01\x02\x03\x04", "got bytes that begin with 01 02 03 04; export it as PNG or TIFF"),
    ],
)
def test_what_is_refused(tmp_path, data, text):
    path = tmp_path / "photo.tif"
    path.write_bytes(data)
    with pytest.raises(ValueError) as failure:
        read_image(path)
    assert str(failure.value) == f"{path}: expected a photo (JPEG, PNG or TIFF), {text}"


def test_smaller_pages_are_a_pyramid(tmp_path):
    path = tmp_path / "slide.tif"
    path.write_bytes(pillow(PHOTO, "TIFF", save_all=True, append_images=[Image.fromarray(PHOTO[::2, ::2])]))
    np.testing.assert_array_equal(read_image(path), PHOTO)


def test_inputs_stay_as_they_are(tmp_path):
    view = PHOTO[::-1, ::2]
    kept = view.copy()
    write_image(tmp_path / "a.png", view)
    np.testing.assert_array_equal(view, kept)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), kept)
    write_mask(tmp_path / "a.png", view[..., 0])
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), kept[..., 0])


# --- the disk -----------------------------------------------------------------------------------------------------


@contextmanager
def as_ordinary_user():
    "Rights do not bind root; so take the rights of nobody where the tests run as root."
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no user ids")
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_folder(tmp_path):
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "mask.png"
        write_mask(target, PHOTO[..., 0])
        os.chmod(name, 0o555)
        try:
            with as_ordinary_user(), pytest.raises(PermissionError) as failure:
                write_mask(target, PHOTO[..., 1])
        finally:
            os.chmod(name, 0o755)
        assert str(failure.value) == (
            f"[Errno {errno.EACCES}] {target}: could not be written: permission denied; "
            "name a folder that may be written to; what was there before is unchanged"
        )
        np.testing.assert_array_equal(read_mask(target), PHOTO[..., 0])
        assert os.listdir(name) == ["mask.png"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full")
def test_a_full_disk(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("before")
    with pytest.raises(OSError) as failure, atomic_path(target) as temporary:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        temporary.write_text("after")
    assert failure.value.errno == errno.ENOSPC
    assert str(failure.value) == (
        f"[Errno {errno.ENOSPC}] {target}: could not be written: no space left on device; "
        "free some space or name another disk; what was there before is unchanged"
    )
    assert target.read_text() == "before" and os.listdir(tmp_path) == ["table.csv"]


def test_a_file_larger_than_allowed(tmp_path):
    "The real thing in a process of its own: the system refuses to write more than 4 kB."
    pytest.importorskip("resource")
    target = tmp_path / "noise.png"
    write_image(target, PHOTO[:4, :4])
    before = target.read_bytes()
    code = (
        "import resource, signal, sys, numpy as np; from petroscope.io.images import write_image\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: write_image(sys.argv[1], np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8))\n"
        "except OSError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-B", "-c", code, str(target)], capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"[Errno {errno.EFBIG}] {target}: could not be written: file too large; the disk, or a limit "
        "set on this computer, refuses files of this size; what was there before is unchanged\n"
    )
    assert target.read_bytes() == before and os.listdir(tmp_path) == ["noise.png"]


def test_links_and_devices(tmp_path):
    write_mask(tmp_path / "real.png", PHOTO[..., 0])
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    write_mask(tmp_path / "link.png", PHOTO[..., 1])
    assert (tmp_path / "link.png").is_symlink()
    np.testing.assert_array_equal(read_mask(tmp_path / "real.png"), PHOTO[..., 1])
    for path in (os.devnull, tmp_path):
        with pytest.raises(OSError, match="could not be written: it is a folder or a device; name a file"):
            with atomic_path(path):
                raise AssertionError("must not come here")
    with pytest.raises(NotADirectoryError, match="name a file in a folder"):
        write_mask(tmp_path / "real.png" / "a.png", PHOTO[..., 0])


def test_new_files_have_the_usual_rights(tmp_path):
    write_mask(tmp_path / "a.png", PHOTO[..., 0])
    (tmp_path / "b.png").touch()
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "b.png").stat().st_mode


# --- the import ---------------------------------------------------------------------------------------------------


def test_import_is_light():
    code = "import sys, petroscope.io.images; print({'matplotlib', 'torch', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_missing_system_libraries_are_named(tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    paths = [str(tmp_path), str(Path(images.__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", "import petroscope.io.images"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: OpenCV is installed but cannot start: libGL.so.1: cannot open shared object file. On Debian or "
        "Ubuntu run `apt install libgl1 libglib2.0-0`, or put opencv-python-headless in the place of opencv-python."
    )


def test_a_file_that_the_body_made_anew_is_as_readable_as_any_other(tmp_path):
    (tmp_path / "plain.bin").write_bytes(b"x")
    with atomic_path(tmp_path / "private.bin") as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)
    assert (tmp_path / "private.bin").stat().st_mode == (tmp_path / "plain.bin").stat().st_mode
