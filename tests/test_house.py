"The rules of the house: what a room may import, and how a notebook is laid out."

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "petroscope"
NBS = ROOT / "nbs"
WITH_TORCH = {f"petroscope.segmentation.{room}" for room in ("crossval", "distributed", "losses", "resunet", "train")}
NOTEBOOKS = [p for p in sorted(NBS.rglob("*.ipynb")) if not any(part.startswith((".", "_")) for part in p.parts)]


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def exported_module(path):
    "The module that a notebook exports, as a dotted name, or None."
    for cell in cells(path):
        found = re.match(r"#\|\s*default_exp\s+([\w.]+)", source(cell)) if cell["cell_type"] == "code" else None
        if found:
            return "petroscope." + found[1]
    return None


def number(path):
    "The rooms 17, 17a and 18 are `(17, '')`, `(17, 'a')` and `(18, '')`."
    digits, letter = re.match(r"(\d+)([a-z]?)_", path.name).groups()
    return int(digits), letter


# dotted module -> its room's number; the order of the rooms is that of their numbers.
ROOMS = {exported_module(p): number(p) for p in NOTEBOOKS if exported_module(p)}
MODULES = sorted(ROOMS)


def module_path(module):
    return ROOT / (module.replace(".", "/") + ".py")


def absolute(module, node):
    "The modules that an import statement in `module` may mean, as dotted names."
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        base = ".".join([*module.split(".")[: -node.level], *filter(None, [base])])
    # `from petroscope import images` names a module where `from petroscope.images import read_image` names a function.
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]


def imports(module, at_import=False):
    "What `module` imports; with `at_import`, leaving out what only a called function imports."
    found = []

    def visit(node, inside):
        if isinstance(node, ast.Import | ast.ImportFrom) and not (at_import and inside):
            found.extend(absolute(module, node))
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or for_types_only(node)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(module_path(module).read_text(encoding="utf-8")), False)
    return found


def for_types_only(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def top_level(names):
    return {name.split(".")[0] for name in names}


def test_there_are_rooms():
    assert len(MODULES) == len(set(ROOMS.values())) > 0, "two rooms of one number, or none at all"


@pytest.mark.parametrize("module", MODULES)
def test_room_imports_only_from_lower_numbers(module):
    higher = [m for m in imports(module) if m in ROOMS and ROOMS[m] >= ROOMS[module]]
    # GeoSegmModel.fit and .load hand over to later rooms when they are called, and name them only there.
    late = {"petroscope.segmentation.model": WITH_TORCH, "petroscope.segmentation.resunet": WITH_TORCH}
    eager = [m for m in imports(module, at_import=True) if m in ROOMS and ROOMS[m] >= ROOMS[module]]
    assert not eager and set(higher) <= late.get(module, set()), f"{module} imports from higher rooms: {higher}"


@pytest.mark.parametrize("module", MODULES)
def test_torch_is_imported_only_where_it_may_be(module):
    eager = top_level(imports(module, at_import=True)) & {"torch", "safetensors"}
    assert not eager or module in WITH_TORCH, f"{module} imports {eager} as it is loaded"


@pytest.mark.parametrize("module", MODULES)
def test_tools_are_no_requirements(module):
    assert not top_level(imports(module)) & {"fastcore", "nbdev", "execnb", "IPython", "pytest", "torchvision"}


@pytest.mark.parametrize("module", MODULES)
def test_panorama_and_segmentation_do_not_know_each_other(module):
    apart = {"segmentation": "petroscope.panorama", "panorama": "petroscope.segmentation"}
    other = apart.get(module.split(".")[1], "nothing")
    assert not [m for m in imports(module) if m == other or m.startswith(other + ".")]


@pytest.mark.parametrize("module", MODULES)
def test_no_star_imports(module):
    assert "import *" not in module_path(module).read_text(encoding="utf-8")


# Refuses the named packages as a machine without them would, then loads the module and tells what came along.
LOAD = """
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[2].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
importlib.import_module(sys.argv[1])
print(",".join(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "matplotlib", "safetensors"})))
"""


def load(module, *absent):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, module, ",".join(absent)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return set(filter(None, done.stdout.strip().split(",")))


def test_the_package_itself_loads_neither_torch_nor_matplotlib():
    assert load("petroscope") == set()


def test_the_package_itself_loads_without_anything():
    assert load("petroscope", "numpy", "cv2", "PIL", "tqdm", "torch", "safetensors", "matplotlib") == set()


@pytest.mark.parametrize("module", [m for m in MODULES if m not in WITH_TORCH])
def test_module_works_where_torch_is_absent(module):
    assert load(module, "torch", "safetensors") <= {"matplotlib"}


@pytest.mark.parametrize("module", [m for m in MODULES if m not in WITH_TORCH])
def test_module_loads_neither_torch_nor_matplotlib(module):
    assert load(module) == set()


@pytest.mark.parametrize("module", sorted(WITH_TORCH & set(MODULES)))
def test_missing_torch_is_said_plainly(module):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, module, "torch,safetensors"], capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        assert "petroscope[torch]" in done.stderr.strip().splitlines()[-1]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.relative_to(NBS).with_suffix("").as_posix())
def notebook(request):
    return request.param


