"""Build the documentation site from the notebooks: make docs, or python tools/build_docs.py

1. Execute copies of the notebooks, so that the pages hold their figures.
2. Rewrite each copy as a page: of an exported function, its signature as a table of parameters, with the source folded;
   no cells that only nbdev needs; links to other notebooks as links to their pages.
3. Run Sphinx, and check that no page asks another host for anything.

The site is written to _docs/, the pages' sources to _site_src/. Nothing else is changed, and no network is needed.
"""

import argparse
import ast
import io
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
import tokenize
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "_site_src"
SITE = ROOT / "_docs"
DIRECTIVE = re.compile(r"^#\|\s*(.*?)\s*$\n?", re.MULTILINE)
# Pages that are no notebooks: path in the project -> path on the site.
TEXTS = {
    "petroscope/weights/s1v1.md": "weights_s1v1.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
FOLDERS = {"": "Basics", "segmentation": "Segmentation", "panorama": "Panorama", "analysis": "Analysis"}
FOLDERS["tutorials"] = "Tutorials"


def settings() -> dict:
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def notebooks(folder: Path = ROOT / "nbs") -> list[Path]:
    "The notebooks of the site, in the order of their numbers."
    hidden = (".", "_")
    found = sorted(folder.rglob("*.ipynb"))
    return [p for p in found if not any(part.startswith(hidden) for part in p.relative_to(folder).parts)]


def page_name(path: str) -> str:
    "Where a notebook's page lies: its path below nbs/ without the number, so that renumbering moves no page."
    return re.sub(r"(^|/)\d+[a-z]?_", r"\1", path)


# -- Signatures -------------------------------------------------------------------------------------------------------


def comments(code: str) -> dict[int, str]:
    "Line number -> the comment on that line."
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}


def arguments(function: ast.FunctionDef) -> Iterator[tuple[str, ast.arg, ast.expr | None]]:
    "Name as written in a call, argument and default, in their order."
    spec = function.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults = [None] * (len(positional) - len(spec.defaults)) + spec.defaults
    for arg, default in zip(positional, defaults):
        yield arg.arg, arg, default
    if spec.vararg:
        yield "*" + spec.vararg.arg, spec.vararg, None
    for arg, default in zip(spec.kwonlyargs, spec.kw_defaults):
        yield arg.arg, arg, default
    if spec.kwarg:
        yield "**" + spec.kwarg.arg, spec.kwarg, None


def code_span(text: str) -> str:
    "Code in a table's cell."
    return "`" + text.replace("|", "\\|").replace("\n", " ") + "`" if text else ""


