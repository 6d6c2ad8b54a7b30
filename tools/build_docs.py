"""Build the documentation site from the notebooks: make docs, or python tools/build_docs.py

1. Execute copies of the notebooks, so that the pages hold their figures. What ran before and has not changed is taken
   from _proc/executed.
2. Rewrite each copy as a page: what is exported as entries with a table of parameters and of errors, the source folded;
   no cells that only nbdev needs; links to other notebooks as links to their pages. Front page, gallery, reference and
   index of names are written from what the notebooks hold; texts come from docs/, the model cards and the changelog.
3. Run Sphinx, which links the package's names and the glossary's words wherever they are written.
4. Check the site: every link and anchor, that every page can be reached, and that none asks another host for anything.

The site is written to _docs/, the pages' sources to _site_src/. Nothing else is changed, and no network is needed.
"""

import argparse
import posixpath
import shutil
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from book import check, execute, pages, pictures  # noqa: E402

ROOT = pages.ROOT


def settings() -> dict:
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def chosen(only: str | None) -> list[str]:
    "The notebooks to build, all or those named; the index is always among them."
    names = pages.notebooks()
    if only is None:
        return names
    wanted = {"index", *only.split(",")}
    known = {pages.docname(pages.page_name(name)): name for name in names} | {"index": "index.ipynb"}
    if unknown := sorted(wanted - known.keys()):
        raise RuntimeError(f"--only: no page {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [name for name in names if name in {known[word] for word in wanted}]


def read_notebooks(names: list[str], run: bool, flags: tuple[str, ...]) -> dict[str, dict]:
    "The notebooks by name, executed in a throw-away copy."
    originals = [ROOT / "nbs" / name for name in names]
    if not run:
        return dict(zip(names, execute.kept(originals, ROOT)))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "nbs"
        shutil.copytree(ROOT / "nbs", copy)
        done = execute.run_all([copy / name for name in names], originals, ROOT, flags)
    return dict(zip(names, done))


def write_pages(sources: Path, names: list[str], run: bool, cfg: dict) -> None:
    "The sources of all pages."
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir(parents=True)
    notebooks = read_notebooks(names, run, tuple(cfg["tst_flags"].split()))
    texts = pages.texts()
    there = {*(pages.page_name(name) for name in names), *texts.values(), *pages.WRITTEN}
    for name, notebook in notebooks.items():
        pages.write_json(sources / pages.page_name(name), pages.page(notebook, f"nbs/{name}", cfg, there))
        original = sources / pages.ORIGINALS / name
        original.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "nbs" / name, original)
    thumbnails = pictures.write_thumbnails(sources / "thumbnails", notebooks)
    pictures.hero(sources / "hero.jpg")
    shutil.copytree(ROOT / pages.PICTURES, sources / pages.PICTURES)
    made = {
        "tutorials.md": pages.gallery(names, notebooks, thumbnails),
        "reference.md": pages.reference(names, notebooks),
        "symbols.md": pages.symbols(names, notebooks),
    }
    for source, page in texts.items():
        made[page] = pages.relink((ROOT / source).read_text(encoding="utf-8"), source, cfg, there)
    made["index.md"] += "\n\n" + pages.contents(names, list(texts.values()), notebooks)
    for page, text in made.items():
        target = sources / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text + "\n", encoding="utf-8")
    pages.write_json(sources / "book.json", pages.book(names, notebooks))


def run_sphinx(sources: Path, site: Path) -> int:
    "The site from the pages' sources; any warning of Sphinx is a failure, and the site can be looked at nevertheless."
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    # Doctrees, and the pictures that MyST-NB lays beside the site, are of no use to a reader: both stay in here.
    with tempfile.TemporaryDirectory() as work:
        made = Path(work) / "site"
        done = subprocess.run([*command, "-c", ROOT / "docs", "-d", Path(work) / "trees", sources, made])
        if not (made / "search.html").exists():
            return done.returncode or 1
        shutil.rmtree(site, ignore_errors=True)
        shutil.move(made, site)
    (site / ".nojekyll").touch()
    return done.returncode


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-run", action="store_true", help="run nothing: outputs only where they were kept")
    parser.add_argument("--only", metavar="PAGES", help="build these notebooks alone, e.g. segmentation/masks,images")
    parser.add_argument("--out", type=Path, default=ROOT / "_docs", help="where the site goes (default: _docs)")
    args = parser.parse_args(argv)
    if find_spec("sphinx") is None:
        sys.exit("petroscope: the site is built by Sphinx, which is not installed: pip install 'petroscope[docs]'")
    # A site that is built elsewhere leaves the sources of the usual one alone.
    usual = args.out.resolve() == ROOT / "_docs"
    sources = ROOT / "_site_src" if usual else args.out.resolve().with_name(args.out.name + "_src")
    try:
        write_pages(sources, chosen(args.only), not args.no_run, settings())
    except RuntimeError as error:
        sys.exit(f"petroscope: {error}")
    failed = run_sphinx(sources, args.out)
    if not args.out.exists():
        return failed
    faults = check.faults(args.out)
    for line in faults:
        print(f"petroscope: {line}", file=sys.stderr)
    print(f"The site is in {args.out}; open {posixpath.join(args.out, 'index.html')}")
    return failed or int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
