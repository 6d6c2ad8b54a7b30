"""Notebooks run once: the result is kept under a key of the notebook and of the parts of the package that it uses.

What is kept lies in _proc/executed and may be deleted at any time.
"""

import ast
import functools
import hashlib
import json
import os
import platform
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

CACHE = "executed"
DIRECTIVE = re.compile(r"^#\|\s*(.*?)\s*$\n?", re.MULTILINE)


def left_out(code: str, flags: tuple[str, ...]) -> bool:
    "Whether a cell is not run: those that the tests leave out, and the one that exports."
    directives = DIRECTIVE.findall(code)
    words = {re.split(r"[\s:]", d)[0] for d in directives}
    return "nbdev_export()" in code or "eval: false" in directives or bool(words & set(flags))


def execute(path: Path, flags: tuple[str, ...]) -> dict:
    "The notebook with its outputs."
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and left_out(cell.source, flags):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "skip-execution"]
    resources = {"metadata": {"path": str(path.parent)}}
    quiet = ["--log-level=ERROR"]
    try:
        client = NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources=resources, extra_arguments=quiet
        )
        client.execute()
    except CellExecutionError as error:
        raise RuntimeError(f"{path.name} does not run:\n{error}") from None
    return json.loads(nbformat.writes(notebook))


# -- Keys -------------------------------------------------------------------------------------------------------------


@functools.cache
def imported(path: Path, package: Path) -> frozenset[Path]:
    "The package's files that a module imports anywhere in its code."
    return frozenset(modules(path.read_text(encoding="utf-8"), package, path))


def modules(code: str, package: Path, path: Path | None = None) -> set[Path]:
    "The package's files that `code` imports; `path` is its own file, for relative imports."
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".") if node.module else []
            if node.level and path:
                base = [package.name, *path.relative_to(package).parts[: -node.level], *base]
            names = [".".join(base), *(".".join([*base, alias.name]) for alias in node.names)]
        else:
            continue
        for parts in (name.split(".") for name in names):
            if parts[0] == package.name:
                files = [package.joinpath(*parts[1:]).with_suffix(".py"), package.joinpath(*parts[1:], "__init__.py")]
                found |= {file for file in files if file.is_file()}
    return found


def key(notebook: Path, package: Path) -> str:
    "What the outputs of a notebook depend on, in short."
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    code = [text for cell, text in zip(cells, sources) if cell["cell_type"] == "code"]
    todo, used = set(), set()
    for text in code:
        # Magics are no Python; a cell that holds one may import what it likes from the rest.
        lines = [line for line in text.splitlines() if not line.lstrip().startswith(("%", "!"))]
        try:
            todo |= modules("\n".join(lines), package)
        except SyntaxError:
            todo |= set(package.rglob("*.py"))
    while todo:
        file = todo.pop()
        used.add(file)
        todo |= imported(file, package) - used
    uses_weights = any(file.name == "resunet.py" for file in used)
    weights = sorted((package / "weights").glob("*.safetensors")) if uses_weights else []
    digest = hashlib.sha256(f"2 {platform.python_version()}".encode())
    for text in sources:
        digest.update(text.encode() + b"\0")
    for file in [*sorted(used), *sorted((package / "templates").glob("*")), *weights]:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:24]


# -- All of them ------------------------------------------------------------------------------------------------------


def kept_or_run(path: Path | None, original: Path, package: Path, cache: Path, flags: tuple[str, ...]) -> dict:
    "A notebook's outputs from the cache, or else by running its copy at `path`; without one it has none."
    entry = cache / f"{original.stem}-{key(path or original, package)}.json"
    if entry.exists():
        return json.loads(entry.read_text(encoding="utf-8"))
    if path is None:
        return json.loads(original.read_text(encoding="utf-8"))
    done = execute(path, flags)
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob(f"{original.stem}-*.json"):
        old.unlink(missing_ok=True)
    part = entry.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(done), encoding="utf-8")
    part.replace(entry)
    return done


def run_all(copies: list[Path], originals: list[Path], root: Path, flags: tuple[str, ...]) -> list[dict]:
    "All notebooks with their outputs, two at a time, in the order given."
    os.environ.pop("MPLBACKEND", None)  # one that draws into no page would leave the pages without figures
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    package, cache = root / "petroscope", root / "_proc" / CACHE
    with ProcessPoolExecutor(2) as pool:
        jobs = [pool.submit(kept_or_run, c, o, package, cache, flags) for c, o in zip(copies, originals)]
        return [job.result() for job in jobs]


def kept(originals: list[Path], root: Path) -> list[dict]:
    "All notebooks with the outputs that are in the cache, and without outputs where none are."
    package, cache = root / "petroscope", root / "_proc" / CACHE
    return [kept_or_run(None, original, package, cache, ()) for original in originals]