def table(header: list[str], rows: list[list[str]]) -> str:
    "A table in Markdown, without the columns that say nothing."
    told = [column for column in range(len(header)) if any(row[column] for row in rows)]
    lines = [[line[column] for column in told] for line in (header, ["---"] * len(header), *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain(text: str) -> str:
    "A comment in a table's cell."
    return text.replace("|", "\\|")


def signature(function: ast.FunctionDef, notes: dict[int, str], owner: str = "") -> str:
    "A function as Markdown: how to call it, what it does, and a table of its parameters."
    rows, names, last = [], [], function.lineno
    for name, arg, default in arguments(function):
        if owner and name in ("self", "cls"):
            continue
        last = (default or arg).end_lineno or last
        names.append(name if default is None else f"{name}={ast.unparse(default)}")
        kind = ast.unparse(arg.annotation) if arg.annotation else ""
        value = "" if default is None else ast.unparse(default)
        rows.append([code_span(name), code_span(kind), code_span(value), plain(notes.get(last, ""))])
    called = owner if function.name == "__init__" else ".".join(filter(None, [owner, function.name]))
    parts = [f"**`{called}({', '.join(names)})`**", ast.get_docstring(function) or ""]
    if function.returns is not None and ast.unparse(function.returns) != "None":
        end = function.returns.end_lineno or last
        # A one-line signature has one comment, which speaks of the last parameter where there is one.
        note = notes.get(end, "") if end != last or not rows else ""
        if rows or note:
            rows.append(["*returns*", code_span(ast.unparse(function.returns)), "", plain(note)])
        else:
            parts[0] += f" → `{ast.unparse(function.returns)}`"
    if rows:
        parts.append(table(["parameter", "type", "default", "meaning"], rows))
    return "\n\n".join(filter(None, parts))


def class_page(node: ast.ClassDef, notes: dict[int, str]) -> str:
    "A class as Markdown: what it is, its fields, and its public methods."
    parts = [f"**class `{node.name}`**", ast.get_docstring(node) or ""]
    rows = []
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id[0] != "_":
            value = ast.unparse(item.value) if item.value else ""
            note = plain(notes.get(item.end_lineno or 0, ""))
            rows.append([code_span(item.target.id), code_span(ast.unparse(item.annotation)), code_span(value), note])
    if rows:
        parts.append(table(["field", "type", "default", "meaning"], rows))
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and (item.name == "__init__" or not item.name.startswith("_")):
            decorators = {ast.unparse(d).split(".")[-1] for d in item.decorator_list}
            if decorators & {"property", "cached_property"}:
                kind = f": `{ast.unparse(item.returns)}`" if item.returns else ""
                parts.append(f"**`{node.name}.{item.name}`**{kind}\n\n{ast.get_docstring(item) or ''}")
            elif "setter" not in decorators:
                parts.append(signature(item, notes, node.name))
    return "\n\n".join(filter(None, parts))


def anchor(name: str) -> str:
    "A place to link to. Sphinx's own targets do not tell `Scene` from `scene`."
    return f'<a id="api-{name}"></a>\n\n'


def exported(code: str) -> str:
    "An exported cell as Markdown; an empty string for one that only imports."
    body = ast.parse(code).body
    notes = comments(code)
    parts = []
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            parts.append(anchor(node.name) + signature(node, notes))
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            parts.append(anchor(node.name) + class_page(node, notes))
    if all(isinstance(node, ast.Import | ast.ImportFrom) for node in body):
        return ""
    source = f"```python\n{code}\n```"
    # What is public is described, and its source is folded; constants and helpers are short or private: source alone.
    shown = not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in body)
    names = ", ".join(node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef))
    fold = f'<details class="source"><summary>Source of {names}</summary>\n\n{source}\n\n</details>'
    return "\n\n".join([*parts, source if shown else fold])


# -- Pages ------------------------------------------------------------------------------------------------------------


def relink(text: str, path: str, cfg: dict) -> str:
    "Links in a text of the project's file `path`, made to lead to pages of the site, or else to the repository."

    def moved(match: re.Match) -> str:
        opening, target, anchor = match.groups()
        if ":" in target:
            return match[0]
        full = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        here = posixpath.dirname(page_of(path) or "")
        page = page_of(full)
        if page and (ROOT / full).exists():
            return opening + posixpath.relpath(page, here or ".") + anchor
        return f"{opening}{cfg['git_url']}/blob/{cfg['branch']}/{full}{anchor}"

    return re.sub(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))", moved, text)


def page_of(path: str) -> str | None:
    "The page's source for a file of the project, or None where it has no page."
    if path.startswith("nbs/") and path.endswith(".ipynb"):
        return page_name(path.removeprefix("nbs/"))
    return TEXTS.get(path)


