"Commands that README, docs and cards print: each is one that the program takes, and the scoring ones do what they say."

import re
import shlex

import pytest

from conftest import ROOT
from petroscope.cli.parser import parser
from petroscope.io.images import write_image, write_mask
from petroscope.synth.rock import scene

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "petroscope/weights").glob("*.md"))]


def printed(page):
    "Commands in fenced blocks and between backquotes, one a line; only those with arguments."
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(petroscope [^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [line.split("  #")[0] for line in lines if line.startswith("petroscope ")]


COMMANDS = [
    pytest.param(line, id=f"{page.name}: {line}")
    for page in PAGES
    for line in dict.fromkeys(printed(page))
    # A row of a table may name a command without all that it needs; options are shown alone.
    if "..." not in line
]


def test_there_are_commands():
    assert len(COMMANDS) > 12


@pytest.mark.parametrize("line", COMMANDS)
def test_the_program_takes_it(line, capsys):
    words = shlex.split(line)[1:]
    if words in (["--version"], ["info"]):
        return
    try:
        args = parser().parse_args(words)
    except SystemExit:
        error = capsys.readouterr().err
        # `petroscope stitch` alone is the name of a command and no call of it.
        assert len(words) == 1 and "the following arguments are required" in error, error
    else:
        assert args.command == words[0]


SCORING = [p.values[0] for p in COMMANDS if "--split" in p.values[0] and "S1_v1" in p.values[0]]


def test_there_are_scoring_commands():
    assert {("--split test" in line, "--scale 1 " in line) for line in SCORING} == {
        (True, True), (True, False), (False, False),
    }  # fmt: skip


@pytest.mark.parametrize("line", sorted(set(SCORING)))
def test_a_scoring_command_scores_what_it_says(line, petroscope, tmp_path):
    "On a drawn set that is laid out like LumenStone's: the test half, or the photos that training leaves out."
    pytest.importorskip("torch")
    words = shlex.split(line)[1:]
    split = words[words.index("--split") + 1]
    for part in ("imgs", "masks"):
        (tmp_path / words[1] / part / split).mkdir(parents=True)
    for seed in range(5):
        drawn = scene((96, 128), seed=seed, scale=0.5)
        write_image(tmp_path / words[1] / f"imgs/{split}/{seed}.png", drawn.image)
        write_mask(tmp_path / words[1] / f"masks/{split}/{seed}.png", drawn.mask)
    words[1], words[words.index("--out") + 1] = tmp_path / words[1], tmp_path / "out"
    status, out, err = petroscope(*words, "--no-pictures")
    # One of five drawn photos is held out, and it need not show every mineral.
    told = [line for line in err.splitlines() if "hold out more" not in line]
    assert (status, told) == (0, [])
    assert f"{1 if '--hold-out' in words else 5} photos" in out
    assert (tmp_path / "out/metrics.json").exists()
