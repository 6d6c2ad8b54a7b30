"""Notebooks run once: jupyter-cache keeps their outputs in _proc/executed, which may be deleted at any time.

A notebook is run again when its code has changed, or the code of a module that it uses, however indirectly.
"""

import hashlib
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution

from .pages import CFG, PACKAGE, ROOT, all_code, exported, needs, uses, words


def data_of(package: Path) -> bytes:
    "What a notebook may use and none exports: weights, templates, scripts, and the packages' own files."
    files = [
        file
        for file in sorted(package.rglob("*.*"))
        if file.suffix not in (".py", ".pyc") or file.name == "__init__.py"
    ]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).digest()


def prepared(name: str, notebooks: dict[str, dict], needed: set[str], data: bytes = b"") -> dict:
    "The notebook as it is run: cells that tests leave out are skipped, and the first one says what it depends on."
    notebook, digest = deepcopy(notebooks[name]), hashlib.sha256(platform.python_version().encode() + data)
    for other in sorted(needed - {name}):
        digest.update("\n".join(exported(notebooks[other])).encode())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    cells[0]["metadata"]["depends"] = digest.hexdigest()
    for cell in cells:
        told = words(cell)
        left_out = told.keys() & {*CFG["tst_flags"].split()} or told.get("eval") == "eval: false"
        if left_out or "nbdev_export()" in cell["source"]:
            cell["metadata"]["tags"] = ["skip-execution"]
    return notebook


def with_outputs(notebooks: dict[str, dict], run: bool) -> dict[str, dict]:
    "The notebooks with their outputs: kept ones, or those of a run, two at a time; without `run` only those kept."
    os.environ.pop("MPLBACKEND", None)  # one that draws into no page would leave the pages without figures
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    cache, data = get_cache(ROOT / "_proc" / "executed"), data_of(ROOT / PACKAGE)
    tried, used = uses(notebooks, all_code), uses(notebooks)
    cache.list_cache_records()  # makes the data base, which two threads must not do at once

    def outputs(name: str) -> dict:
        notebook = prepared(name, notebooks, needs(tried[name], used), data)
        try:
            return cache.merge_match_into_notebook(notebook)[1]
        except KeyError:
            if not run:
                return notebook
        quiet = {"timeout": 300, "allow_errors": False, "extra_arguments": ["--log-level=ERROR"]}
        with TemporaryDirectory() as folder:
            result = single_nb_execution(notebook, cwd=folder, **quiet)
        if result.err:
            raise RuntimeError(f"{name} does not run:\n{result.err}")
        cache.cache_notebook_bundle(CacheBundleIn(result.nb, name), check_validity=False, overwrite=True)
        return result.nb

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(notebooks, pool.map(outputs, notebooks), strict=True))
