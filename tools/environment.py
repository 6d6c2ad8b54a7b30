"""Make the project's virtual environment, .venv, and install into it what a task needs.

    python3 tools/environment.py run         petroscope with PyTorch          (make demo)
    python3 tools/environment.py test        that, and the notebooks and developers' tools  (make test)
    python3 tools/environment.py docs        that, and the site builder       (make docs)
    python3 tools/environment.py dist        only what builds a wheel         (make dist)

    --python PYTHON    make it with this interpreter; packages that it has already, PyTorch first of all, are used

Versions come from constraints.txt. The environment is kept while the files that decide its content are unchanged, and
made anew when one of them changes. An environment that this script did not make is never touched.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "petroscope.json"
DECIDING = ("setup.py", "settings.ini", "pyproject.toml", "constraints.txt", "tools/environment.py")
# The pip that Python brings may be years old, and one that old gives up on the pins of this many packages.
BUILD = ["pip", "setuptools", "build"]
EXTRAS = {"run": "torch", "test": "torch,notebook,dev", "docs": "torch,notebook,dev,docs", "dist": None}
# Asked of the interpreter that --python names: where its packages lie, and which it has.
ASK = """
import importlib.metadata, json, sys
names = sorted({d.metadata["Name"] or "" for d in importlib.metadata.distributions()})
folders = [p for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
print(json.dumps({"version": sys.version.split()[0], "folders": folders, "names": names}))
"""


def log(text: str) -> None:
    print(f"petroscope: {text}", flush=True)


def fail(text: str) -> NoReturn:
    sys.exit(f"petroscope: {text}")


def normal(name: str) -> str:
    "A package's name as indexes compare it."
    return re.sub(r"[-_.]+", "-", name).lower()


def venv_python() -> Path:
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint() -> str:
    "Changes when a file that decides what is installed changes."
    digest = hashlib.sha256()
    for name in DECIDING:
        digest.update((ROOT / name).read_bytes() + b"\0")
    return digest.hexdigest()


def read_stamp() -> dict:
    "What .venv is; {} where there is none."
    if not VENV.exists():
        return {}
    try:
        return json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        fail(f"{VENV} exists and was not made by this project's make. Move it away or remove it, then try again.")


def write_stamp(stamp: dict) -> None:
    STAMP.write_text(json.dumps(stamp, indent=1), encoding="utf-8")


def run(command: list, what: str) -> None:
    if subprocess.run([str(part) for part in command], cwd=ROOT).returncode:
        fail(f"{what} failed; the lines above say why. Nothing outside {VENV} was changed.")


def create(python: str, borrow: bool) -> dict:
    "A new .venv; with `borrow` it sees the packages of `python`, wherever those lie."
    try:
        answer = subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        fail(f"{python} is not a Python that runs here: {error}")
    base = json.loads(answer.stdout)
    log(f"making .venv with {python} (Python {base['version']})")
    run([python, "-m", "venv", "--clear", VENV], "making the environment")
    borrowed = sorted(map(normal, base["names"])) if borrow and "torch" in map(normal, base["names"]) else []
    if borrowed:
        # --system-site-packages would skip `python` where that is a virtual environment itself; a path file does not.
        where = subprocess.check_output(
            [venv_python(), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        )
        Path(where.strip(), "borrowed.pth").write_text("\n".join(base["folders"]) + "\n", encoding="utf-8")
        log("PyTorch is installed there already and is used; so is what else it has in a fitting version")
    stamp = {"python": python, "borrow": borrow, "borrowed": borrowed, "fingerprint": fingerprint(), "tasks": []}
    write_stamp(stamp)
    return stamp


def constraints(borrowed: list) -> Path:
    "constraints.txt without the pins of what is borrowed: an installed version in range is used as it is."
    kept = []
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if normal(line.split("==")[0]) not in borrowed:
            kept.append(line)
    path = VENV / "constraints.txt"
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return path


def install(task: str, stamp: dict) -> None:
    pip = [venv_python(), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    pip += ["--constraint", constraints(stamp["borrowed"])]
    extras = EXTRAS[task]
    log("installing " + ("what builds a wheel" if extras is None else f"petroscope[{extras}]") + " into .venv")
    run([*pip, *BUILD], "installing the build tools")
    if extras is not None:
        # Editable: a changed module counts at once. Without isolation: the build tools above are pinned ones.
        run([*pip, "--no-build-isolation", "--editable", f".[{extras}]"], "installing petroscope")


def needs(task: str) -> set:
    "The extras of a task, petroscope itself among them."
    extras = EXTRAS[task]
    return set() if extras is None else {"petroscope", *extras.split(",")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=EXTRAS)
    parser.add_argument("--python", help="the interpreter to make it with (default: that of .venv, else this one)")
    args = parser.parse_args()
    stamp = read_stamp()
    named = args.python and os.path.abspath(shutil.which(args.python) or args.python)
    python = named or stamp.get("python") or sys.executable
    borrow = bool(args.python) or stamp.get("borrow", False)
    if stamp.get("fingerprint") != fingerprint() or (python, borrow) != (stamp["python"], stamp["borrow"]):
        stamp = create(python, borrow)
    # What a larger task installed serves the smaller ones.
    done = {small for large in stamp["tasks"] for small in EXTRAS if needs(small) <= needs(large)}
    if args.task not in done:
        install(args.task, stamp)
        stamp["tasks"].append(args.task)
        write_stamp(stamp)


if __name__ == "__main__":
    main()
