"The documentation site's sources: every notebook becomes a page, and signatures become tables."

import ast
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FUNCTION = """def void_borders(
    mask: np.ndarray,      # Class codes, `(H, W)` uint8
    radius: int | None,    # Half-width, in pixels
    *others: np.ndarray,
    value: int = 255,      # What is written
) -> np.ndarray:           # A copy
    "Void the borders."
    if radius < 0:
        raise ValueError(f"radius must be >= 0, got {radius} for {len(mask)} rows")
    return _checked(mask)


def _checked(mask):
    if mask.ndim != 2:
        raise TypeError("mask must be " + "flat")
    return mask"""
CLASS = """@dataclass
class Mineral:
    "A mineral class."
    code: int          # In the mask
    label: str = "BG"  # Short

    @property
    def short(self) -> str:
        "The label."
        return self.label

    def matches(self, code: int) -> bool:
        "Whether it is of this code."
        return code == self.code

    def _hidden(self): ..."""


@pytest.fixture(scope="module")
def book():
    "The parts of the build, which lie beside the package and not in it."
    sys.path.insert(0, str(ROOT / "tools"))
    from book import api, check, execute, pages, pictures

    parts = {"api": api, "check": check, "execute": execute, "pages": pages, "pictures": pictures}
    yield type("Book", (), parts)
    sys.path.remove(str(ROOT / "tools"))


def code_cell(source, outputs=()):
    return {"cell_type": "code", "metadata": {}, "outputs": list(outputs), "source": source}


def test_a_function_becomes_an_entry(book):
    text = book.api.entries(FUNCTION)
    assert text.startswith("```{py:function} void_borders(mask, radius, *others, value=255)\n\nVoid the borders.")
    assert "| `mask` | `np.ndarray` |  | Class codes, `(H, W)` uint8 |" in text
    assert "| `radius` | `int \\| None` |  | Half-width, in pixels |" in text
    assert "| `value` | `int` | `255` | What is written |" in text
    assert "| *returns* | `np.ndarray` |  | A copy |" in text
    assert f"```python\n{FUNCTION}\n```" in text


def test_errors_are_told_with_their_messages(book):
    text = book.api.entries(FUNCTION)
    assert "| `ValueError` | radius must be \\>= 0, got ‹radius› for … rows |" in text
    assert "| `TypeError` | mask must be flat |" in text, (
        "a private function's error reaches the caller of the public one"
    )
    assert book.api.errors(ast.parse("def f():\n    raise").body[0], {}) == []
    said = ast.parse("def f():\n    raise SystemExit(f())\n    raise ValueError(text)").body[0]
    assert book.api.errors(said, {}) == [], "nothing to tell without words"


def test_a_class_becomes_fields_and_methods(book):
    text = book.api.entries(CLASS)
    assert "{py:class} Mineral\n" in text
    assert "| `code` | `int` |  | In the mask |" in text and "| `label` | `str` | `'BG'` | Short |" in text
    assert "```{py:property} Mineral.short\n:type: str\n" in text
    assert "```{py:method} Mineral.matches(code)\n\nWhether" in text and "| *returns* | `bool` |" in text
    assert "} Mineral._hidden" not in text


def test_a_directive_has_more_ticks_than_what_it_holds(book):
    inner = book.api.fence("py:method", "a()", "```python\nx\n```")
    assert inner.startswith("````{py:method} a()") and inner.endswith("\n````")
    assert book.api.fence("py:class", "A", inner).startswith("`````{py:class} A")


def test_what_says_nothing_is_left_out(book):
    text = book.api.entries('def f() -> int:\n    "One."\n    return 1')
    assert text.count("|") == 0 and "{py:function} f() -> int" in text
    text = book.api.entries('def f(\n    a: int,  # First\n):\n    "None."')
    assert "| parameter | type | meaning |" in text and "| `a` | `int` | First |" in text


def test_imports_are_left_out_and_constants_shown(book):
    assert book.api.entries("import numpy as np\nfrom pathlib import Path") == ""
    lead = "try:\n    import torch\nexcept ImportError as error:\n    raise ImportError('no torch') from error\n"
    lead += "if TYPE_CHECKING:\n    from matplotlib.figure import Figure\nlog = logging.getLogger(__name__)\n"
    assert book.api.entries(lead) == "" and book.api.symbols([lead]) == []
    assert "FORMAT" in book.api.entries(lead + "FORMAT = 1")
    assert book.api.entries("VOID = 255  # Never a class") == "```{py:data} VOID\n:value: 255\n\nNever a class\n```"
    long = book.api.entries("# What is drawn\nTABLE = " + repr(dict.fromkeys(range(20), "a")))
    assert "What is drawn" in long and "```python\n# What is drawn\nTABLE" in long


