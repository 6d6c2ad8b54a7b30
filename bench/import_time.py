"""How long each import takes in a fresh interpreter, beside numpy's and OpenCV's own in the same run.

    python bench/import_time.py [--rounds 7]

The aim: `import petroscope` in less than 0.3 s. The time of starting Python is taken off; the median of the rounds
counts.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
AIM = 0.3
PEERS = ["numpy", "cv2"]


def modules() -> list[str]:
    "petroscope and its modules, by name."
    paths = sorted((ROOT / "petroscope").rglob("*.py"))
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in paths
        if path.name != "_modidx.py"
    ]


def seconds(statement: str) -> float:
    "Wall-clock time of one interpreter that runs `statement`."
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, cwd=ROOT)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="interpreters started for each import")
    rounds = parser.parse_args().rounds
    names = [*PEERS, *modules()]
    times: dict[str, list[float]] = {name: [] for name in ["", *names]}
    # Round by round, so that a busy moment of the machine falls on all alike.
    for _ in range(rounds):
        for name, taken in times.items():
            taken.append(seconds(f"import {name}" if name else "pass"))
    start = statistics.median(times[""])
    print(f"{'starting Python':40} {start:6.3f} s")
    for name in names:
        print(f"import {name:33} {max(0.0, statistics.median(times[name]) - start):6.3f} s")
    taken = statistics.median(times["petroscope"]) - start
    print(f"import petroscope: {taken:.3f} s, aim < {AIM} s: {'met' if taken < AIM else 'NOT met'}")


if __name__ == "__main__":
    main()
