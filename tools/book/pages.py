"Notebooks and texts of the project as pages of the site: what is left out, what is rewritten, and where links lead."

import ast
import json
import posixpath
import re
from pathlib import Path

from . import api
from .execute import DIRECTIVE

ROOT = Path(__file__).resolve().parent.parent.parent
# The tutorials in the order in which one would read them; a new one comes last until it is named here.
TUTORIALS = [
    "getting_started",
    "lumenstone_and_own_masks",
    "metrics_explained",
    "segm_resunet_inference",
    "segm_resunet_test",
    "segm_resunet_train",
    "segm_balancer",
    "own_model",
    "stitch_panorama",
    "section_analysis",
]
# Pages that the build writes; texts in docs/ link to them as if they lay there.
WRITTEN = ("reference.md", "symbols.md", "tutorials.md")
PICTURES = "docs/_static/"  # pictures that texts show lie here, and in the same place among the pages' sources
WIDE = "---\nhide-toc: true\n---\n\n"  # nothing beside the page
ORIGINALS = "notebooks"  # the notebooks as they are in the project, to be downloaded, lie here among the pages' sources
BESIDE = "\N{EM SPACE}"  # parts a title in the contents from its module, see tools/book/frame.py
# Folder of notebooks -> heading; a page without a folder comes last.
FOLDERS = {
    "io": "Files",
    "view": "Pictures and tables",
    "synth": "Drawn sections",
    "segmentation": "Segmentation",
    "panorama": "Panorama",
    "analysis": "Analysis",
    "notebook": "Widgets",
    "cli": "Command line",
}
GROUPS = [*FOLDERS.values(), "Front door"]
# The notes that a widget leaves in a notebook mean nothing without the notebook's kernel.
WIDGET = "application/vnd.jupyter.widget-view+json"
INTERACTIVE = "*Interactive in JupyterLab: open this notebook there and run it.*"


def notebooks(folder: Path = ROOT / "nbs") -> list[str]:
    "The notebooks of the site, as paths below nbs/, in the order of their paths."
    found = [path.relative_to(folder) for path in sorted(folder.rglob("*.ipynb"))]
    return [path.as_posix() for path in found if not any(part.startswith((".", "_")) for part in path.parts)]


def texts() -> dict[str, str]:
    "Pages that are no notebooks: path in the project -> path on the site."
    pages = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
    pages |= {f"docs/{path.name}": path.name for path in (ROOT / "docs").glob("*.md")}
    cards = sorted((ROOT / "petroscope" / "weights").glob("*.md"))
    return pages | {f"petroscope/weights/{path.name}": f"models/{path.name}" for path in cards}


def page_name(path: str) -> str:
    "Where a notebook's page lies: its path below nbs/ without the number, so that renumbering moves no page."
    return "start.ipynb" if path == "index.ipynb" else re.sub(r"(^|/)\d+[a-z]?_", r"\1", path)


def page_of(path: str) -> str | None:
    "The page's source for a file of the project, or None where it has no page."
    if path.startswith("nbs/") and path.endswith(".ipynb"):
        return page_name(path.removeprefix("nbs/"))
    if path in [f"docs/{page}" for page in WRITTEN]:
        return posixpath.basename(path)
    return texts().get(path)


def docname(page: str) -> str:
    "What Sphinx calls a page."
    return page.rsplit(".", 1)[0]


def group(path: str) -> str:
    "The heading of the reference below which a notebook stands."
    folder = posixpath.dirname(path)
    return FOLDERS[folder.split("/")[0]] if folder else GROUPS[-1]


def tutorial_order(names: list[str]) -> list[str]:
    "The tutorials among the notebooks, in their order."

    def place(name: str) -> tuple[int, str]:
        stem = posixpath.basename(name).removesuffix(".ipynb")
        return (TUTORIALS.index(stem) if stem in TUTORIALS else len(TUTORIALS)), stem

    return sorted((name for name in names if name.startswith("tutorials/")), key=place)


def rooms(names: list[str]) -> list[str]:
    "The notebooks that export a module."
    return [name for name in names if not name.startswith("tutorials/") and name != "index.ipynb"]


# -- What a notebook says ---------------------------------------------------------------------------------------------


def source(cell: dict) -> str:
    return "".join(cell["source"])


def words(cell: dict) -> dict[str, str]:
    "The directives of a code cell: first word -> all of it."
    if cell["cell_type"] != "code":
        return {}
    return {re.split(r"[\s:]", d)[0]: d for d in DIRECTIVE.findall(source(cell))}