def test_cells_of_nbdev_are_left_out(book):
    def page(source, outputs=()):
        return book.pages.page_cells(code_cell(source, outputs), "nbs/io/03_images.ipynb", {}, {})

    assert page("#| hide\nimport os") == [] and page("x")[0]["source"] == "x"
    assert "{py:module} petroscope.io.images" in page("#| default_exp io.images")[0]["source"]
    (silent,) = page("#| echo: false\nplot()")
    assert silent["source"] == "plot()" and silent["metadata"]["tags"] == ["remove-input"]


def test_widgets_become_a_note(book):
    def output(text):
        data = {"text/plain": text, "application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
        return {"output_type": "display_data", "metadata": {}, "data": data}

    def page(text):
        return book.pages.page_cells(code_cell("show()", [output(text)]), "nbs/io/03_images.ipynb", {}, {})

    shown, note = page("Viewer()")
    assert shown["outputs"] == [] and "JupyterLab" in note["source"]
    assert len(page("  0%|          | 0/10")) == 1, "a bar of progress is no loss"


def text_cell(text):
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def test_a_section_about_private_parts_alone_is_folded(book):
    private, public = code_cell("#| export\n_A = 1\n\n\ndef _f(): ..."), code_cell("#| export\ndef g(): ...")
    cells = [text_cell("# T"), text_cell("## How?\n\nSo."), private, text_cell("### More"), code_cell("_f()")]
    cells += [text_cell("## What"), private, text_cell("### Of g"), public, text_cell("## Bad input"), code_cell("g()")]
    made = [book.pages.source(cell) for cell in book.pages.fold_inner(cells)]
    assert made[1].startswith('<details class="inner"><summary>Internals: How?</summary>') and 'id="how"' in made[1]
    assert made[2:7] == ["So.", book.pages.source(private), "**More**", "_f()", "</details>"]
    assert made[7:] == [book.pages.source(cell) for cell in cells[5:]], "what is public stays as it is"


def test_a_private_part_of_a_public_section_is_folded_by_itself(book):
    private, public = code_cell("#| export\n_A: int = 1"), code_cell("#| export\nB = 2")
    cells = [text_cell("## Public"), public, text_cell("### Inner"), private, text_cell("### Outer"), public]
    made = [book.pages.source(cell) for cell in book.pages.fold_inner(cells)]
    assert made[0] == "## Public" and "Internals: Inner" in made[2] and made[4:6] == ["</details>", "### Outer"]


def test_a_page_says_which_module_it_is_and_where_its_notebook_lies(book):
    cfg = {"git_url": "https://github.com/khvostikov/petroscope", "branch": "main"}
    cells = [text_cell("# Masks\n\n> All about them."), code_cell("#| default_exp segmentation.masks")]
    page = book.pages.page({"cells": cells, "metadata": {}}, "nbs/segmentation/02_masks.ipynb", cfg)
    line = page["cells"][1]["source"]
    assert ">petroscope.segmentation.masks</code>" in line and "</notebooks/segmentation/02_masks.ipynb>" in line
    assert "(https://github.com/khvostikov/petroscope/blob/main/nbs/segmentation/02_masks.ipynb)" in line
    entry = book.pages.entry("segmentation/02_masks.ipynb", {"cells": cells})
    assert entry == "Masks\N{EM SPACE}masks <segmentation/masks>"


def test_every_tutorial_has_one_picture_for_the_gallery(book):
    for name in book.pages.tutorial_order(book.pages.notebooks()):
        cells = json.loads((ROOT / "nbs" / name).read_text(encoding="utf-8"))["cells"]
        marks = [word["thumbnail"] for word in map(book.pages.words, cells) if "thumbnail" in word]
        assert len(marks) == 1, f"{name}: the one cell that shows what it reaches begins with #| thumbnail"
        assert book.pictures.MARK.fullmatch(marks[0]), f"{name}: {marks[0]}"


def test_the_marked_figure_is_the_thumbnail(book):
    import base64

    import cv2
    import numpy as np

    def shown(color, source):
        data = base64.b64encode(cv2.imencode(".png", np.full((300, 480, 3), color, np.uint8))[1]).decode()
        output = {"output_type": "display_data", "data": {"image/png": data}, "metadata": {}}
        return code_cell(source, [output])

    # The one that is not marked is the livelier.
    cells = [shown((40, 200, 30), "show()"), shown((90, 90, 90), "#| thumbnail\nshow()")]
    assert (book.pictures.thumbnail({"cells": cells}) == 90).all()
    assert book.pictures.thumbnail({"cells": [code_cell("1")]}) is None
    figure = np.full((200, 450, 3), 255, np.uint8)
    figure[20:180, 20:200], figure[20:180, 240:420] = 50, (10, 200, 90)
    for mark, color in {"thumbnail: 1": (50,) * 3, "thumbnail: 2": (10, 200, 90), "thumbnail": (10, 200, 90)}.items():
        assert (book.pictures.chosen_panel(mark, figure)[80, 90] == color).all()
    for wrong in ("thumbnail: 3", "thumbnail: left"):
        with pytest.raises(RuntimeError, match=r"expected `#\| thumbnail: 1` to 2"):
            book.pictures.chosen_panel(wrong, figure)


def test_links_lead_to_pages(book):
    cfg = {"git_url": "https://github.com/khvostikov/petroscope", "branch": "main"}
    text = (
        "[a](io/03_images.ipynb) [b](../CONTRIBUTING.md#tests) [c](../LICENSE) [d](https://example.org/x.ipynb) "
        "[e](#here)"
    )
    expected = (
        "[a](io/images.ipynb) [b](contributing.md#tests) "
        "[c](https://github.com/khvostikov/petroscope/blob/main/LICENSE) [d](https://example.org/x.ipynb) [e](#here)"
    )
    assert book.pages.relink(text, "nbs/index.ipynb", cfg) == expected
    assert (
        book.pages.relink("[a](../io/03_images.ipynb)", "nbs/segmentation/10_x.ipynb", cfg) == "[a](../io/images.ipynb)"
    )
    left = book.pages.relink("[a](io/03_images.ipynb)", "nbs/index.ipynb", cfg, there=set())
    assert left == "[a](https://github.com/khvostikov/petroscope/blob/main/nbs/io/03_images.ipynb)"


def test_every_notebook_becomes_a_page_and_is_in_the_contents(book):
    names = book.pages.notebooks()
    cfg = {"git_url": "", "branch": ""}
    notebooks = {name: json.loads((ROOT / "nbs" / name).read_text(encoding="utf-8")) for name in names}
    contents = book.pages.contents(names, [], notebooks) + book.pages.gallery(names, notebooks, set())
    for name, notebook in notebooks.items():
        assert book.pages.page(notebook, f"nbs/{name}", cfg)["cells"], name
        listed = book.pages.docname(book.pages.page_name(name))
        assert f"\n{listed}\n" in contents or f"<{listed}>" in contents, f"{name}: its folder has no contents"


def test_every_tutorial_is_in_the_gallery_once_and_in_order(book):
    names = [
        "tutorials/zebra.ipynb",
        "tutorials/section_analysis.ipynb",
        "tutorials/getting_started.ipynb",
        "index.ipynb",
    ]
    ordered = book.pages.tutorial_order(names)
    assert [name.split("/")[1] for name in ordered] == [
        "getting_started.ipynb",
        "section_analysis.ipynb",
        "zebra.ipynb",
    ]


def test_the_glossary_is_read(book):
    words = book.pages.glossary_words((ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"))
    assert len(words) >= 45 and "PbS" in words["galena"][0]
    assert words["panorama"][1] == ["panorama", "panoramas"] and words["code (of a class)"][1] == []
    assert all(meaning for meaning, _ in words.values())


def test_a_notebook_is_run_again_only_when_something_that_it_uses_has_changed(book, tmp_path):
    package, notebook = tmp_path / "petroscope", tmp_path / "a.ipynb"
    (package / "part").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "one.py": "from .two import x",
        "two.py": "x = 1",
        "other.py": "",
        "part/__init__.py": "",
    }
    for name, text in files.items():
        (package / name).write_text(text)
    notebook.write_text(json.dumps({"cells": [code_cell("from petroscope.one import x")]}))

    def key():
        book.execute.imported.cache_clear()
        return book.execute.key(notebook, package)

    first = key()
    (package / "other.py").write_text("y = 2")
    assert key() == first
    (package / "two.py").write_text("x = 2")
    assert key() != first


def site(folder, **pages):
    for name, text in {"index": '<a href="a.html">a</a>', **pages}.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


def test_broken_links_are_named_with_their_page(book, tmp_path):
    assert (
        book.check.faults(site(tmp_path, a='<p id="here">a</p><a href="index.html">b</a><a href="#here">c</a>')) == []
    )
    site(
        tmp_path,
        a='<a href="b.html">b</a><a href="index.html#there">c</a><img src="d.png"><a href="https://example.org">e</a>',
    )
    assert book.check.broken_links(tmp_path) == [
        "a.html: b.html: there is no such file",
        "a.html: d.png: there is no such file",
        "a.html: index.html#there: there is no such anchor",
    ]


def test_a_page_that_nothing_leads_to_is_found(book, tmp_path):
    assert book.check.unreachable(site(tmp_path, a="a", lost="b")) == ["lost.html"]


def test_a_request_to_another_host_is_found(book, tmp_path):
    site(tmp_path, a='<a href="https://example.org">a</a><script src="local.js"></script>')
    assert book.check.foreign_requests(tmp_path) == []
    site(
        tmp_path,
        b='<script async src="https://example.org/x.js"></script><link rel="stylesheet" href="//example.org/a.css">',
    )
    (tmp_path / "c.css").write_text(
        "@import 'https://example.org/f.css'; body { background: url(//example.org/i.png) }"
    )
    assert len(book.check.foreign_requests(tmp_path)) == 4


def test_settings_of_the_site_parse():
    ast.parse((ROOT / "docs" / "conf.py").read_text(encoding="utf-8"))
