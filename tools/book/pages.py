"Notebooks and texts of the project as pages of the site: what is left out, what is rewritten, and where links lead."

import ast
import posixpath
import re
from collections.abc import Callable, Iterable
from configparser import ConfigParser
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from .markdown import fence, joined, note_of, plain, table

ROOT = Path(__file__).resolve().parent.parent.parent
_settings = ConfigParser(delimiters=["="])
_settings.read(ROOT / "settings.ini", encoding="utf-8")
CFG = _settings["DEFAULT"]
PACKAGE = CFG["lib_name"]

PICTURES = "docs/_static/"  # pictures that texts show lie here, and in the same place among the pages' sources
ORIGINALS = "notebooks"  # the notebooks as they are in the project, to be downloaded, lie here among the pages' sources
BESIDE = "\N{EM SPACE}"  # parts a title in the contents from its module, see tools/book/links.py
# The notes that a widget leaves in a notebook mean nothing without the notebook's kernel.
WIDGET = "application/vnd.jupyter.widget-view+json"
INTERACTIVE = "{.interactive}\n*Interactive in JupyterLab: open this notebook there and run it.*"
DIRECTIVE = re.compile(r"^#\|\s*(.*?)\s*$\n?", re.MULTILINE)
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
EXPORT = {"export", "exporti", "exports"}
TAGS = {"hide_input": "remove-input", "echo": "remove-input", "hide_output": "remove-output", "output": "remove-output"}
# Headings of folders whose own names say too little.
TITLES = {"io": "Files", "view": "Pictures and tables", "synth": "Drawn sections", "notebook": "Widgets"}
TITLES |= {"cli": "Command line", PACKAGE: "Main functions"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def read_notebooks(folder: Path = ROOT / "nbs") -> dict[str, dict]:
    "The notebooks of the site by their paths below nbs/, in the order of these."
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.ipynb")}
    shown = [name for name in sorted(paths) if not re.search(r"(^|/)[._]", name)]
    return {name: nbformat.read(paths[name], as_version=4) for name in shown}


def texts() -> dict[str, str]:
    "Pages that are no notebooks: path in the project -> path on the site."
    pages = {name: name.lower() for name in ("CONTRIBUTING.md", "CHANGELOG.md")}
    pages |= {f"docs/{path.name}": path.name for path in (ROOT / "docs").glob("*.md")}
    return pages | {
        f"{PACKAGE}/weights/{p.name}": f"models/{p.name}" for p in (ROOT / PACKAGE / "weights").glob("*.md")
    }


def page_name(path: str) -> str:
    "Where a notebook's page lies: its path below nbs/ without the number, so that renumbering moves no page."
    return "start.ipynb" if path == "index.ipynb" else re.sub(r"(^|/)\d+[a-z]?_", r"\1", path)


def page_of(path: str) -> str | None:
    "The page's source for a file of the project, or None where it has no page."
    notebook = path.startswith("nbs/") and path.endswith(".ipynb")
    return page_name(path.removeprefix("nbs/")) if notebook else texts().get(path)


def docname(name: str) -> str:
    "What Sphinx calls the page of a notebook."
    return page_name(name).removesuffix(".ipynb")


# -- What a notebook says ---------------------------------------------------------------------------------------------


def words(cell: dict) -> dict[str, str]:
    "The directives of a code cell: first word -> all of it."
    found = DIRECTIVE.findall(cell["source"]) if cell["cell_type"] == "code" else []
    return {re.split(r"[\s:]", directive)[0]: directive for directive in found}


def title_and_promise(notebook: dict) -> tuple[str, str]:
    "The first cell's title, and the promise below it."
    title, _, promise = notebook["cells"][0]["source"].partition("\n")
    return title.lstrip("# ").strip(), re.sub(r"\s*^>", "", promise, flags=re.MULTILINE).strip()


def module_of(notebook: dict) -> str:
    "The module that a notebook exports, or an empty text."
    named = (words(cell).get("default_exp") for cell in notebook["cells"])
    return next((f"{PACKAGE}.{directive.split()[-1]}" for directive in named if directive), "")


def exported(notebook: dict) -> list[str]:
    "The exported cells' code."
    return [DIRECTIVE.sub("", cell["source"]) for cell in notebook["cells"] if EXPORT & words(cell).keys()]


def all_code(notebook: dict) -> list[str]:
    "The code cells, examples and tests included; a magic is no Python."
    cells = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.MULTILINE) for code in cells]


