"""Run a tutorial as its reader does: in a kernel of Jupyter, with no package but what its install line brings.

    python tests/tutorials.py nbs/tutorials/getting_started.ipynb

An environment of exactly `petroscope[torch,notebook]` takes minutes and gigabytes to make. This one has more packages
than that, so the kernel refuses to import those that the requirements of petroscope, followed through the metadata of
the installed packages, do not lead to. What such a package offers by other ways (a program, a plug-in) is not seen.
"""

import json
import re
import sys
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("torch", "notebook")
SKIP = re.compile(r"^#\|\s*(eval:\s*false|notest|slow|gpu)\s*$", re.MULTILINE)
# The first thing that the kernel runs. It forgets itself, so that the tutorial begins with no name.
GUARD = """
def _guard(root, foreign):
    import sys

    class Finder:
        "Finds what another one does, but for packages that are not to be there."

        def __init__(self, finder):
            self.finder = finder

        def __getattr__(self, name):
            return getattr(self.finder, name)

        def find_spec(self, name, path=None, target=None):
            return None if name.partition(".")[0] in foreign else self.finder.find_spec(name, path, target)

    sys.path.insert(0, root)
    sys.meta_path[:] = map(Finder, sys.meta_path)

_guard({root!r}, frozenset({foreign!r}))
del _guard
"""


def normal(name: str) -> str:
    "A package's name as indexes compare it."
    return re.sub(r"[-_.]+", "-", name).lower()


def roots() -> list[str]:
    "What settings.ini requires for the extras of the tutorials."
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    keys = ["requirements", *(f"{extra}_requirements" for extra in EXTRAS)]
    return [line for key in keys for line in config["DEFAULT"][key].split()]


def closure(wanted: list[str]) -> set[str]:
    "The packages that these requirements bring here, by their normal names."
    from packaging.requirements import Requirement

    todo, seen = [Requirement(line) for line in wanted], set()
    while todo:
        asked = todo.pop()
        for extra in ("", *asked.extras):
            if (normal(asked.name), extra) in seen:
                continue
            seen.add((normal(asked.name), extra))
            try:
                needed = [Requirement(line) for line in requires(asked.name) or ()]
            except PackageNotFoundError:  # a build of PyTorch without CUDA asks for what is not here
                continue
            todo += [r for r in needed if not r.marker or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def foreign() -> list[str]:
    "Top-level modules that are installed here and that the extras of the tutorials do not bring."
    brought = closure(roots()) | {"petroscope"}
    return sorted(
        module for module, owners in packages_distributions().items() if not brought & {normal(o) for o in owners}
    )


def run(path: Path, change: dict[str, str] | None = None, folder: Path | None = None) -> dict:
    "The notebook after it was run; `change` replaces lines of its code first, each of which must be there once."
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    for old, new in (change or {}).items():
        cells = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
        if len(cells) != 1:
            raise ValueError(f"{path.name}: expected one cell with {old!r}, found {len(cells)}")
        cells[0].source = cells[0].source.replace(old, new)
    notebook.cells = [c for c in notebook.cells if not (c.cell_type == "code" and SKIP.search(c.source))]
    guard = GUARD.format(root=str(ROOT), foreign=foreign())
    notebook.cells.insert(0, nbformat.v4.new_code_cell(guard))
    where = {"metadata": {"path": str(folder or path.parent)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    return notebook


if __name__ == "__main__":
    # In a folder of its own: others run beside it, and it shall leave nothing behind.
    with TemporaryDirectory() as folder:
        change = json.loads(sys.argv[2]) if len(sys.argv) > 2 else None
        done = run(Path(sys.argv[1]).resolve(), change, Path(folder))
        if left := sorted(path.name for path in Path(folder).iterdir()):
            sys.exit(f"{sys.argv[1]} left files behind: {', '.join(left)}")
    if len(sys.argv) > 3:
        import nbformat

        nbformat.write(done, sys.argv[3])
