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
# Bottom to top: a module imports from lower layers and from its own, and nothing in a circle.
LAYERS = (
    ("io",),
    ("view", "synth"),
    ("optics",),
    ("segmentation", "panorama"),
    ("analysis",),
    ("notebook", "api"),
    ("cli",),
)
LEVEL = {folder: level for level, folders in enumerate(LAYERS) for folder in folders}
WITH_TORCH = {
    f"petroscope.segmentation.{room}"
    for room in (
        "crossval",
        "decoders",
        "distributed",
        "efficientunet",
        "encoders",
        "losses",
        "net",
        "networks",
        "resunet",
        "screening",
        "torch_model",
        "train",
        "training.dataset",
        "training.patches",
        "training.run",
        "weights",
    )
}
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


ROOMS = {exported_module(p): p for p in NOTEBOOKS if exported_module(p)}
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
    # `from petroscope.io import images` names a module, `from petroscope.io.images import read_image` a function.
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


def folder_of(module):
    return module.split(".")[1]


def test_there_are_rooms():
    assert MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_notebook_lies_where_its_module_lies(module):
    _, *folders, name = module.split(".")
    assert ROOMS[module].parent == NBS.joinpath(*folders) and re.fullmatch(rf"\d\d_{name}\.ipynb", ROOMS[module].name)


@pytest.mark.parametrize("folder", sorted({path.parent for path in ROOMS.values()}), ids=lambda p: p.name)
def test_numbers_give_one_reading_order(folder):
    numbers = [path.name[:2] for path in ROOMS.values() if path.parent == folder]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("module", MODULES)
def test_room_imports_from_its_layer_and_lower_ones(module):
    own = LEVEL[folder_of(module)]
    assert [m for m in imports(module) if m in ROOMS and LEVEL[folder_of(m)] > own] == []
    beside = [m for m in imports(module) if m in ROOMS and LEVEL[folder_of(m)] == own]
    assert {folder_of(m) for m in beside} <= {folder_of(module)}


def test_there_is_no_circle():
    below = {module: {m for m in imports(module, at_import=True) if m in ROOMS} for module in MODULES}
    while free := [module for module, needs in below.items() if not needs & below.keys()]:
        for module in free:
            del below[module]
    assert not below, f"these import each other in a circle, or from one: {sorted(below)}"


@pytest.mark.parametrize("module", MODULES)
def test_torch_is_imported_only_where_it_may_be(module):
    eager = top_level(imports(module, at_import=True)) & {"torch", "safetensors"}
    assert not eager or module in WITH_TORCH, f"{module} imports {eager} as it is loaded"


@pytest.mark.parametrize("module", MODULES)
def test_tools_are_no_requirements(module):
    assert not top_level(imports(module)) & {"fastcore", "nbdev", "execnb", "IPython", "pytest", "torchvision"}


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


def test_the_last_cell_exports(notebook):
    if exported_module(notebook):
        last = cells(notebook)[-1]
        assert last["cell_type"] == "code" and re.match(r"#\|\s*hide\b", source(last))
        assert "nbdev_export()" in source(last)


def test_notebook_is_committed_without_outputs(notebook):
    code = [cell for cell in cells(notebook) if cell["cell_type"] == "code"]
    assert not [c for c in code if c["outputs"] or c["execution_count"] is not None]


OF = re.compile(r"""(?:# |["']|[.!?:] |^|^[*])Of """, re.MULTILINE)


def test_no_sentence_begins_with_of(notebook):
    "A comment or a sentence that begins with Of says its subject last: `seed: int  # Seed of the draws`."
    found = [source(cell)[m.start() :][:60] for cell in cells(notebook) for m in OF.finditer(source(cell))]
    assert not found


def test_functions_are_short(notebook):
    for cell in cells(notebook):
        text = source(cell)
        if cell["cell_type"] == "code" and re.match(r"#\|\s*export", text):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = node.end_lineno - node.body[0].lineno + 1
                    assert lines <= 40, f"{node.name} has {lines} lines, at most 40 are allowed"


# What is over a limit today, and so may get smaller but not larger: lines of a module, lines of the export cell that
# defines a name first, and private names that other modules use. `python tests/test_house.py --shrink` strikes what is
# within its limit by now, and takes down what got smaller.
LISTED = ROOT / "tests" / "exceptions.json"
MOST = {"module lines": 500, "cell lines": 60, "uses of private names": 0}


def export_cells():
    "The sources of all exported cells, by the name that they define first."
    for notebook in NOTEBOOKS:
        for text in map(source, cells(notebook)):
            if re.match(r"#\|\s*export", text):
                first = re.search(r"^(?:(?:async )?def |class )?(\w+)(?=\(| ?[:=])", text, re.M)
                yield first[1] if first else f"imports of {exported_module(notebook)}", text


def private_names(module):
    "The private names of other modules of ours that a module uses."
    nodes = list(ast.walk(ast.parse(module_path(module).read_text(encoding="utf-8"))))
    ours = [n for n in nodes if isinstance(n, ast.ImportFrom) and absolute(module, n)[0].startswith("petroscope")]
    names = {alias.name for node in ours for alias in node.names}
    reached = [n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)]
    names |= {node.attr for node in reached if node.value.id in names}
    return [name for name in names if re.match(r"_(?!_|fields$|replace$|asdict$|make$)", name)]


def sizes(what):
    "Sizes by name of what has a limit."
    found = {}
    if what == "module lines":
        return {m: len(module_path(m).read_text(encoding="utf-8").splitlines()) for m in MODULES}
    if what == "cell lines":
        for name, text in export_cells():
            found[name] = max(found.get(name, 0), len(text.splitlines()))
    else:
        for name in (name for module in MODULES for name in private_names(module)):
            found[name] = found.get(name, 0) + 1
    return found


def over_limit(found, most, listed):
    "What is wrong with these sizes by name: new ones over the limit, listed ones that grew or need be listed no more."
    faults = [f"{name}: {n}, at most {most}" for name, n in found.items() if n > most and name not in listed]
    faults += [f"{name}: {found[name]}, was {was} already" for name, was in listed.items() if found.get(name, 0) > was]
    done = [name for name in listed if found.get(name, 0) <= most]
    return faults + [f"{name}: {found.get(name, 0)}, within the limit of {most}: strike it (--shrink)" for name in done]


@pytest.mark.parametrize("what", MOST)
def test_nothing_new_is_over_its_limit(what):
    listed = json.loads(LISTED.read_text(encoding="utf-8"))[what]
    faults = over_limit(sizes(what), MOST[what], listed)
    assert not faults, "\n".join([f"{what} that are over the limit, or in {LISTED.name} for nothing:", *faults])


def shrink():
    "Strike what is within its limit by now, and take down what got smaller."
    listed = json.loads(LISTED.read_text(encoding="utf-8"))
    for what, most in MOST.items():
        now = sizes(what)
        listed[what] = {k: min(n, now[k]) for k, n in sorted(listed[what].items()) if now.get(k, 0) > most}
    LISTED.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def test_limits_find_what_is_over_them():
    assert over_limit({"a": 9, "b": 3}, 5, {"a": 9}) == []
    assert over_limit({"a": 9, "b": 6}, 5, {"a": 8}) == ["b: 6, at most 5", "a: 9, was 8 already"]
    assert "strike" in over_limit({"a": 5}, 5, {"a": 8})[0] and "strike" in over_limit({}, 5, {"a": 8})[0]


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


if __name__ == "__main__" and sys.argv[1:] == ["--shrink"]:
    shrink()
