"What is released: a wheel and an sdist with the weights inside, which work where nothing else of the project is."

import ast
import json
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = "petroscope/weights/s1v1.safetensors"
LARGEST = 25_000_000
TREE = ("setup.py", "settings.ini", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")
TREE += ("CONTRIBUTING.md", "Makefile", "constraints.txt", "conftest.py")
# Modules whose name is not that of what brings them, and those that the extras bring.
BROUGHT_BY = {"cv2": "opencv-python", "PIL": "pillow", "IPython": "ipywidgets"}
OPTIONAL = {"torch", "safetensors", "anywidget", "ipywidgets", "traitlets", "pyarrow", "tensorboard"}
FOLDERS = ("petroscope", "nbs", "tests", "tools", "bench", "docs")

pytest.importorskip("build", reason="the package build is not installed")
pytest.importorskip("setuptools", minversion="77", reason="setuptools is not installed")


def imported_modules():
    "The top-level names that the package's modules import, anywhere but for types only."
    trees = [ast.parse(path.read_text("utf-8")) for path in (ROOT / "petroscope").rglob("*.py")]
    blocks = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.If)]
    for block in blocks:
        if "TYPE_CHECKING" in ast.unparse(block.test):
            block.body = [ast.Pass()]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.split(".")[0] for name in names}


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    "The folder with wheel and sdist, built from a copy so that no build folder is left in the tree."
    tree = tmp_path_factory.mktemp("tree")
    for name in TREE:
        shutil.copy(ROOT / name, tree)
    for name in FOLDERS:
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    # As `make dist` does: the sdist from the tree, the wheel from the sdist.
    run(sys.executable, "-m", "build", "--no-isolation", tree)
    return tree / "dist"


@pytest.fixture(scope="session")
def wheel(dist):
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="session")
def sdist(dist):
    return next(dist.glob("*.tar.gz"))


def test_both_are_small(wheel, sdist):
    assert wheel.stat().st_size <= LARGEST
    assert sdist.stat().st_size <= LARGEST


def test_wheel_holds_the_package_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"petroscope"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "petroscope").rglob("*.py")}
    assert modules <= set(names)
    assert {"petroscope/py.typed", "petroscope/notebook/viewer.js", "petroscope/notebook/viewer.css"} <= set(names)
    assert any(name.endswith("LICENSE") for name in names)


def test_sdist_holds_what_building_needs(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {*TREE, "nbs/index.ipynb", "tools/environment.py", "tests/test_wheel.py"} <= names


def test_weights_are_inside(wheel, sdist):
    if not (ROOT / WEIGHTS).exists():
        pytest.skip("there are no weights in this tree yet")
    assert {WEIGHTS, WEIGHTS.replace(".safetensors", ".md")} <= set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        assert WEIGHTS in {name.partition("/")[2] for name in archive.getnames()}


def test_links_of_the_description_are_addresses(wheel):
    "README.md is shown by package indexes, where a relative link leads nowhere."
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(next(n for n in archive.namelist() if n.endswith("/METADATA"))).decode("utf-8")
    targets = [part.split(")")[0] for part in text.split("](")[1:]]
    assert targets and all(target.startswith(("https://", "#")) for target in targets)


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """The bin folder of an environment that holds the wheel, and sees this one's packages but not its petroscope.

    The requirements are large and are here already. A path file adds their folders behind the environment's own, and
    the path files in those folders, an editable petroscope among them, are not read. Not editable, out of the tree.
    """
    place = tmp_path_factory.mktemp("empty")
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    folders = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "requirements.pth").write_text("\n".join(folders) + "\n", encoding="utf-8")
    found = run(python, "-c", "import petroscope; print(petroscope.__file__)", cwd=place).strip()
    assert Path(found).is_relative_to(site), f"petroscope was imported from {found}"
    return place / "bin"


@pytest.mark.skipif(sys.platform == "win32", reason="the environment's programs lie elsewhere on Windows")
class TestInstalled:
    def test_version(self, installed, wheel):
        code = (
            "import petroscope; from importlib.metadata import version; "
            "print(petroscope.__version__, version('petroscope'))"
        )
        one, two = run(installed / "python", "-c", code, cwd=installed).split()
        assert one == two == wheel.name.split("-")[1]

    def test_requirements_are_declared(self, installed):
        "What the modules import from outside is required by the wheel, or by an extra."
        code = "import json; from importlib.metadata import requires; print(json.dumps(requires('petroscope')))"
        declared = json.loads(run(installed / "python", "-c", code, cwd=installed))
        names = {re.split(r"[^\w-]", text)[0]: "extra ==" in text for text in reversed(declared)}
        outside = imported_modules() - set(sys.stdlib_module_names) - {"petroscope"}
        outside = {BROUGHT_BY.get(name, name) for name in outside} - {"pandas"}  # used where it is, never asked for
        assert outside <= set(names)
        assert {name for name in outside if names[name]} <= OPTIONAL

    def test_segments_a_photo(self, installed, tmp_path):
        if not (ROOT / WEIGHTS).exists() or not (ROOT / "petroscope" / "cli").exists():
            pytest.skip("the command line or the weights are not in this tree yet")
        pytest.importorskip("torch", reason="PyTorch is not installed")
        paint = (
            "import petroscope as ps; scene = ps.synth.scene(shape=(300, 401), seed=3); "
            "ps.io.write_image('photo.jpg', scene.image)"
        )
        run(installed / "python", "-c", paint, cwd=tmp_path)
        run(installed / "petroscope", "segment", "photo.jpg", "--out", "out", "--scale", "0.5", cwd=tmp_path)
        made = {path.name for path in (tmp_path / "out").iterdir()}
        assert {"photo_mask.png", "photo_overlay.jpg", "photo_minerals.csv"} <= made
        look = "import petroscope as ps; print(ps.read_mask('out/photo_mask.png').shape)"
        assert run(installed / "python", "-c", look, cwd=tmp_path).strip() == "(300, 401)"