def markdown_cell(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def page_cell(cell: dict, path: str, cfg: dict) -> dict | None:
    "One cell as it stands on the page; None where it does not."
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return markdown_cell(relink(text, path, cfg))
    directives = {re.split(r"[\s:]", d)[0]: d for d in DIRECTIVE.findall(text)}
    code = DIRECTIVE.sub("", text).strip("\n")
    if cell["cell_type"] != "code" or {"hide", "default_exp"} & directives.keys() or not code:
        return None
    if {"export", "exporti", "exports"} & directives.keys():
        description = exported(code)
        return markdown_cell(description) if description else None
    tags = set()
    if "hide_input" in directives or directives.get("echo", "").endswith("false"):
        tags.add("remove-input")
    if "hide_output" in directives or directives.get("output", "").endswith("false"):
        tags.add("remove-output")
    page = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": cell["outputs"], "source": code}
    for output in page["outputs"]:
        output.pop("execution_count", None)
        if output["output_type"] == "execute_result":
            output["execution_count"] = None
    return page | {"metadata": {"tags": sorted(tags)} if tags else {}}


def page(notebook: dict, path: str, cfg: dict) -> dict:
    "A notebook as a page of the site."
    cells = [made for cell in notebook["cells"] if (made := page_cell(cell, path, cfg))]
    return {"cells": cells, "metadata": notebook["metadata"], "nbformat": 4, "nbformat_minor": 4}


def contents(paths: list[str]) -> str:
    "The tables of contents that Sphinx wants on the first page, one for each folder."
    groups = [(title, [p for p in paths if posixpath.dirname(p) == folder]) for folder, title in FOLDERS.items()]
    groups.append(("Project", [name for source, name in TEXTS.items() if (ROOT / source).exists()]))
    blocks = []
    for title, members in groups:
        names = [page_name(name).rsplit(".", 1)[0] for name in members if name != "index.ipynb"]
        if names:
            blocks.append("\n".join(["```{toctree}", ":hidden:", f":caption: {title}", "", *names, "```"]))
    return "\n\n".join(blocks)


# -- The build --------------------------------------------------------------------------------------------------------


def execute(path: Path, skip: tuple[str, ...]) -> dict:
    "The notebook with its outputs; cells that its tests leave out are left out here too."
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        directives = DIRECTIVE.findall(cell.source) if cell.cell_type == "code" else []
        words = {re.split(r"[\s:]", d)[0] for d in directives}
        if "nbdev_export()" in cell.source or "eval: false" in directives or words & set(skip):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "skip-execution"]
    resources = {"metadata": {"path": str(path.parent)}}
    try:
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    except CellExecutionError as error:
        raise RuntimeError(f"{path.name} does not run:\n{error}") from None
    return json.loads(nbformat.writes(notebook))


def write_pages(run: bool) -> None:
    "Execute the notebooks in a throw-away copy and write the pages' sources."
    cfg = settings()
    shutil.rmtree(SOURCES, ignore_errors=True)
    names = [path.relative_to(ROOT / "nbs").as_posix() for path in notebooks()]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "nbs"
        shutil.copytree(ROOT / "nbs", copy)
        if run:
            os.environ["PYTHONPATH"] = str(ROOT)
            with ProcessPoolExecutor(2) as pool:
                flags = tuple(cfg["tst_flags"].split())
                done = list(pool.map(execute, [copy / name for name in names], [flags] * len(names)))
        else:
            done = [json.loads((copy / name).read_text(encoding="utf-8")) for name in names]
    for name, notebook in zip(names, done):
        made = page(notebook, f"nbs/{name}", cfg)
        if name == "index.ipynb":
            made["cells"].append(markdown_cell(contents(names)))
        target = SOURCES / page_name(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(made), encoding="utf-8")
    for source, name in TEXTS.items():
        if (ROOT / source).exists():
            text = relink((ROOT / source).read_text(encoding="utf-8"), source, cfg)
            (SOURCES / name).write_text(text, encoding="utf-8")


def foreign_requests(site: Path) -> list[str]:
    "What the pages would ask other hosts for; links that a reader must click are not among it."
    wanted = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=\"((?:https?:)?//[^\"]+)\"")
    found = [
        f"{p.relative_to(site)}: {url}" for p in site.rglob("*.html") for url in wanted.findall(p.read_text("utf-8"))
    ]
    loaded = re.compile(r"(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"')]+)")
    styles = [
        f"{p.relative_to(site)}: {url}" for p in site.rglob("*.css") for url in loaded.findall(p.read_text("utf-8"))
    ]
    return sorted(found + styles)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-run", action="store_true", help="leave out the notebooks' outputs: quick, for a look")
    args = parser.parse_args()
    try:
        write_pages(not args.no_run)
    except RuntimeError as error:
        sys.exit(f"petroscope: {error}")
    shutil.rmtree(SITE, ignore_errors=True)
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    # Doctrees, and the pictures that MyST-NB lays beside the site, are of no use to a reader: both stay in here.
    with tempfile.TemporaryDirectory() as work:
        site = Path(work) / "site"
        done = subprocess.run([*sphinx, "-c", ROOT / "docs", "-d", Path(work) / "trees", SOURCES, site])
        if done.returncode:
            return done.returncode
        shutil.move(site, SITE)
    (SITE / ".nojekyll").touch()
    foreign = foreign_requests(SITE)
    for line in foreign:
        print(f"petroscope: a page asks another host: {line}", file=sys.stderr)
    print(f"The site is in {SITE}; open {SITE / 'index.html'}")
    return int(bool(foreign))


if __name__ == "__main__":
    sys.exit(main())
