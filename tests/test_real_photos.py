"What holds on real photos, where they are at hand."

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from petroscope.io.images import read_image, read_mask, write_image  # noqa: E402
from petroscope.segmentation.classes import LumenStoneClasses  # noqa: E402
from petroscope.segmentation.dataset import LumenStone  # noqa: E402


def test_the_dataset_is_as_described(s1):
    dataset = LumenStone(s1, LumenStoneClasses.S1v1)
    statistics = dataset.statistics()
    assert len(dataset) == 59
    np.testing.assert_allclose(
        100 * statistics.shares, [32.11, 1.79, 7.34, 4.49, 23.67, 26.97, 3.62], atol=0.01
    )  # fmt: skip
    assert statistics.images[3] == 16 and statistics.images[6] == 19
    train, held_out = dataset.hold_out(0.2, seed=0)
    assert not {s.name for s in train} & {s.name for s in held_out}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here to read the peak of the memory from")
def test_the_enlarged_photo_gives_the_same_mask_in_little_memory(s1, petroscope, tmp_path):
    "Scale 0.5, and the same photo enlarged to scale 1.0: one mineral on 97 % of the pixels, under 1.5 GB."
    half = s1 / "imgs/train/33.jpg"
    full = tmp_path / "enlarged.png"
    write_image(full, cv2.resize(read_image(half), (3396, 2547), interpolation=cv2.INTER_CUBIC))
    masks = []
    for photo, scale in ((half, 0.5), (full, 1.0)):
        code = "import sys; from petroscope.cli.main import main; main(sys.argv[1:]); print(*open('/proc/self/status'))"
        argv = ["segment", str(photo), "--out", str(tmp_path), "--scale", str(scale)]
        done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        # Not ru_maxrss, which a new process takes over from the one that started it.
        assert int(re.search(r"VmHWM:\s+(\d+) kB", done.stdout)[1]) * 1024 < 1.5e9
        masks.append(read_mask(tmp_path / f"{photo.stem}_mask.png"))
    enlarged = cv2.resize(masks[0], (3396, 2547), interpolation=cv2.INTER_NEAREST_EXACT)
    assert masks[1].shape == (2547, 3396)
    assert (enlarged == masks[1]).mean() >= 0.97
