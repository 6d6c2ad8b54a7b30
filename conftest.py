"""Collect every notebook below nbs/ as one test.

nbdev's own runner executes it: cells marked `#| eval: false` or with one of `tst_flags` of settings.ini are left out.
A notebook that leaves files beside itself fails too.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
NOTEBOOKS = ROOT / "nbs"

os.environ.setdefault("MPLBACKEND", "agg")


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    below = file_path.relative_to(NOTEBOOKS).parts if NOTEBOOKS in file_path.parents else ()
    if file_path.suffix != ".ipynb" or not below or any(part.startswith((".", "_")) for part in below):
        return None
    return Notebook.from_parent(parent, path=file_path)


class NotebookFailed(Exception):
    "A cell of a notebook raised."


class Notebook(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        yield NotebookTest.from_parent(self, name="runs")


class NotebookTest(pytest.Item):
    def runtest(self) -> None:
        # Imported here: the tests of tests/ must run where nbdev is absent.
        from nbdev.config import get_config
        from nbdev.test import test_nb

        before = listing(self.path.parent)
        flags = get_config(path=ROOT).tst_flags.split()
        passed, _ = test_nb(self.path, skip_flags=flags, basepath=ROOT)
        if not passed:
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


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name not in ("__pycache__", ".ipynb_checkpoints")}
