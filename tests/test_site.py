"""The documentation site in a browser: a small one is built, served from here, and looked at page by page.

`make docs` fails where a link in a text leads nowhere; what only a browser can tell is held here.
"""

import functools
import http.server
import importlib.util
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import lab
import pytest

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = (390, 768, 1024, 1100, 1280, 1366, 1920)  # of telephones, tablets, and screens; at 1009 px the sidebar appears
NARROW = {"width": 390, "height": 844}
# What lies beyond the right edge of the window, unless something that scrolls by itself holds it.
CUT_OFF = """() => [...document.querySelectorAll('article, article *')].filter(e => {
    const edge = (node) => node.getBoundingClientRect().right > innerWidth + 1;
    if (!edge(e) || !e.getBoundingClientRect().width) return false;
    for (let p = e.parentElement; p; p = p.parentElement)
        if (['auto', 'scroll'].includes(getComputedStyle(p).overflowX)) return edge(p);
    return true;
}).map(e => `${e.tagName.toLowerCase()}.${e.className}`).slice(0, 3)"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "Address of the site; its pages hold the outputs that `make docs` has kept, and none where nothing was run."
    for module in ("sphinx", "myst_nb", "furo", "latex2mathml", "sphinx_copybutton", "torch"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'petroscope[docs]'")
    out = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, ROOT / "tools" / "build_docs.py", "--no-run", "--out", out]
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


def test_every_page_opens_and_fits_screens_of_every_width(site, page):
    todo, seen, wide, anchors, wanted = [site, f"{site}search.html"], set(), [], {}, {}
    while todo:
        address = todo.pop()
        if address in seen:
            continue
        page.goto(address)
        seen.add(address)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 844})
            scrolls = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            cut = page.evaluate(CUT_OFF)
            wide += [f"{address} at {width} px: {scrolls} px too wide, {cut}"] if scrolls > 0 or cut else []
        missing = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
        assert not missing, f"{address}: pictures that do not show: {missing}"
        anchors[address] = set(page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)"))
        links = {urldefrag(link) for link in page.evaluate("[...document.links].map(link => link.href)")}
        wanted |= dict.fromkeys(links, address)
        todo += [link.url for link in links if link.url.startswith(site) and link.url.endswith(".html")]
    lost = [
        link
        for link in wanted
        if link.url in seen and link.fragment and unquote(link.fragment) not in anchors[link.url]
    ]
    assert not lost, [f"{wanted[link]} leads to {link.url}#{link.fragment}, which is not there" for link in lost]
    pages = {urlsplit(address).path for address in seen}
    for name in ("start", "tutorials", "reference", "symbols", "glossary", "benchmarks", "ablations", "changelog"):
        assert f"/{name}.html" in pages, f"{name} cannot be reached from the front page"
    assert "/models/s1v1.html" in pages and "/segmentation/masks.html" in pages
    assert not wide, "pages that are cut off at the right:\n" + "\n".join(wide)
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


def test_the_repository_and_every_notebook_can_be_had(site, page):
    "Each page of a notebook offers the notebook as it lies in the project, and its place in the repository."
    for name, source in {"tutorials/own_model": "tutorials/own_model.ipynb", "io/images": "io/03_images.ipynb"}.items():
        page.goto(f"{site}{name}.html")
        assert page.locator("a.repository").get_attribute("href").startswith("https://github.com/")
        link = page.locator("p.about a.download")
        got = page.request.get(urljoin(page.url, link.get_attribute("href")))
        assert got.body() == (ROOT / "nbs" / source).read_bytes() and link.get_attribute("href").endswith(".ipynb")
        assert page.locator("p.about a", has_text="repository").get_attribute("href").endswith(f"/nbs/{source}")


def test_code_is_copied_as_it_runs_and_outputs_have_no_button(site, browser):
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        page.goto(f"{site}segmentation/masks.html")
        cell = page.locator("div.cell_input div.highlight").first
        cell.hover()
        cell.locator("button.copybtn").click()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.strip() == cell.locator("pre").text_content().strip() != ""
        assert page.locator("div.output button.copybtn").count() == 0
        page.goto(f"{site}start.html")
        command = page.locator("div.highlight", has_text="pip install").first
        command.hover()
        command.locator("button.copybtn").click()
        assert page.evaluate("navigator.clipboard.readText()").strip() == command.locator("pre").text_content().strip()


def test_the_sidebar_names_the_modules(site, page):
    page.goto(f"{site}segmentation/masks.html")
    page.set_viewport_size({"width": 1366, "height": 844})
    rooms = page.locator(".sidebar-tree a:has(code.room)")
    told = {link.get_attribute("href"): link.locator("code").text_content() for link in rooms.all()}
    assert told["#"] == "masks" and told["classes.html"] == "classes" and told["../io/images.html"] == "images"
    assert "\N{EM SPACE}" not in page.locator(".sidebar-tree").inner_text()
    assert page.locator("p.about code.module").inner_html() == "petroscope.segmentation.masks", "a link within"


def test_what_is_private_is_folded_and_a_link_into_it_unfolds_it(site, page):
    page.set_viewport_size({"width": 1366, "height": 844})
    page.goto(f"{site}io/images.html")
    fold = page.locator("details.inner:has(> summary:text-is('Internals: Pixels out of bytes'))")
    inside = fold.locator("p").first
    assert fold.locator("summary").first.is_visible() and not inside.is_visible()
    assert "Pixels out of bytes" not in page.locator(".toc-drawer").inner_text()
    assert "read_image" in page.locator(".toc-drawer").inner_text()
    page.goto(f"{site}io/images.html#pixels-out-of-bytes")
    assert inside.is_visible()
    # What is public is never within a fold.
    for name in ("io/images", "io/store", "panorama/refine", "analysis/polygons"):
        page.goto(f"{site}{name}.html")
        assert page.locator("details.inner").count() and not page.locator("details.inner dl.py").count(), name
