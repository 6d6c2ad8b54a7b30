"What several tests share: the real photos, where they are, the commands as a user runs them, and threads."

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# A busy machine is no fault of the code, and a run says the same as the one before it.
hypothesis.settings.register_profile("petroscope", deadline=None, derandomize=True)
hypothesis.settings.load_profile("petroscope")

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("PETROSCOPE_DATA", ROOT.parent / "shared" / "data"))


def needs_data(part):
    "The folder of real data, or a skipped test that says what is missing."
    folder = DATA / part
    if not folder.exists():
        pytest.skip(f"real data is not here: {folder} (set PETROSCOPE_DATA to the folder that holds it)")
    return folder


@pytest.fixture(scope="session")
def s1():
    "The training half of LumenStone S1_v1 at half size."
    return needs_data("LumenStone_x05/S1_v1")


@pytest.fixture(scope="session")
def stitching():
    "Real overlapping fields, a folder for each section."
    return needs_data("stitching")


@pytest.fixture(scope="session")
def compat():
    "A checkpoint of the earlier package, and what it must predict."
    pytest.importorskip("torch", reason="PyTorch is not installed")
    return needs_data("compat")


@pytest.fixture
def data(tmp_path):
    "A dataset of three drawn photos of 64 x 48 px with their masks, as files."
    from petroscope.io.images import write_image, write_mask
    from petroscope.synth.rock import scene

    for name in ("a", "b", "c"):
        drawn = scene((48, 64), seed=ord(name))
        for part in ("imgs/train", "masks/train"):
            (tmp_path / "set" / part).mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / f"set/imgs/train/{name}.png", drawn.image)
        write_mask(tmp_path / f"set/masks/train/{name}.png", drawn.mask)
    return tmp_path / "set"


@pytest.fixture
def petroscope():
    "Run the command line in a process of its own: exit status, output, errors."

    def run(*argv, **options):
        start = "import sys; from petroscope.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-c", start, *map(str, argv)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, **options)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def here(capsys):
    "The same in this process, where what is asked is not what a process of its own is for: seconds less a call."
    from petroscope.cli.main import main

    def run(*argv):
        capsys.readouterr()
        status = main([*map(str, argv)])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def plain_plots(monkeypatch):
    "Drawing plots takes most of an evaluation's or analysis' time, and says nothing of what they are drawn of."
    rooms = ("cli.train", "segmentation.evaluation_files", "segmentation.evaluation_report", "analysis.result")
    for room in rooms:
        monkeypatch.setattr(f"petroscope.{room}.drawn", lambda figure: np.zeros((4, 4, 3), np.uint8))


@pytest.fixture
def in_threads():
    "Do the same in four threads at once; what any of them raises is raised."

    def run(work):
        with ThreadPoolExecutor(4) as threads:
            for done in [threads.submit(work) for _ in range(4)]:
                done.result()

    return run
