"Tutorials meet no package but those that their install line brings."

import pytest

nbformat = pytest.importorskip("nbformat", reason="JupyterLab is not installed")
pytest.importorskip("nbdev", reason="nbdev is not installed")

from nbclient.exceptions import CellExecutionError  # noqa: E402
from tutorials import closure, foreign, run  # noqa: E402

INSIDE = {"numpy", "cv2", "torch", "safetensors", "jupyterlab", "anywidget", "IPython", "nbclient", "matplotlib_inline"}
OUTSIDE = {"fastcore", "nbdev", "execnb", "sklearn", "skimage", "shapely", "hypothesis", "pytest", "pyarrow"}


def write(path, *cells):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells]), path)
    return path


def test_what_the_extras_bring():
    blocked = set(foreign())
    assert not INSIDE & blocked
    assert OUTSIDE <= blocked


def test_requirements_are_followed_to_the_end():
    assert {"jupyterlab", "jupyter-server", "traitlets"} <= closure(["jupyterlab>=4"])
    assert "traitlets" not in closure(["numpy>=1.24"])
    assert closure(["nbdev"]) >= {"nbdev", "fastcore", "execnb"}


def test_a_foreign_import_fails_and_one_that_is_asked_for_politely_is_absent(tmp_path):
    polite = "from importlib.util import find_spec\nassert find_spec('fastcore') is None and find_spec('numpy')"
    run(write(tmp_path / "polite.ipynb", polite, "import torch, petroscope"))
    with pytest.raises(CellExecutionError, match="No module named 'fastcore'"):
        run(write(tmp_path / "foreign.ipynb", "from fastcore.test import test_eq"))


def test_a_change_must_fit_one_cell(tmp_path):
    path = write(tmp_path / "a.ipynb", "x = 1", "y = 1", "assert x + y == 3")
    assert run(path, {"x = 1": "x = 2"}).cells[-1].cell_type == "code"
    with pytest.raises(ValueError, match="expected one cell with ' = 1', found 2"):
        run(path, {" = 1": " = 2"})
