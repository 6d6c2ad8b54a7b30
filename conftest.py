"""Collect every notebook below nbs/ as one test.

nbdev's own runner executes it: cells marked `#| eval: false` or with one of `tst_flags` of settings.ini are left out.
A notebook that leaves files beside itself fails too. What it made is let go of before the next one begins: IPython
keeps every shell, and with it every variable of every notebook, until the process ends. Tutorials run in a kernel of
their own that has only what their install line brings (tests/tutorials.py).
"""

import atexit
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent
NOTEBOOKS = ROOT / "nbs"

os.environ.setdefault("MPLBACKEND", "agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the processor already; threads of each would wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    below = file_path.relative_to(NOTEBOOKS).parts if NOTEBOOKS in file_path.parents else ()
    if file_path.suffix != ".ipynb" or not below or any(part.startswith((".", "_")) for part in below):
        return None
    return Notebook.from_parent(parent, path=file_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    "Begin with the tutorials: they take longest, and one that begins last would leave the other workers idle."
    items.sort(key=lambda item: item.path.parent != NOTEBOOKS / "tutorials")


class NotebookFailed(Exception):
    "A cell of a notebook raised."


class Notebook(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        yield NotebookTest.from_parent(self, name="runs")


class NotebookTest(pytest.Item):
    def runtest(self) -> None:
        before = listing(self.path.parent)
        if not (as_a_reader if self.path.parent == NOTEBOOKS / "tutorials" else passes)(self.path):
            raise NotebookFailed(f"{self.path.relative_to(ROOT)}: a cell failed, see the captured output")
        left = sorted(listing(self.path.parent) - before)
        if left:
            raise NotebookFailed(f"{self.path.relative_to(ROOT)} left files behind: {', '.join(left)}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo, style: str | None = None) -> str:
        if isinstance(excinfo.value, NotebookFailed):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"notebook {self.path.relative_to(NOTEBOOKS)}"


def as_a_reader(path: Path) -> bool:
    "Run a tutorial in a kernel that has what `petroscope[torch,notebook]` brings and no more."
    return subprocess.run([sys.executable, ROOT / "tests" / "tutorials.py", path]).returncode == 0


def passes(path: Path) -> bool:
    "Run a notebook in a shell of its own, and let go of all that it made."
    # Imported here: the tests of tests/ must run where nbdev is absent.
    from nbdev.config import get_config
    from nbdev.test import test_nb

    try:
        passed, _ = test_nb(path, skip_flags=get_config(path=ROOT).tst_flags.split(), basepath=ROOT)
    finally:
        release()
    return passed


def release() -> None:
    "Let go of the shell that ran last, of its variables and widgets; figures are closed after each cell."
    from IPython.core.interactiveshell import InteractiveShell
    from matplotlib_inline.config import InlineBackend

    if "ipywidgets" in sys.modules:
        sys.modules["ipywidgets"].Widget.close_all()
    if InteractiveShell.initialized():
        retire(InteractiveShell.instance())
        InteractiveShell.clear_instance()
    InlineBackend.clear_instance()
    # What a failing cell raised holds the variables of every frame that it passed.
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        vars(sys).pop(name, None)
    gc.collect()


def retire(shell: Any) -> None:
    "Do now what IPython has put off to the end of the process."
    atexit.unregister(shell.atexit_operations)
    # Empties its variables too, for other libraries may still hold the shell itself.
    shell.atexit_operations()
    shell.cleanup()


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name not in ("__pycache__", ".ipynb_checkpoints")}