def test_first_cell_is_title_and_promise_alone(notebook):
    first = cells(notebook)[0]
    assert first["cell_type"] == "markdown"
    assert re.fullmatch(r"# \S.*\n\n> \S.*\n?", source(first)), "expected `# Title`, an empty line, `> one line`"


def test_a_notebook_is_short(notebook):
    assert len(cells(notebook)) < 60


def test_the_last_cell_exports(notebook):
    if exported_module(notebook):
        last = cells(notebook)[-1]
        assert last["cell_type"] == "code" and re.match(r"#\|\s*hide\b", source(last))
        assert "nbdev_export()" in source(last)


def test_notebook_is_committed_without_outputs(notebook):
    code = [cell for cell in cells(notebook) if cell["cell_type"] == "code"]
    assert not [c for c in code if c["outputs"] or c["execution_count"] is not None]


def test_functions_are_short(notebook):
    for cell in cells(notebook):
        text = source(cell)
        if cell["cell_type"] == "code" and re.match(r"#\|\s*export", text):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = node.end_lineno - node.body[0].lineno + 1
                    assert lines <= 40, f"{node.name} has {lines} lines, at most 40 are allowed"


def texts():
    "Every text file of the project that could be committed."
    folders = ("nbs", "petroscope", "tests", "tools", "bench", "docs", ".ci", ".github")
    found = [p for name in folders for p in sorted((ROOT / name).rglob("*")) if p.is_file()]
    found += [p for p in sorted(ROOT.iterdir()) if p.is_file()]
    kinds = {".py", ".ipynb", ".md", ".txt", ".ini", ".toml", ".yml", ".in", ".css", ".json", ""}
    return [p for p in found if p.suffix in kinds and not {"__pycache__", "_build"} & set(p.parts)]


def test_nothing_is_left_to_do():
    # Put together here, so that this file does not find itself.
    words = ("TO" + "DO", "FIX" + "ME", "X" * 3)
    mark = re.compile(rf"\b({'|'.join(words)})\b")
    assert [str(p) for p in texts() if mark.search(p.read_text(encoding="utf-8", errors="replace"))] == []


def test_no_registry_is_named():
    "Where packages come from is the choice of whoever installs."
    parts = ("pypi org", "pythonhosted org", "download pytorch org", "registry npmjs", "conda anaconda org")
    hosts = [part.replace(" ", ".") for part in parts]
    found = [(str(p), h) for p in texts() for h in hosts if h in p.read_text(encoding="utf-8", errors="replace")]
    assert found == []


def test_no_photos_in_the_tree():
    pictures = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
    folders = ("nbs", "petroscope", "tests", "tools", "bench", "docs")
    found = {p for name in folders for p in (ROOT / name).rglob("*") if p.suffix.lower() in pictures}
    # Drawn by tools/picture.py, from nothing that was photographed.
    assert found - {ROOT / "docs" / "_static" / "front.jpg"} == set()