def title_and_promise(notebook: dict) -> tuple[str, str]:
    "The first cell's title, and the promise below it."
    text = source(notebook["cells"][0])
    title = re.search(r"^#\s+(.+)$", text, re.MULTILINE)
    promise = re.findall(r"^>\s?(.*)$", text, re.MULTILINE)
    return (title[1].strip() if title else ""), " ".join(promise).strip()


def module_of(notebook: dict) -> str | None:
    "The module that a notebook exports."
    for cell in notebook["cells"]:
        if "default_exp" in words(cell):
            return "petroscope." + words(cell)["default_exp"].split()[-1]
    return None


def exported(notebook: dict) -> list[str]:
    "The exported cells' code."
    cells = [cell for cell in notebook["cells"] if {"export", "exports"} & words(cell).keys()]
    return [DIRECTIVE.sub("", source(cell)).strip("\n") for cell in cells]


def imports(notebook: dict) -> dict[str, str]:
    "What a notebook imports from the package: name as used there -> full name."
    found = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        try:
            nodes = list(ast.walk(ast.parse(DIRECTIVE.sub("", source(cell)))))
        except SyntaxError:  # a magic
            continue
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "petroscope":
                found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


# -- Cells ------------------------------------------------------------------------------------------------------------


def relink(text: str, path: str, cfg: dict, there: set[str] | None = None) -> str:
    """Links in a text of the project's file `path`, made to lead to pages of the site, or else to the repository.

    `there` are the pages that are built, if not all are."""

    def moved(match: re.Match) -> str:
        opening, target, anchor = match.groups()
        if ":" in target:
            return match[0]
        full = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if full.startswith(PICTURES):
            return f"{opening}/{full}{anchor}"
        here = posixpath.dirname(page_of(path) or "")
        page = page_of(full)
        if page and (there is None or page in there) and (page in WRITTEN or (ROOT / full).exists()):
            return opening + posixpath.relpath(page, here or ".") + anchor
        kind = "tree" if (ROOT / full).is_dir() else "blob"
        return f"{opening}{cfg['git_url']}/{kind}/{cfg['branch']}/{full}{anchor}"

    return re.sub(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))", moved, text)


