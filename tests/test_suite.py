"The suite itself: what one notebook made is gone when the next one begins."

import gc
import importlib.util
import json
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("nbdev", reason="nbdev is not installed")

ROOT = Path(__file__).resolve().parent.parent
CELLS = [
    "import ipywidgets, matplotlib.pyplot as plt, numpy as np, threading, sys",
    "class Specimen:\n    def __init__(self): self.photo = np.zeros(1_000_000, np.uint8)",
    "kept = Specimen()\nkept",  # also in the list of outputs
    "figure, axis = plt.subplots()\nfigure.specimen = Specimen()",
    "button = ipywidgets.Button()\nbutton.on_click(lambda _, held=Specimen(): held)",
    "cycle = Specimen()\ncycle.itself = cycle",
]
FAILS = "def broken():\n    local = Specimen()\n    raise ValueError('a cell that fails')\nbroken()"


@pytest.fixture(scope="module")
def runner():
    "The module that collects notebooks; as a plugin of pytest it has no name to import it by."
    spec = importlib.util.spec_from_file_location("notebook_runner", ROOT / "conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path, cells):
    code = [{"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": c} for c in cells]
    path.write_text(json.dumps({"cells": code, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.mark.parametrize("cells, passes", [(CELLS, True), ([*CELLS, FAILS], False)], ids=["passes", "fails"])
def test_nothing_of_a_notebook_is_left(runner, tmp_path, capsys, cells, passes):
    main, hook, threads = sys.modules["__main__"], sys.displayhook, threading.active_count()
    assert runner.passes(write(tmp_path / "one.ipynb", cells)) is passes
    assert (sys.modules["__main__"], sys.displayhook, threading.active_count()) == (main, hook, threads)
    # A shell that waits for the end of the process, to clean up then, would be among these.
    left = [type(thing).__name__ for thing in gc.get_objects() if type(thing).__name__ in ("Specimen", "CaptureShell")]
    assert left == []
