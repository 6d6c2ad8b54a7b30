"Masks of 0 and 255 alone: refused where white seems to be a mineral, taken where 255 is honest void."

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from petroscope.analysis.grains import find_grains
from petroscope.analysis.modal import modal
from petroscope.analysis.section import analyse
from petroscope.io.images import write_image, write_mask
from petroscope.segmentation.balancer import SelfBalancingDataset
from petroscope.segmentation.classes import VOID, LumenStoneClasses
from petroscope.segmentation.dataset import DatasetError, LumenStone, Sample
from petroscope.segmentation.evaluate import SegmDetailedTester
from petroscope.segmentation.masks import enclosed_void, recode
from petroscope.segmentation.metrics import SegmMetrics
from petroscope.synth.rock import scene

S1 = LumenStoneClasses.S1v1
SECTION = scene(shape=(120, 160), seed=1, scale=0.5)
BINARY = np.where(np.pad(SECTION.mask[8:-8, 8:-8], 8) == 6, np.uint8(VOID), np.uint8(0))  # pyrite is white
MARGIN = np.zeros_like(BINARY)
MARGIN[:, :70] = VOID  # a blank field of a mosaic that ends there
SCRATCH = np.zeros_like(BINARY)
SCRATCH[60, 20:90] = VOID  # 70 px of 19,200
HONEST = {"blank": np.zeros_like(BINARY), "margin": MARGIN, "scratch": SCRATCH, "minerals": SECTION.mask}


def files(folder, masks):
    "A dataset of these masks, all with one photo."
    for i, mask in enumerate(masks):
        for kind in ("imgs", "masks"):
            (folder / kind / "train").mkdir(parents=True, exist_ok=True)
        write_image(folder / f"imgs/train/{i}.png", SECTION.image)
        write_mask(folder / f"masks/train/{i}.png", mask)
    return folder


def score(mask, folder):
    return SegmMetrics.from_masks(np.zeros_like(mask), mask, S1)


def judge(mask, folder):
    files(folder, [mask, SECTION.mask])
    done = SegmDetailedTester(folder / "out", S1, pictures=False, pred_void="wrong").test_predictions(
        files(folder / "p", [np.zeros_like(mask), SECTION.mask]) / "masks/train", folder / "masks/train"
    )
    if done.failures:
        raise ValueError(done.failures)


def bands(mask, folder):
    return find_grains(((top, mask[top : top + 7]) for top in range(0, len(mask), 7)), S1)


def balance(mask, folder, cache=False):
    root = files(folder, [mask, SECTION.mask])
    options = {"cache_dir": folder / "cache"} if cache else {}
    return SelfBalancingDataset(LumenStone(root, S1), S1, 32, **options)


def section_of(mask, folder):
    return analyse(files(folder, [mask]) / "masks/train/0.png", folder / "out", S1)


DOORS = {
    "metrics": score,
    "evaluation of masks": judge,
    "a pair": lambda mask, folder: Sample("a", SECTION.image, mask).read(S1),
    "a data set": lambda mask, folder: LumenStone(files(folder, [mask, SECTION.mask]), S1).check(),
    "the balancer": balance,
    "the balancer with a cache": lambda mask, folder: balance(mask, folder, cache=True),
    "grains": lambda mask, folder: find_grains(mask, S1),
    "grains of a mask in bands": bands,
    "modal": lambda mask, folder: modal(mask, S1),
    "modal of a file": lambda mask, folder: modal(files(folder, [mask]) / "masks/train/0.png", S1),
    "analysis": section_of,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.filterwarnings("ignore")
def test_a_binary_mask_is_refused_with_the_way_out(door, tmp_path):
    with pytest.raises(ValueError, match=r"0 and 255 only.*a binary mask\?.*recode\(mask, \{255: 6, 0: 0\}\)"):
        DOORS[door](BINARY, tmp_path)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("kind", HONEST)
@pytest.mark.filterwarnings("ignore")
def test_an_honest_mask_is_taken(door, kind, tmp_path):
    DOORS[door](HONEST[kind], tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_the_way_out_leads_out():
    assert modal(recode(BINARY, {255: 6, 0: 0}), S1).rows()[4].pixels == np.count_nonzero(BINARY)


@pytest.mark.parametrize("masks", [[MARGIN, SCRATCH], [SCRATCH]])
@pytest.mark.filterwarnings("ignore")
def test_a_whole_set_without_a_mineral_is_refused(masks, tmp_path):
    root = files(tmp_path, masks)
    dataset = LumenStone(root, S1)
    with pytest.raises(DatasetError, match=rf"no mineral in any mask \({len(masks)}\).*a binary mask\?"):
        dataset.check()
    with pytest.raises(ValueError, match="no mineral in any mask"):
        SelfBalancingDataset(dataset, S1, 32)
    tester = SegmDetailedTester(tmp_path / "out", S1, pictures=False)
    with pytest.raises(ValueError, match="nothing to score: no mineral in any mask"):
        tester.test_on_set(dataset, lambda image: np.zeros(image.shape[:2], np.uint8))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_an_analysis_says_that_white_may_be_a_mineral(tmp_path):
    with pytest.warns(UserWarning, match="0: no mineral: its values are 0 and 255"):
        done = section_of(SCRATCH, tmp_path)
    assert any("no mineral" in note for note in done.notes) and "no mineral" in str(done)


def test_every_n_th_pixel_of_a_large_mask_is_looked_at(monkeypatch):
    monkeypatch.setattr("petroscope.analysis.modal._LOOKED_AT", 1000)
    with pytest.raises(ValueError, match="a binary mask"):
        modal(BINARY, S1)
    modal(MARGIN, S1)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.9))
def test_enclosed_void_by_another_library(seed, share):
    mask = np.where(np.random.default_rng(seed).random((13, 17)) < share, np.uint8(VOID), np.uint8(0))
    parts, count = ndimage.label(mask == VOID, np.ones((3, 3)))
    edge = np.unique([*parts[0], *parts[-1], *parts[:, 0], *parts[:, -1]])
    wanted = sum(np.count_nonzero(parts == i) for i in range(1, count + 1) if i not in edge)
    assert enclosed_void(mask) == wanted
