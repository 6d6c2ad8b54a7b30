"""What this machine lacks for petroscope, in plain words.

    python3 tools/preflight.py

Prints nothing and exits with 0 where all is well. It uses the standard library alone, and no syntax newer than that of
Python 3.6, so that an old Python prints the message instead of a syntax error.
"""

from __future__ import print_function

import ctypes
import importlib
import sys

OLDEST = (3, 10)
# What opencv-python loads from the system; the wheel brings everything else along.
GRAPHICS = ("libGL.so.1", "libgthread-2.0.so.0", "libglib-2.0.so.0")


def too_old(version=sys.version_info):
    "A message where this Python is older than petroscope needs, else None."
    if tuple(version[:2]) >= OLDEST:
        return None
    return (
        "petroscope needs Python {0}.{1} or newer, and this is Python {2}.{3} ({4}).\n"
        "    Install a newer one and name it, for example:  make demo PYTHON=python3.12"
    ).format(OLDEST[0], OLDEST[1], version[0], version[1], sys.executable)


def no_environments(load=importlib.import_module):
    "A message where this Python cannot make virtual environments, else None."
    for name in ("venv", "ensurepip"):
        try:
            load(name)
        except ImportError:
            return (
                "this Python ({0}) cannot make a virtual environment: its module {1} is missing.\n"
                "    On Debian and Ubuntu:  sudo apt install python3-venv"
            ).format(sys.executable, name)
    return None


def no_graphics(platform=sys.platform, load=ctypes.CDLL):
    "A message where Linux lacks the shared libraries that opencv-python loads, else None."
    if not platform.startswith("linux"):
        return None
    missing = []
    for name in GRAPHICS:
        try:
            load(name)
        except OSError:
            missing.append(name)
    if not missing:
        return None
    return (
        "OpenCV needs shared libraries that this system lacks: {0}.\n"
        "    On Debian and Ubuntu:  sudo apt install libgl1 libglib2.0-0\n"
        "    On Fedora:             sudo dnf install mesa-libGL glib2"
    ).format(", ".join(missing))


def problems():
    "All messages; where Python is too old, that alone."
    old = too_old()
    return [old] if old else [text for text in (no_environments(), no_graphics()) if text]


def main():
    "Print every problem to standard error; the exit status says whether there was one."
    found = problems()
    for text in found:
        print("petroscope: " + text, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
