"Shares of minerals by hand, their intervals against rocks whose truth is known, and masks that come in bands."

import json
import math
from statistics import NormalDist

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from petroscope.analysis.modal import cell_counts, choose_blocks, coarser, expected_pixels, modal, share_interval
from petroscope.io.images import VOID, read_mask, write_mask
from petroscope.io.masks import mask_bands
from petroscope.io.scale import pixel_size_um
from petroscope.segmentation.calibration import find_temperature, temperature_scaled
from petroscope.segmentation.classes import LumenStoneClasses

S1 = LumenStoneClasses.S1v1
CODES = [*S1.codes, VOID]
masks = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from(CODES))
)
quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(mask=masks, rows=st.integers(1, 50), strip=st.integers(1, 40), tiled=st.booleans())
def test_bands_are_the_mask(tmp_path, mask, rows, strip, tiled):
    write_mask(tmp_path / "a.png", mask)
    layout = {"tile": (16, 32)} if tiled else {"rowsperstrip": strip}
    tifffile.imwrite(tmp_path / "a.tif", mask, **layout, compression="zlib" if strip % 2 else None)
    for source in mask, tmp_path / "a.png", tmp_path / "a.tif":
        found = list(mask_bands(source, rows))
        assert [top for top, _ in found] == list(range(0, len(mask), rows))
        assert all(0 < len(band) <= rows for _, band in found)
        np.testing.assert_array_equal(np.concatenate([band for _, band in found]), mask)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "palette"])
def test_bands_of_a_tiff_are_what_read_mask_says(tmp_path, photometric):
    mask = np.random.default_rng(0).choice(np.array(CODES, np.uint8), (50, 60))
    options = {"colormap": np.arange(768, dtype=np.uint16).reshape(3, 256) * 80} if photometric == "palette" else {}
    tifffile.imwrite(tmp_path / "a.tif", mask, photometric=photometric, **options)
    bands = np.concatenate([band for _, band in mask_bands(tmp_path / "a.tif", 7)])
    np.testing.assert_array_equal(bands, read_mask(tmp_path / "a.tif"))


def test_a_damaged_tiff_is_named(tmp_path):
    mask = np.random.default_rng(0).choice(np.array(CODES, np.uint8), (300, 300))
    tifffile.imwrite(tmp_path / "a.tif", mask, tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        middle = tiff.pages[0].dataoffsets[12]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[middle : middle + 200] = bytes(200)
    (tmp_path / "b.tif").write_bytes(data)
    with pytest.raises(ValueError, match=r"b\.tif"):
        modal(tmp_path / "b.tif", S1)
    with pytest.raises(ValueError, match=r"c\.tif"):
        (tmp_path / "c.tif").write_bytes(data[: middle + 100])
        modal(tmp_path / "c.tif", S1)


def test_a_stack_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 30, 30), np.uint8), photometric="minisblack")
    with pytest.raises(ValueError, match="stack of several pages"):
        modal(tmp_path / "a.tif", S1)


@quick
@given(mask=masks, down=st.integers(1, 9), across=st.integers(1, 9))
def test_cells_add_up(mask, down, across):
    cells = cell_counts(mask, S1, (down, across))
    assert cells.sum(axis=(0, 1)).tolist() == [int((mask == code).sum()) for code in S1.codes]
    grid = (min(down, cells.shape[0], 3), min(across, cells.shape[1], 2))
    np.testing.assert_array_equal(coarser(cells, grid).sum(axis=(0, 1)), cells.sum(axis=(0, 1)))


@settings(quick, max_examples=25)
@given(mask=masks, seed=st.integers(0, 9))
def test_the_table_of_any_mask(mask, seed):
    kept = mask.copy()
    table = modal(mask[::-1, ::-1], S1, seed=seed, resamples=200)
    rows, counted = table.rows(), int((mask != VOID).sum())
    np.testing.assert_array_equal(mask, kept)
    assert table.void == mask.size - counted
    for row, code in zip(rows, S1.codes):
        n = int((mask == code).sum())
        assert row.pixels == n
        assert math.isnan(row.percent) if counted == 0 else row.percent == pytest.approx(100 * n / counted)
        if not math.isnan(row.low):
            assert 0 <= row.low <= row.percent <= row.high <= 100
    minerals = [row.minerals for row in rows[1:]]
    if counted > (mask == 0).sum():
        assert sum(minerals) == pytest.approx(100)
    assert json.loads(table.to_json())["minerals"][0]["label"] == "BG"
    assert len(table.to_csv().splitlines()) == len(S1) + 1 and str(table) and table._repr_html_()


def rock(rng, size, length, share):
    "A picture with blobs some 4 * length px large, which cover a share of the area of the rock."
    frequency = np.fft.rfftfreq(2 * size) ** 2 + np.fft.fftfreq(2 * size)[:, None] ** 2
    blur = np.exp(-2 * (np.pi * length) ** 2 * frequency)
    wave = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((2 * size, 2 * size))) * blur)[:size, :size]
    wave *= 2 * length * np.sqrt(np.pi)
    return wave > NormalDist().inv_cdf(1 - share)