def markdown_cell(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def shown_outputs(outputs: list[dict]) -> tuple[list[dict], bool]:
    "The outputs without those of widgets, and whether there was a widget."
    kept, widget = [], False
    for output in outputs:
        data = output.get("data", {})
        if WIDGET in data:
            # Bars that showed progress are widgets too, and no loss.
            widget |= not re.search(r"\d+%\|", "".join(data.get("text/plain", "")))
            continue
        output = {key: value for key, value in output.items() if key != "execution_count"}
        if output["output_type"] == "execute_result":
            output["execution_count"] = None
        kept.append(output)
    return kept, widget


def page_cells(cell: dict, path: str, cfg: dict, helpers: dict, there: set[str] | None = None) -> list[dict]:
    "One cell as it stands on the page; none where it does not."
    if cell["cell_type"] == "markdown":
        return [markdown_cell(relink(source(cell), path, cfg, there))]
    told = words(cell)
    code = DIRECTIVE.sub("", source(cell)).strip("\n")
    if "default_exp" in told:
        return [markdown_cell(api.fence("py:module", "petroscope." + told["default_exp"].split()[-1], ""))]
    if cell["cell_type"] != "code" or "hide" in told or not code:
        return []
    if {"export", "exporti", "exports"} & told.keys():
        description = api.entries(code, helpers)
        return [markdown_cell(description)] if description else []
    tags = set()
    if "hide_input" in told or told.get("echo", "").endswith("false"):
        tags.add("remove-input")
    if "hide_output" in told or told.get("output", "").endswith("false"):
        tags.add("remove-output")
    outputs, widget = shown_outputs(cell["outputs"])
    metadata = {"tags": sorted(tags)} if tags else {}
    page = {"cell_type": "code", "execution_count": None, "metadata": metadata, "outputs": outputs, "source": code}
    note = [markdown_cell("{.interactive}\n" + INTERACTIVE)] if widget else []
    return [page, *note]


# -- Sections ---------------------------------------------------------------------------------------------------------


def heading(cell: dict) -> tuple[int, str]:
    "Level and text of the heading that a cell begins with; level 0 where there is none."
    found = re.match(r"(#{2,6})\s+(.+)", source(cell)) if cell["cell_type"] == "markdown" else None
    return (len(found[1]), found[2].strip()) if found else (0, "")


def section_end(cells: list[dict], start: int) -> int:
    "Where the section that begins with a cell is over: at a heading of the same level or of a higher one."
    level = heading(cells[start])[0]
    ends = (i for i in range(start + 1, len(cells)) if 0 < heading(cells[i])[0] <= level)
    return next(ends, len(cells))


def inner(cells: list[dict]) -> bool:
    "Whether cells define something for their module, and nothing that is public."
    names = [name for code in exported({"cells": cells}) for name in api.defined(code)]
    return bool(names) and all(name.startswith("_") for name in names)


def slug(text: str) -> str:
    "The anchor of a heading, as MyST makes it."
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def fold_inner(cells: list[dict]) -> list[dict]:
    "The cells of a notebook; a section about nothing but a module's private parts is folded, its heading to click."
    made, i = [], 0
    while i < len(cells):
        level, title = heading(cells[i])
        end = section_end(cells, i) if level else i + 1
        if level and inner(cells[i:end]):
            text = source(cells[i]).partition("\n")[2].strip()
            anchor = f'<span id="{slug(title)}"></span>'  # within, so that a browser that is led here unfolds it
            opening = f'<details class="inner"><summary>Internals: {title}</summary>{anchor}'
            # A heading within would open a section of the page, and tear the fold apart.
            within = [{**c, "source": re.sub(r"\A#+\s+(.+)", r"**\1**", source(c))} if heading(c)[0] else c
                      for c in cells[i + 1 : end]]  # fmt: skip
            made += [markdown_cell(part) for part in (opening, text) if part] + [*within, markdown_cell("</details>")]
        else:
            made.append(cells[i])
            end = i + 1
        i = end
    return made


def about(notebook: dict, path: str, cfg: dict) -> dict:
    "The line below a page's title: its module, and where its notebook is."
    module = module_of(notebook)
    parts = [f'<code class="module">{module}</code>'] if module else []
    parts.append(f"{{download}}`Download this notebook </{ORIGINALS}/{path.removeprefix('nbs/')}>`")
    parts.append(f"[View it in the repository]({cfg['git_url']}/blob/{cfg['branch']}/{path})")
    return markdown_cell("{.about}\n" + " · ".join(parts))


def helpers_of(notebook: dict) -> dict[str, api.Function]:
    "The private functions that a module's public ones call: its own, and those that it imports from other modules."
    found = {}
    for name, full in imports(notebook).items():
        file = ROOT / (full.rpartition(".")[0].replace(".", "/") + ".py")
        if name.startswith("_") and file.is_file():
            found |= api.private_functions([file.read_text(encoding="utf-8")])
    return found | api.private_functions(exported(notebook))


def page(notebook: dict, path: str, cfg: dict, there: set[str] | None = None) -> dict:
    "A notebook as a page of the site."
    helpers = helpers_of(notebook)
    first, *rest = fold_inner(notebook["cells"])
    cells = [first, about(notebook, path, cfg), *rest]
    cells = [made for cell in cells for made in page_cells(cell, path, cfg, helpers, there)]
    if path == "nbs/index.ipynb":  # the site has a front page of its own
        cells[0]["source"] = cells[0]["source"].replace("# petroscope", "# Start", 1)
    metadata = {key: value for key, value in notebook["metadata"].items() if key != "widgets"}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}


# -- Pages that the build writes --------------------------------------------------------------------------------------


def toctree(caption: str, pages: list[str]) -> str:
    options = {"hidden": ""} | ({"caption": caption} if caption else {})
    return api.fence("toctree", "", "\n".join(pages), options) if pages else ""


def entry(name: str, notebook: dict) -> str:
    "A room in the contents: its title, and the last part of its module's name."
    title, module = title_and_promise(notebook)[0], module_of(notebook)
    last = BESIDE + module.rpartition(".")[2] if module else ""
    return f"{title}{last} <{docname(page_name(name))}>"


def contents(names: list[str], pages: list[str], notebooks: dict[str, dict]) -> str:
    "The tables of contents that Sphinx wants on the first page."
    blocks = [toctree("First steps", ["Start <start>", "tutorials", *(["glossary"] if "glossary.md" in pages else [])])]
    for title in GROUPS:
        members = [entry(name, notebooks[name]) for name in rooms(names) if group(name) == title]
        blocks.append(toctree(title, members))
    measured = [docname(page) for page in sorted(pages) if page.startswith(("models/", "benchmarks", "ablations"))]
    blocks.append(toctree("What was measured", measured))
    shown = {"index.md", "glossary.md"}
    rest = [docname(p) for p in sorted(pages) if docname(p) not in measured and p not in shown]
    blocks.append(toctree("Project", ["reference", "symbols", *rest]))
    return api.joined(*blocks)


