"""Build the documentation site from the notebooks: make docs, or python tools/build_docs.py

1. Run copies of the notebooks, so that the pages hold their figures. Outputs of what has not changed are taken from
   _proc/executed.
2. Write the notebooks as pages: what is exported as entries, the source folded; no cells that only nbdev needs; links
   to other notebooks as links to their pages. Lists of pages are written from what the notebooks hold, and texts come
   from docs/, the model cards and the changelog.
3. Run Sphinx: MyST-NB reads the pages, autodoc fills the entries, and the package's names and the glossary's words are
   linked wherever they are written. Any warning is a failure: a link or an anchor that leads nowhere, a page that
   nothing leads to.

The site is written to _docs/, the pages' sources to _site_src/. Nothing else is changed, and no network is needed.
"""

import argparse
import re
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parent))


def write_pages(sources: Path, run: bool) -> None:
    "The sources of all pages."
    from book import execute, pages, pictures

    shutil.rmtree(sources, ignore_errors=True)
    shutil.copytree(pages.ROOT / "nbs", sources / pages.ORIGINALS)
    shutil.copytree(pages.ROOT / pages.PICTURES, sources / pages.PICTURES)
    notebooks = execute.with_outputs(pages.read_notebooks(), run)
    thumbnails = pictures.write_thumbnails(sources / "thumbnails", notebooks)
    pictures.hero(sources / "hero.jpg")
    lists = {
        "contents": pages.contents(notebooks),
        "gallery": pages.gallery(notebooks, thumbnails),
        "reference": pages.reference(notebooks),
        "names": pages.names(notebooks),
    }
    made = {pages.page_name(name): nbformat.writes(pages.page(nb, name)) for name, nb in notebooks.items()}
    for path, page in pages.texts().items():
        text = pages.relink((pages.ROOT / path).read_text(encoding="utf-8"), path)
        # A line `% names` stands for the list of that name; to MyST it is a comment.
        made[page] = re.sub(rf"^% ({'|'.join(lists)})$", lambda match: lists[match[1]], text, flags=re.MULTILINE)
    for page, text in made.items():
        target = sources / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def run_sphinx(sources: Path, site: Path) -> int:
    "The site from the pages' sources; one with warnings can be looked at nevertheless."
    from sphinx.cmd.build import main as sphinx

    # Doctrees, and the pictures that MyST-NB lays beside the site, are of no use to a reader: both stay in here.
    with tempfile.TemporaryDirectory() as work:
        made, conf = Path(work) / "site", Path(__file__).resolve().parent.parent / "docs"
        failed = sphinx(["-q", "-W", "--keep-going", "-c", f"{conf}", "-d", f"{work}/trees", f"{sources}", f"{made}"])
        if (made / "search.html").exists():
            shutil.rmtree(site, ignore_errors=True)
            shutil.move(made, site)
            (site / ".nojekyll").touch()
            print(f"The site is in {site}; open {site / 'index.html'}")
    return failed


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-run", action="store_true", help="run nothing: outputs only where they were kept")
    parser.add_argument("--out", type=Path, default=Path("_docs"), help="where the site goes (default: _docs)")
    args = parser.parse_args(argv)
    if find_spec("sphinx") is None:
        sys.exit("petroscope: the site is built by Sphinx, which is not installed: pip install 'petroscope[docs]'")
    # A site that is built elsewhere leaves the sources of the usual one alone.
    sources = args.out.with_name("_site_src" if args.out.name == "_docs" else args.out.name + "_src")
    try:
        write_pages(sources, not args.no_run)
    except RuntimeError as error:
        sys.exit(f"petroscope: {error}")
    return run_sphinx(sources, args.out)


if __name__ == "__main__":
    sys.exit(main())