@pytest.mark.parametrize(("length", "share"), [(2, 0.3), (4, 0.05)])
def test_intervals_of_one_picture_hold_the_truth(length, share):
    rng, hits, pixels, times = np.random.default_rng(5), 0, 0, 120
    for _ in range(times):
        ones = rock(rng, 160, length, share)
        inside = ones.reshape(40, 4, 40, 4).sum(axis=(1, 3))
        blocks = choose_blocks([np.stack([16 - inside, inside], axis=-1)], [(160, 160)])
        _, low, high = share_interval(blocks, resamples=300)
        p = ones.mean()
        hits += low[1] <= share <= high[1]
        pixels += abs(p - share) < 1.96 * np.sqrt(p * (1 - p) / ones.size)
    assert 0.89 <= hits / times <= 1.0
    assert pixels / times < 0.5  # as if pixels were independent


@pytest.mark.parametrize("fields", [5, 10, 30])
def test_intervals_over_fields_hold_the_truth(fields):
    rng = np.random.default_rng(fields)
    stock = np.array([rock(rng, 64, 5, 0.1).sum() for _ in range(300)])
    truth, hits, times = stock.mean() / 64**2, 0, 250
    for _ in range(times):
        ones = rng.choice(stock, fields)
        counts = [np.array([[[64**2 - n, n]]]) for n in ones]
        _, low, high = share_interval(counts, resamples=150)
        hits += low[1] <= truth <= high[1]
    assert 0.91 <= hits / times <= 0.99


def test_the_same_seed_gives_the_same_intervals():
    mask = np.random.default_rng(0).choice(np.array(CODES[:-1], np.uint8), (90, 90))
    same, again, other = (modal(mask, S1, seed=seed).to_csv() for seed in (1, 1, 2))
    assert same == again != other


def test_fields_of_different_size_count_by_area():
    small, large = np.full((10, 10), 1, np.uint8), np.full((30, 30), 2, np.uint8)
    rows = modal([small, large], S1, blocks="fields").rows()
    assert (rows[1].percent, rows[2].percent) == (10, 90)


def test_pixel_sizes_of_files(tmp_path):
    mask = np.ones((40, 50), np.uint8)
    for name, size in ("a.ome.tif", 0.5), ("b.ome.tif", 0.5), ("c.ome.tif", 0.7):
        about = {"axes": "YX", "PhysicalSizeX": size, "PhysicalSizeY": size}
        tifffile.imwrite(tmp_path / name, mask, metadata=about)
    write_mask(tmp_path / "d.png", mask)
    assert pixel_size_um(tmp_path / "c.ome.tif") == 0.7
    both = modal([tmp_path / "a.ome.tif", tmp_path / "b.ome.tif"], S1)
    assert both.rows()[1].area_mm2 == pytest.approx(4000 * 0.25e-6)
    assert modal([tmp_path / "a.ome.tif", tmp_path / "d.png"], S1).pixel_size_um is None
    assert modal([tmp_path / "a.ome.tif", tmp_path / "c.ome.tif"], S1, pixel_size_um=1).pixel_size_um == 1
    with pytest.raises(ValueError, match=r"different pixel sizes, 0\.5 to 0\.7"):
        modal([tmp_path / "a.ome.tif", tmp_path / "c.ome.tif"], S1)


def test_expected_areas_ignore_void():
    probs = np.full((7, 4, 6), 1 / 7, np.float32)
    mask = np.zeros((4, 6), np.uint8)
    mask[:2] = VOID
    np.testing.assert_allclose(expected_pixels(probs, mask, S1), 12 / 7, rtol=1e-5)
    table = modal(mask, S1, probs=[probs])
    np.testing.assert_allclose([row.expected for row in table.rows()], 100 / 7, rtol=1e-5)
    with pytest.raises(ValueError):
        modal([mask, mask], S1, probs=[probs])


def test_a_temperature_is_found():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (7, 120, 150)).astype(np.float32)
    honest = np.exp(logits) / np.exp(logits).sum(axis=0)
    drawn = (rng.random((120, 150)) > np.cumsum(honest, axis=0)).sum(axis=0).clip(0, 6)
    target = S1.to_code(drawn.astype(np.uint8))
    for temperature in 0.4, 1.0, 2.5:
        found = find_temperature(temperature_scaled(honest, 1 / temperature), target, S1)
        assert found == pytest.approx(1 / (1 / temperature), rel=0.05)
    with pytest.raises(ValueError, match="void only"):
        find_temperature(honest, np.full((120, 150), VOID, np.uint8), S1)


def test_real_masks(s1):
    files = sorted((s1 / "masks/train").glob("*.png"))
    table = modal(files[:12], S1)
    counts = sum(np.bincount(read_mask(file).ravel(), minlength=256) for file in files[:12])
    assert [row.pixels for row in table.rows()] == counts[list(S1.codes)].tolist()
    alone = modal(files[0], S1)
    assert all(row.low < row.percent < row.high for row in alone.rows() if row.pixels)
