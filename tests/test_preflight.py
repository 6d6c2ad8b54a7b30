"The check before an installation: each thing that a machine may lack, and what it is told."

import ast
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "preflight.py"


@pytest.fixture
def preflight():
    spec = importlib.util.spec_from_file_location("preflight", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without(load, error, *names):
    "A loader that fails as on a machine where `names` are absent."

    def loader(name):
        if name in names:
            raise error(name)
        return load(name)

    return loader


def test_an_old_python_can_read_the_script():
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 9, 18)])
def test_old_python(preflight, version):
    message = preflight.too_old(version)
    assert f"this is Python 3.{version[1]}" in message
    assert "3.10 or newer" in message and "PYTHON=" in message


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 13, 1), (4, 0, 0)])
def test_new_python(preflight, version):
    assert preflight.too_old(version) is None


@pytest.mark.parametrize("name", ["venv", "ensurepip"])
def test_no_virtual_environments(preflight, name):
    message = preflight.no_environments(without(importlib.import_module, ImportError, name))
    assert name in message and "apt install python3-venv" in message


@pytest.mark.parametrize("name", ["libGL.so.1", "libgthread-2.0.so.0", "libglib-2.0.so.0"])
def test_no_graphics_library(preflight, name):
    message = preflight.no_graphics("linux", without(str, OSError, name))
    assert f"lacks: {name}." in message and "apt install libgl1 libglib2.0-0" in message


def test_graphics_libraries_are_a_matter_of_linux(preflight):
    everything = without(str, OSError, *preflight.GRAPHICS)
    assert preflight.no_graphics("darwin", everything) is None
    assert preflight.no_graphics("win32", everything) is None
    assert ", ".join(preflight.GRAPHICS) in preflight.no_graphics("linux", everything)


def test_problems_are_printed_together_and_fail(preflight, monkeypatch, capsys):
    monkeypatch.setattr(preflight, "too_old", lambda: None)
    monkeypatch.setattr(preflight, "no_environments", lambda: "no venv")
    monkeypatch.setattr(preflight, "no_graphics", lambda: "no libGL")
    assert preflight.main() == 1
    assert capsys.readouterr().err == "petroscope: no venv\npetroscope: no libGL\n"


def test_an_old_python_hears_of_nothing_else(preflight, monkeypatch):
    monkeypatch.setattr(preflight, "too_old", lambda: "too old")
    monkeypatch.setattr(preflight, "no_graphics", lambda: "no libGL")
    assert preflight.problems() == ["too old"]


def test_the_script_says_what_the_functions_say(preflight):
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True)
    expected = "".join(f"petroscope: {text}\n" for text in preflight.problems())
    assert (done.returncode, done.stdout, done.stderr) == (int(bool(expected)), "", expected)