def gallery(names: list[str], notebooks: dict[str, dict], pictures: set[str]) -> str:
    "The page of all tutorials: picture, title and promise of each."
    cards = []
    for name in tutorial_order(names):
        title, promise = title_and_promise(notebooks[name])
        page, stem = page_name(name), docname(posixpath.basename(name))
        promise = relink(promise, f"nbs/{name}", {"git_url": "", "branch": ""})
        picture = f"[![](thumbnails/{stem}.png)]({page})" if stem in pictures else ""
        cards.append(api.fence("container", "card", api.joined(picture, f"**[{title}]({page})**", promise)))
    text = (
        "Each tutorial has one goal, says first what you will have at its end, and can be run as it stands: every "
        "picture in it is drawn by petroscope itself, so no photos are needed. To run one, download it from the top of "
        "its page and open it in JupyterLab."
    )
    tree = toctree("", [docname(page_name(name)) for name in tutorial_order(names)])
    return api.joined(WIDE + "# Tutorials", text, api.fence("container", "gallery", "\n\n".join(cards)), tree)


def cell(text: str) -> str:
    "A sentence in a table's cell."
    return api.plain(" ".join(text.split()))


def reference(names: list[str], notebooks: dict[str, dict]) -> str:
    "The page of all modules and what is in them."
    parts = [
        "# Reference",
        "All that the package offers, module by module. The pages are the notebooks that the modules are exported "
        "from: explanation, description of parameters, and examples with their results stand side by side. "
        "[All names in alphabetical order](symbols.md).",
    ]
    for title in GROUPS:
        members = [name for name in rooms(names) if group(name) == title]
        if members:
            parts.append(f"## {title}")
        for name in members:
            notebook, page = notebooks[name], page_name(name)
            rows = [[f"`{module_of(notebook)}.{n}`", cell(t)] for n, _, t in api.symbols(exported(notebook))]
            rows = [[f"{{py:obj}}{code[:1]}~{code[1:]}", text] for code, text in rows]
            short = (module_of(notebook) or "").removeprefix("petroscope.")
            parts += [f"### [{short}]({page})", title_and_promise(notebook)[1]]
            parts.append("{.names}\n" + api.table(["name", "what it is"], rows) if rows else "")
    return api.joined(*parts)


def symbols(names: list[str], notebooks: dict[str, dict]) -> str:
    "The page of all names in alphabetical order."
    found = []
    for name in rooms(names):
        module = module_of(notebooks[name])
        found += [(n, kind, module) for n, kind, _ in api.symbols(exported(notebooks[name]))]
    parts = ["# All names", "Every public class, function and constant of the package."]
    letters = sorted({n[0].upper() for n, _, _ in found})
    for letter in letters:
        rows = [
            [f"{{py:obj}}`~{module}.{n}`", kind, f"{{py:mod}}`{module[11:]} <{module}>`"]
            for n, kind, module in sorted(found, key=lambda row: (row[0].lower(), row[2]))
            if n[0].upper() == letter
        ]
        parts += [f"## {letter}", "{.names}\n" + api.table(["name", "kind", "module"], rows)]
    return api.joined(*parts)


def glossary_words(text: str) -> dict[str, tuple[str, list[str]]]:
    "Word -> what it means, and the forms in which texts use it, from a page that holds MyST glossaries."
    found = {}
    for block in re.findall(r"^`{3,}\{glossary\}\s*\n(.*?)^`{3,}", text, re.MULTILINE | re.DOTALL):
        for entry in re.split(r"\n\s*\n", block.strip("\n")):
            lines = [line for line in entry.split("\n") if not line.startswith(":")]
            terms = [line.strip() for line in lines if line and not line.startswith(" ")]
            meaning = " ".join(line.strip() for line in lines if line.startswith(" "))
            for term in terms:
                found[term] = (
                    re.sub(r"\[([^\]]*)\]\([^)]*\)|\{\w+\}`([^`<]*?)\s*(?:<[^>]*>)?`", r"\1\2", meaning),
                    forms(term),
                )
    return found


def forms(term: str) -> list[str]:
    "A word and its plural; none of a word that means this only in a context, which is told in brackets."
    if "(" in term:
        return []
    word = term
    if word.endswith(("s", "x", "ed")) or word.isupper() or " of " in word:
        return [word]
    return [word, word[:-1] + "ies" if word.endswith("y") and word[-2] not in "aeou" else word + "s"]


def book(names: list[str], notebooks: dict[str, dict]) -> dict:
    "What the links of tools/book/links.py need to know."
    pages = {docname(page_name(name)): notebooks[name] for name in names}
    glossary = ROOT / "docs" / "glossary.md"
    return {
        "modules": {name: module for name, notebook in pages.items() if (module := module_of(notebook))},
        "imports": {name: imports(notebook) for name, notebook in pages.items()},
        "words": glossary_words(glossary.read_text(encoding="utf-8")) if glossary.exists() else {},
        "glossary": "glossary",
    }


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
