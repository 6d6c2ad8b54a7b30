"""Make README.md from nbs/index.ipynb.

    python tools/readme.py           write README.md
    python tools/readme.py --check   change nothing; exit with 1 and show the difference where it is out of step

Text cells are taken as they are and code cells become fenced Python; hidden cells and nbdev's directives are left out.
A link is relative to the notebook's folder there and to the project's root in README.md.
"""

import argparse
import difflib
import json
import posixpath
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "nbs" / "index.ipynb"
README = ROOT / "README.md"
NOTE = "<!-- Made from nbs/index.ipynb by tools/readme.py: edit the notebook, then run `make readme`. -->"
DIRECTIVE = re.compile(r"^#\|\s*(.*?)\s*$\n?", re.MULTILINE)
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def relink(text: str) -> str:
    "Links relative to nbs/ made relative to the root; addresses and links within the page stay."

    def moved(match: re.Match) -> str:
        opening, target, closing = match.groups()
        if ":" in target or target.startswith("/"):
            return match[0]
        return opening + posixpath.normpath(posixpath.join("nbs", target)) + closing

    return LINK.sub(moved, text)


def markdown(cell: dict) -> str:
    "One cell as Markdown; an empty string where it is not to be shown."
    source = "".join(cell["source"]).strip("\n")
    if cell["cell_type"] == "markdown":
        return relink(source)
    directives = DIRECTIVE.findall(source)
    hidden = any(d.split(":")[0] in ("hide", "hide_input") or d == "echo: false" for d in directives)
    # A last semicolon keeps a notebook from showing the value; here it would only puzzle.
    code = DIRECTIVE.sub("", source).strip("\n").removesuffix(";")
    if cell["cell_type"] != "code" or hidden or not code:
        return ""
    return f"```python\n{code}\n```"


def readme(notebook: dict) -> str:
    "README.md as one string."
    title, *rest = notebook["cells"]
    # nbdev wants the promise of a notebook quoted; on the front page it is a plain sentence.
    first = re.sub(r"^> ", "", relink("".join(title["source"]).strip("\n")), flags=re.MULTILINE)
    parts = [NOTE, first, *map(markdown, rest)]
    return "\n\n".join(part for part in parts if part) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, only compare")
    check = parser.parse_args().check
    new = readme(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    old = README.read_text(encoding="utf-8") if README.exists() else ""
    if old == new:
        return 0
    if check:
        sys.stdout.writelines(
            difflib.unified_diff(old.splitlines(True), new.splitlines(True), "README.md", "nbs/index.ipynb")
        )
        print("README.md is out of step with nbs/index.ipynb: run `make readme`", file=sys.stderr)
        return 1
    README.write_text(new, encoding="utf-8")
    print("README.md written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
