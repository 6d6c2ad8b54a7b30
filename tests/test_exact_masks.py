"Masks whose compression may change codes are refused, whatever holds them; printers' resolutions are no pixel sizes."

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from petroscope.io.images import read_mask
from petroscope.io.masks import mask_bands
from petroscope.io.scale import pixel_size_um
from petroscope.synth.rock import scene

MASK = scene((64, 96), seed=2, scale=0.25).mask
LOSSY = {
    "jpeg": {"compression": "jpeg"},
    "jpeg of full quality": {"compression": "jpeg", "compressionargs": {"level": 100}},
    "jpeg 2000": {"compression": "jpeg2000", "compressionargs": {"level": 40}},
    "webp": {"compression": "webp", "compressionargs": {"level": 60, "lossless": False}},
    "jpeg xr": {"compression": "jpegxr", "compressionargs": {"level": 0.6}},
    "jpeg xl": {"compression": "jpegxl", "compressionargs": {"distance": 2}},
    "lerc": {"compression": "lerc", "compressionargs": {"level": 3}},
}
EXACT = [None, "zlib", "lzw", "packbits", "zstd", "lzma"]


def write(path, name):
    pixels = np.dstack([MASK] * 3) if name == "webp" else MASK
    options = {} if name == "webp" else {"photometric": "minisblack"}
    try:
        tifffile.imwrite(path, pixels, tile=(32, 32), **options, **LOSSY[name])
    except (ValueError, ImportError) as why:
        pytest.skip(f"imagecodecs here cannot write {name}: {why}")


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("read", [read_mask, lambda path: list(mask_bands(path))], ids=["whole", "bands"])
def test_lossy_compression_in_a_tiff_is_refused(tmp_path, name, read):
    write(tmp_path / "m.tif", name)
    with pytest.raises(ValueError, match=r"m\.tif: expected a mask.*inside, whose compression may change.*export the"):
        read(tmp_path / "m.tif")


@pytest.mark.parametrize("packing", EXACT)
def test_exact_compression_in_a_tiff_is_read(tmp_path, packing):
    tifffile.imwrite(tmp_path / "m.tif", MASK, tile=(32, 32), compression=packing, photometric="minisblack")
    assert np.array_equal(read_mask(tmp_path / "m.tif"), MASK)
    assert np.array_equal(np.concatenate([band for _, band in mask_bands(tmp_path / "m.tif")]), MASK)


DPI = [72, 75, 90, 96, 100, 120, 144, 150, 180, 200, 240, 300, 350, 360, 400, 600, 720, 1200, 2400, 3600, 4800, 9600]


def imagej(path, size_um, unit):
    per = {"inch": 25400.0, "cm": 1e4, "mm": 1e3, "micron": 1.0}[unit] / size_um
    tifffile.imwrite(path, MASK, imagej=True, resolution=(per, per), metadata={"unit": unit})


def ome(path, size_um, unit):
    factor = {"µm": 1.0, "mm": 1e-3, "nm": 1e3, "in": 1 / 25400}[unit]
    about = {f"PhysicalSize{axis}": size_um * factor for axis in "XY"}
    units = {f"PhysicalSize{axis}Unit": unit for axis in "XY"}
    tifffile.imwrite(path, MASK, ome=True, metadata={"axes": "YX", **about, **units})


WRITERS = {
    "png": lambda path, um: Image.fromarray(MASK).save(path.with_suffix(".png"), dpi=(25400 / um,) * 2),
    "jpg": lambda path, um: Image.fromarray(MASK).save(path.with_suffix(".jpg"), dpi=(25400 / um,) * 2),
    "tiff inch": lambda path, um: tifffile.imwrite(path, MASK, resolution=(25400 / um,) * 2, resolutionunit="INCH"),
    "tiff cm": lambda path, um: tifffile.imwrite(path, MASK, resolution=(1e4 / um,) * 2, resolutionunit="CENTIMETER"),
    **{f"ImageJ {unit}": lambda p, um, unit=unit: imagej(p, um, unit) for unit in ("inch", "cm", "mm", "micron")},
    **{f"OME {unit}": lambda p, um, unit=unit: ome(p, um, unit) for unit in ("µm", "mm", "nm", "in")},
}


@pytest.mark.parametrize("writer", WRITERS)
def test_printers_and_scanners_resolutions_are_no_pixel_sizes(tmp_path, writer):
    for dpi in DPI:
        WRITERS[writer](tmp_path / "p.tif", 25400 / dpi)
        (path,) = tmp_path.iterdir()
        assert pixel_size_um(path) is None, dpi
        path.unlink()


@pytest.mark.parametrize("writer", [name for name in WRITERS if name != "jpg"])  # its dots per inch are whole numbers
@given(size_um=st.sampled_from([0.05, 0.1, 0.25, 0.345, 0.5, 0.65, 1.0, 2.0, 5.0, 10.0]))
def test_what_a_microscope_has_is_a_pixel_size(tmp_path_factory, writer, size_um):
    path = tmp_path_factory.mktemp("size") / "p.tif"
    WRITERS[writer](path, size_um)
    (path,) = path.parent.iterdir()
    assert pixel_size_um(path) == pytest.approx(size_um, rel=1e-3)
