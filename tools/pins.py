"""Write constraints.txt: one exact version of every package that the project's own environment installs.

    python tools/pins.py --hold torch==2.13.0 python3.10 python3.11 python3.12 python3.13

Each interpreter named is asked, through pip's dry run, what the requirements in settings.ini resolve to there.
Nothing is installed. Where the answers differ, the pin carries an environment marker. Name early patch releases, as
3.11.2: some packages refuse them, and what they take serves the later ones too.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# PyTorch's own exact requirements choose its CUDA packages; a CPU build has none of them.
LEFT_TO_TORCH = ("nvidia-", "cuda-", "triton")
HEADER = """\
# Exact versions for the project's own environment (make demo, make test) and for anyone who wants the same:
#     pip install -c constraints.txt '.[torch]'
# Written by tools/pins.py from the ranges in settings.ini, for Python {versions}.
"""


def requirements() -> list[str]:
    "Every requirement of settings.ini, those of the extras included."
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return [name for key, value in config["DEFAULT"].items() if key.endswith("requirements") for name in value.split()]


def resolve(python: str, wanted: list[str]) -> tuple[tuple[int, int], dict[str, str]]:
    "Ask pip what `wanted` becomes on the interpreter `python`: its version, and name -> version."
    version = subprocess.check_output([python, "-c", "import sys; print(*sys.version_info[:2])"], text=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--dry-run"]
        subprocess.run([*command, "--ignore-installed", "--report", str(report), *wanted], check=True)
        found = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    pins = {re.sub(r"[-_.]+", "-", item["name"]).lower(): item["version"].split("+")[0] for item in found}
    major, minor = version.split()
    return (int(major), int(minor)), pins


def lines(name: str, versions: dict[tuple[int, int], str], pythons: list[tuple[int, int]]) -> list[str]:
    "The pins of one package: one line where all Pythons agree, else one a run of Pythons, with its marker."
    if len(set(versions.values())) == 1:
        return [f"{name}=={next(iter(versions.values()))}"]
    runs: list[list[tuple[int, int]]] = []
    for python in sorted(versions):
        if runs and versions[runs[-1][-1]] == versions[python]:
            runs[-1].append(python)
        else:
            runs.append([python])
    result = []
    for run in runs:
        low, high = ("{}.{}".format(*python) for python in (run[0], run[-1]))
        # The first and the last run are open, so that a Python newer than all of these gets the newest pins.
        limits = [f'python_version >= "{low}"'] if run[0] != pythons[0] else []
        limits += [f'python_version <= "{high}"'] if run[-1] != pythons[-1] else []
        marker = f'python_version == "{low}"' if low == high and len(limits) == 2 else " and ".join(limits)
        result.append(f"{name}=={versions[run[0]]} ; {marker}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="+", metavar="PYTHON", help="interpreters to resolve for")
    parser.add_argument("--hold", action="append", default=[], metavar="NAME==VERSION", help="keep this version")
    args = parser.parse_args()
    wanted = requirements() + args.hold
    with ThreadPoolExecutor(2) as pool:
        answers = dict(pool.map(lambda python: resolve(python, wanted), args.pythons))
    pythons = sorted(answers)
    names = sorted({name for pins in answers.values() for name in pins if not name.startswith(LEFT_TO_TORCH)})
    pins = [
        line
        for name in names
        for line in lines(name, {p: answers[p][name] for p in pythons if name in answers[p]}, pythons)
    ]
    header = HEADER.format(versions=", ".join("{}.{}".format(*python) for python in pythons))
    (ROOT / "constraints.txt").write_text(header + "\n".join(pins) + "\n", encoding="utf-8")
    print(f"constraints.txt: {len(names)} packages for {len(pythons)} versions of Python")


if __name__ == "__main__":
    main()
