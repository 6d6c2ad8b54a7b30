"""The documentation site in a browser: a small one is built, served from here, and looked at page by page.

`make docs` checks every link of the whole site; what only a browser can tell is held here.
"""

import functools
import http.server
import importlib.util
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

import lab
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = "segmentation/masks,segmentation/classes,tutorials/segm_resunet_inference"
NARROW = {"width": 390, "height": 844}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "Address of a small site, whose notebooks were not run."
    for module in ("sphinx", "myst_nb", "furo", "latex2mathml"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'petroscope[docs]'")
    out = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, ROOT / "tools" / "build_docs.py", "--no-run", "--only", PAGES, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(out)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not lab.CHROMIUM:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    with lab.chromium() as chromium:
        yield chromium


@pytest.fixture
def page(browser):
    "A narrow page that keeps account of what went wrong and what was asked for."
    with browser.new_context(viewport=NARROW) as context:
        page = context.new_page()
        page.wrong, page.asked = [], []
        page.on("console", lambda said: page.wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("response", lambda got: page.wrong.append(f"{got.status}: {got.url}") if got.status >= 400 else None)
        yield page


def test_every_page_opens_on_a_narrow_screen(site, page):
    todo, seen = [site], {}
    while todo:
        address = todo.pop()
        if address in seen:
            continue
        page.goto(address)
        seen[address] = page.evaluate("document.documentElement.scrollWidth")
        missing = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
        assert not missing, f"{address}: pictures that do not show: {missing}"
        links = {urldefrag(link)[0] for link in page.evaluate("[...document.links].map(link => link.href)")}
        todo += [link for link in links if link.startswith(site) and link.endswith(".html")]
    pages = {urlsplit(address).path for address in seen}
    for name in ("start", "tutorials", "reference", "symbols", "glossary", "benchmarks", "ablations", "changelog"):
        assert f"/{name}.html" in pages, f"{name} cannot be reached from the front page"
    assert "/models/s1v1.html" in pages and "/segmentation/masks.html" in pages
    wide = {address: width for address, width in seen.items() if width > NARROW["width"]}
    assert not wide, f"pages that scroll sideways: {wide}"
    hosts = {urlsplit(url).netloc for url in page.asked if not url.startswith("data:")}
    assert hosts == {urlsplit(site).netloc}
    assert page.wrong == []


@pytest.mark.parametrize("word, found", [("void_borders", "segmentation/masks.html"), ("galena", "glossary.html")])
def test_search_finds(site, page, word, found):
    page.goto(f"{site}search.html?q={word}")
    page.wait_for_function("document.querySelectorAll('#search-results .search li a').length > 0", timeout=10_000)
    links = page.evaluate("[...document.querySelectorAll('#search-results .search li a')].map(link => link.href)")
    assert any(found in link for link in links), links
    assert page.wrong == []


def test_names_and_words_lead_to_what_they_mean(site, page):
    page.goto(f"{site}segmentation/masks.html")
    kind = page.locator("table code.linked a", has_text="ClassSet").first
    assert kind.get_attribute("href").endswith("classes.html#petroscope.segmentation.classes.ClassSet")
    assert "glossary.html#term-" in page.locator("a.word").first.get_attribute("href")