def imports(codes: list[str]) -> dict[str, str]:
    "What code imports from the package: name as used there -> full name."
    found = {}
    for node in ast.walk(ast.parse("\n".join(codes))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            base = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            found |= {alias.asname or alias.name: base + alias.name for alias in node.names}
    return {name: full for name, full in found.items() if full.split(".")[0] == PACKAGE and not name.startswith("__")}


def uses(notebooks: dict[str, dict], codes: Callable = exported) -> dict[str, set[str]]:
    "For each notebook those whose modules its code imports; of a package's front door, all that lie behind it."
    homes = {module_of(notebook): name for name, notebook in notebooks.items() if module_of(notebook)}
    found = {}
    for name, notebook in notebooks.items():
        full_names = imports(codes(notebook)).values()
        wanted = {full if full in homes else full.rpartition(".")[0] or full for full in full_names}
        doors = tuple(f"{module}." for module in wanted - homes.keys())
        found[name] = {home for module, home in homes.items() if module in wanted or module.startswith(doors)}
    return found


def needs(names: Iterable[str], used: dict[str, set[str]]) -> set[str]:
    "Notebooks, and all others whose modules theirs use, however indirectly."
    found, todo = set(), set(names)
    while todo:
        found |= todo
        todo = set().union(*(used[name] for name in todo)) - found
    return found


def tutorials(notebooks: dict[str, dict]) -> list[str]:
    "The tutorials in the order in which the first page lists them; those that it leaves out come last."
    first = "\n".join(cell["source"] for cell in notebooks.get("index.ipynb", {"cells": []})["cells"])
    listed = re.findall(r"^\W*\[[^\]]*\]\((tutorials/[^)#]+)", first, re.MULTILINE)
    there = [name for name in notebooks if name.startswith("tutorials/")]
    return sorted(there, key=lambda name: (listed.index(name) if name in listed else len(listed), name))


def rooms(notebooks: dict[str, dict]) -> dict[str, list[str]]:
    "The notebooks that export a module, by folder: a folder comes the later, the more others its modules use."
    used, folders = uses(notebooks), {}
    for name in filter(lambda name: module_of(notebooks[name]), notebooks):
        folders.setdefault(name.split("/")[0] if "/" in name else PACKAGE, []).append(name)

    def place(folder: str) -> tuple[bool, int, str]:
        return folder != PACKAGE, len(needs(folders[folder], used)) - len(folders[folder]), folder

    return {folder: folders[folder] for folder in sorted(folders, key=place)}


# -- Exported code ----------------------------------------------------------------------------------------------------


def defined(code: str) -> list[tuple[str, ast.stmt]]:
    "The names that a cell gives to functions, classes and constants, a logger apart, each with its statement."
    found = []
    for node in ast.parse(code).body:
        if isinstance(node, Function | ast.ClassDef):
            found.append((node.name, node))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and "getLogger" not in ast.unparse(node):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [(n.id, node) for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return found


def kind_and_note(node: ast.stmt, code: str) -> tuple[str, str]:
    "What a definition makes, and its first sentence."
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return "constant", plain(note_of(node, code.splitlines()))
    text = (ast.get_docstring(node) or "").partition("\n\n")[0]
    return "class" if isinstance(node, ast.ClassDef) else "function", plain(text)


def symbols(notebook: dict) -> list[tuple[str, str, str]]:
    "Name, kind and first sentence of everything public in the module of a notebook."
    found = [(name, *kind_and_note(node, code)) for code in exported(notebook) for name, node in defined(code)]
    return [symbol for symbol in found if not symbol[0].startswith("_")]


def entry(module: str, name: str, node: ast.stmt, code: str) -> str:
    "What autodoc is asked for, or the description of a constant; its value where it is short."
    kind, note = kind_and_note(node, code)
    if kind == "constant":
        value = ast.unparse(node.value)
        told = {"type": ast.unparse(node.annotation)} if isinstance(node, ast.AnnAssign) else {}
        return fence("py:data", name, note, **told, **({"value": value} if len(value) <= 60 else {}))
    if kind == "class" and any(ast.unparse(base).endswith(("Error", "Exception")) for base in node.bases):
        kind = "exception"
    members = "" if kind == "function" else "\n   :members:\n   :undoc-members:"
    return fence("rst", "", f".. auto{kind}:: {module}.{name}{members}")


def entries(code: str, module: str) -> str:
    "An exported cell as Markdown; an empty string for one that defines nothing."
    names = [(name, node) for name, node in defined(code) if name != "_all_"]  # what nbdev hands on besides
    parts = [entry(module, name, node, code) for name, node in names if not name.startswith("_")]
    code = code.strip("\n")
    source, functions = f"```python\n{code}\n```", [name for name, node in names if hasattr(node, "body")]
    # A constant is told by its source, which is short; what is public is described, and its source is folded.
    if functions:
        summary = f"<summary>Source of {', '.join(functions)}</summary>"
        source = f'<details class="source">{summary}\n\n{source}\n\n</details>'
    elif len(names) == 1 and ":value:" in "".join(parts):
        source = ""
    return joined(*parts, source) if names else ""


# -- Pages ------------------------------------------------------------------------------------------------------------


def in_repository(path: str) -> str:
    "The address of a file or folder of the project."
    return f"{CFG['git_url']}/{'tree' if (ROOT / path).is_dir() else 'blob'}/{CFG['branch']}/{path}"


def relink(text: str, path: str) -> str:
    "Links in a text of the project's file `path`, made to lead to pages of the site, or else to the repository."

    def moved(match: re.Match) -> str:
        full = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
        page = page_of(full) if (ROOT / full).exists() else None
        target = posixpath.relpath(page, posixpath.dirname(page_of(path)) or ".") if page else in_repository(full)
        return f"](/{full})" if full.startswith(PICTURES) else f"]({target}{match[2] or ''})"

    return re.sub(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)", moved, text)


def page_cells(cell: dict, path: str, module: str) -> list[dict]:
    "One cell as it stands on the page; none where it does not."
    if cell["cell_type"] == "markdown":
        return [new_markdown_cell(relink(cell["source"], path))]
    told, code = words(cell), DIRECTIVE.sub("", cell["source"]).strip("\n")
    if EXPORT & told.keys():
        text = entries(code, module)
        return [new_markdown_cell(text)] if text else []
    if "hide" in told or "default_exp" in told or not code:
        return []
    widgets = [output["data"] for output in cell["outputs"] if WIDGET in output.get("data", {})]
    shown = [output for output in cell["outputs"] if output.get("data") not in widgets]
    tags = {tag for word, tag in TAGS.items() if word in told}
    page = new_code_cell(code, metadata={"tags": sorted(tags)} if tags else {}, outputs=shown)
    # Bars that showed progress are widgets too, and no loss.
    lost = any(not re.search(r"\d+%\|", data.get("text/plain", "")) for data in widgets)
    return [page, *([new_markdown_cell(INTERACTIVE)] if lost else [])]


def level(cell: dict) -> int:
    "The level of the heading that a cell begins with; 0 where there is none."
    found = re.match(r"(#{2,6})\s", cell["source"]) if cell["cell_type"] == "markdown" else None
    return len(found[1]) if found else 0


def fold_inner(cells: list[dict]) -> list[dict]:
    "The cells of a notebook; a section about nothing but a module's private parts is folded, its heading to click."
    made, i = [], 0
    while i < len(cells):
        at = level(cells[i])
        end = next((j for j in range(i + 1, len(cells)) if 0 < level(cells[j]) <= at), len(cells)) if at else i + 1
        first, *rest = cells[i:end]
        names = [name for code in exported({"cells": rest}) for name, _ in defined(code)]
        if not names or not all(name.startswith("_") for name in names):
            made.append(first)
            i += 1
            continue
        title, _, text = first["source"].lstrip("# ").partition("\n")
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        # The anchor stands within, so that a browser that is led here unfolds it; a heading would tear the fold apart.
        opening = f'<details class="inner"><summary>Internals: {title}</summary><span id="{slug}"></span>'
        made += [new_markdown_cell(part) for part in (opening, text.strip()) if part]
        made += [{**c, "source": re.sub(r"\A#+\s+(.+)", r"**\1**", c["source"])} if level(c) else c for c in rest]
        made.append(new_markdown_cell("</details>"))
        i = end
    return made


def page(notebook: dict, name: str) -> dict:
    "A notebook as a page of the site; below its title stand its module, and where its notebook is."
    module, path = module_of(notebook), f"nbs/{name}"
    about = [f'<code class="module">{module}</code>'] if module else []
    about.append(f"{{download}}`Download this notebook </{ORIGINALS}/{name}>`")
    about.append(f"[View it in the repository]({in_repository(path)})")
    first, *rest = [made for cell in fold_inner(notebook["cells"]) for made in page_cells(cell, path, module)]
    if name == "index.ipynb":  # the site has a front page of its own
        first["source"] = first["source"].replace(f"# {PACKAGE}", "# Start", 1)
    target = fence("py:module", module, "") if module else ""  # before a text: a fold would lose the anchor
    cells = [first, new_markdown_cell(joined(target, "{.about}\n" + " · ".join(about))), *rest]
    return new_notebook(cells=cells, metadata={"kernelspec": KERNEL})


# -- Lists ------------------------------------------------------------------------------------------------------------


def contents(notebooks: dict[str, dict]) -> str:
    "The tables of contents of the modules: a room's title, and the last part of its module's name."
    trees = []
    for folder, members in rooms(notebooks).items():
        titles = {
            n: title_and_promise(notebooks[n])[0] + BESIDE + module_of(notebooks[n]).split(".")[-1] for n in members
        }
        lines = [f"{title} <{docname(name)}>" for name, title in titles.items()]
        trees.append(fence("toctree", "", "\n".join(lines), hidden="", caption=TITLES.get(folder, folder.capitalize())))
    return joined(*trees)


def gallery(notebooks: dict[str, dict], pictures: set[str]) -> str:
    "All tutorials: picture, title and promise of each."
    names, cards = tutorials(notebooks), []
    for name in names:
        title, promise = title_and_promise(notebooks[name])
        picture = f"[![](/thumbnails/{docname(name)}.png)]({page_name(name)})" if name in pictures else ""
        cards.append(fence("container", "card", joined(picture, f"**[{title}]({page_name(name)})**", promise)))
    tree = fence("toctree", "", "\n".join(map(docname, names)), hidden="")
    return joined("````{container} gallery", *cards, "````", tree)


def reference(notebooks: dict[str, dict]) -> str:
    "All modules and what is in them."
    parts = []
    for folder, members in rooms(notebooks).items():
        parts.append(f"## {TITLES.get(folder, folder.capitalize())}")
        for name in members:
            module = module_of(notebooks[name])
            rows = [[f"{{py:obj}}`~{module}.{n}`", text] for n, _, text in symbols(notebooks[name])]
            parts += [f"### [{module.partition('.')[2]}]({page_name(name)})", title_and_promise(notebooks[name])[1]]
            parts.append("{.names}\n" + table(["name", "what it is"], rows) if rows else "")
    return joined(*parts)


def names(notebooks: dict[str, dict]) -> str:
    "All names in alphabetical order."
    letters = {}
    found = [(name, kind, module_of(nb)) for nb in notebooks.values() for name, kind, _ in symbols(nb)]
    for name, kind, module in sorted(found, key=lambda row: (row[0].lower(), row[2])):
        row = [f"{{py:obj}}`~{module}.{name}`", kind, f"{{py:mod}}`{module.partition('.')[2]} <{module}>`"]
        letters.setdefault(name[0].upper(), []).append(row)
    header = ["name", "kind", "module"]
    return joined(*(f"## {letter}\n\n{{.names}}\n{table(header, rows)}" for letter, rows in letters.items()))
