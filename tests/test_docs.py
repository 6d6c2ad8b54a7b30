"The documentation site's sources: every notebook becomes a page, and comments of parameters become tables."

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FUNCTION = """import numpy as np


def void_borders(
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
CLASS = """from dataclasses import dataclass


@dataclass
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
    pytest.importorskip("myst_nb", reason="the site builder is not installed: pip install 'petroscope[docs]'")
    sys.path.insert(0, str(ROOT / "tools"))
    from book import api, execute, links, markdown, pages, pictures

    parts = (api, execute, links, markdown, pages, pictures)
    yield type("Book", (), {part.__name__.removeprefix("book."): part for part in parts})
    sys.path.remove(str(ROOT / "tools"))


@pytest.fixture
def module(tmp_path, monkeypatch):
    "A module of its own from a source."

    def load(source):
        name = f"made_{len(source)}"
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, tmp_path / f"{name}.py")
        monkeypatch.setitem(sys.modules, name, made := importlib.util.module_from_spec(spec))
        spec.loader.exec_module(made)
        return made

    return load


def code_cell(source, outputs=()):
    return {"cell_type": "code", "metadata": {}, "outputs": list(outputs), "source": source}


def text_cell(text):
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def notebook(*cells):
    return {"cells": list(cells), "metadata": {}}


def test_comments_of_parameters_become_a_table(book, module):
    text = book.api.described("function", module(FUNCTION).void_borders, "")
    assert text.startswith("Void the borders.\n\n| parameter |")
    assert "| `mask` | `np.ndarray` |  | Class codes, `(H, W)` uint8 |" in text
    assert "| `radius` | `int \\| None` |  | Half-width, in pixels |" in text
    assert "| `*others` | `np.ndarray` |  |  |" in text
    assert "| `value` | `int` | `255` | What is written |" in text
    assert "| *returns* | `np.ndarray` |  | A copy |" in text


def test_what_help_appends_to_a_docstring_is_not_told_twice(book, module):
    function = module(FUNCTION).void_borders
    function.__doc__ += "\n\nParameters\n----------\nmask : np.ndarray\n    Class codes"
    assert book.api.described("function", function, function.__doc__).startswith("Void the borders.\n\n| parameter |")


def test_what_says_nothing_is_left_out(book, module):
    assert book.api.described("function", module('def f() -> int:\n    "One."\n    return 1').f, "") == "One."
    text = book.api.described("function", module('def f(\n    a: int,  # First\n):\n    "None."').f, "")
    assert "| parameter | type | meaning |" in text and "| `a` | `int` | First |" in text


def test_a_comment_speaks_of_the_last_parameter_on_its_line(book, module):
    made = module('def f(a: str = "#", b: int = 2) -> int:  # Second\n    "One."\n    return b')
    text = book.api.described("function", made.f, "")
    assert "| `a` | `str` | `'#'` |  |" in text and "| `b` | `int` | `2` | Second |" in text
    assert "| *returns* | `int` |  |  |" in text


def test_errors_are_told_with_their_messages(book, module):
    made = module(FUNCTION)
    text = book.api.described("function", made.void_borders, "")
    assert "| `ValueError` | radius must be \\>= 0, got ‹radius› for … rows |" in text
    assert "| `TypeError` | mask must be flat |" in text, (
        "a private function's error reaches the caller of the public one"
    )
    said = "def f():\n    raise SystemExit(f())\n    raise ValueError(text)\n    raise\n\n\n"
    said += "def g():\n    g()\n    return check_size()\n\n\ndef check_size():\n    raise ValueError('too small')"
    assert book.api.errors(module(said).f, set()) == [], "nothing to tell without words"
    assert book.api.errors(module(said).g, set()) == [["ValueError", "too small"]], "a check's error is its caller's"


def test_a_class_becomes_fields_and_methods(book, module):
    mineral = module(CLASS).Mineral
    text = book.api.described("class", mineral, "")
    assert text.startswith("A mineral class.\n\n| field |")
    assert "| `code` | `int` |  | In the mask |" in text and "| `label` | `str` | `'BG'` | Short |" in text
    assert book.api.described("property", mineral.short, "") == "The label."
    assert "| `code` | `int` | |" not in book.api.described("method", mineral.matches, "")
    assert book.api.call_only(None, "class", "", mineral, None, "(code, label)", None) == ("", None)
    assert book.api.call_only(None, "method", "", mineral.matches, None, "(code: int)", "bool") == ("(code)", None)


def test_an_exported_cell_asks_autodoc_for_what_is_public(book):
    code = FUNCTION.partition("\n\n\n")[2]
    text = book.pages.entries(code, "petroscope.segmentation.masks")
    assert text.startswith("```{rst}\n\n.. autofunction:: petroscope.segmentation.masks.void_borders\n```")
    assert f"```python\n{code}\n```" in text and "<summary>Source of void_borders, _checked</summary>" in text
    text = book.pages.entries('class Lost(ValueError):\n    "Gone."\n\n\nclass Map: ...', "petroscope.images")
    assert ".. autoexception:: petroscope.images.Lost\n" in text and ".. autoclass:: petroscope.images.Map\n" in text


def test_imports_are_left_out_and_constants_shown(book):
    def entries(code):
        return book.pages.entries(code, "petroscope.images")

    assert entries("import numpy as np\nfrom pathlib import Path") == ""
    lead = "try:\n    import torch\nexcept ImportError as error:\n    raise ImportError('no torch') from error\n"
    lead += "if TYPE_CHECKING:\n    from matplotlib.figure import Figure\nlog = logging.getLogger(__name__)\n"
    assert entries(lead) == "" and book.pages.symbols(notebook(code_cell("#| export\n" + lead))) == []
    assert "FORMAT" in entries(lead + "FORMAT = 1")
    assert entries("VOID = 255  # Never a class") == "```{py:data} VOID\n:value: 255\n\nNever a class\n```"
    long = entries("# What is drawn\nTABLE = " + repr(dict.fromkeys(range(20), "a")))
    assert "What is drawn" in long and "```python\n# What is drawn\nTABLE" in long


def test_cells_of_nbdev_are_left_out(book):
    def page(source, outputs=()):
        return book.pages.page_cells(code_cell(source, outputs), "nbs/00_images.ipynb", "petroscope.images")

    assert page("#| hide\nimport os") == [] and page("x")[0]["source"] == "x"
    assert page("#| default_exp images") == []
    (silent,) = page("#| echo: false\nplot()")
    assert silent["source"] == "plot()" and silent["metadata"]["tags"] == ["remove-input"]


def test_widgets_become_a_note(book):
    def output(text):
        data = {"text/plain": text, "application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
        return {"output_type": "display_data", "metadata": {}, "data": data}

    def page(text):
        said = {"output_type": "stream", "name": "stdout", "text": "said"}
        return book.pages.page_cells(code_cell("show()", [output(text), said]), "nbs/00_images.ipynb", "")

    shown, note = page("Viewer()")
    assert [out["text"] for out in shown["outputs"]] == ["said"] and "JupyterLab" in note["source"]
    assert len(page("  0%|          | 0/10")) == 1, "a bar of progress is no loss"


def test_a_section_about_private_parts_alone_is_folded(book):
    private, public = code_cell("#| export\n_A = 1\n\n\ndef _f(): ..."), code_cell("#| export\ndef g(): ...")
    cells = [text_cell("# T"), text_cell("## How?\n\nSo."), private, text_cell("### More"), code_cell("_f()")]
    cells += [text_cell("## What"), private, text_cell("### Of g"), public, text_cell("## Bad input"), code_cell("g()")]
    made = [cell["source"] for cell in book.pages.fold_inner(cells)]
    assert made[1].startswith('<details class="inner"><summary>Internals: How?</summary>') and 'id="how"' in made[1]
    assert made[2:7] == ["So.", private["source"], "**More**", "_f()", "</details>"]
    assert made[7:] == [cell["source"] for cell in cells[5:]], "what is public stays as it is"


def test_a_private_part_of_a_public_section_is_folded_by_itself(book):
    private, public = code_cell("#| export\n_A: int = 1"), code_cell("#| export\nB = 2")
    cells = [text_cell("## Public"), public, text_cell("### Inner"), private, text_cell("### Outer"), public]
    made = [cell["source"] for cell in book.pages.fold_inner(cells)]
    assert made[0] == "## Public" and "Internals: Inner" in made[2] and made[4:6] == ["</details>", "### Outer"]


def test_a_page_says_which_module_it_is_and_where_its_notebook_lies(book):
    name = "segmentation/11_masks.ipynb"
    masks = notebook(text_cell("# Masks\n\n> All\n> about them."), code_cell("#| default_exp segmentation.masks"))
    line = book.pages.page(masks, name)["cells"][1]["source"]
    assert line.startswith("```{py:module} petroscope.segmentation.masks\n")
    assert ">petroscope.segmentation.masks</code>" in line and f"</notebooks/{name}>" in line
    assert f"(https://github.com/khvostikov/petroscope/blob/main/nbs/{name})" in line
    assert book.pages.title_and_promise(masks) == ("Masks", "All about them.")
    assert "\nMasks\N{EM SPACE}masks <segmentation/masks>\n" in book.pages.contents({name: masks})


def test_every_tutorial_has_one_picture_for_the_gallery(book):
    notebooks = book.pages.read_notebooks()
    for name in book.pages.tutorials(notebooks):
        told = [book.pages.words(cell) for cell in notebooks[name]["cells"]]
        marks = [words["thumbnail"] for words in told if "thumbnail" in words]
        assert len(marks) == 1, f"{name}: the one cell that shows what it reaches begins with #| thumbnail"
        assert book.pictures.MARK.fullmatch(marks[0]), f"{name}: {marks[0]}"


def test_the_marked_figure_is_the_thumbnail(book):
    import base64

    import cv2
    import numpy as np

    figure = np.full((200, 450, 3), 255, np.uint8)
    figure[20:180, 20:200], figure[20:180, 240:420] = 50, (10, 200, 90)
    data = {"image/png": base64.b64encode(cv2.imencode(".png", figure)[1]).decode()}
    shown = {"output_type": "display_data", "data": data, "metadata": {}}
    for mark, color in {"thumbnail": (50,) * 3, "thumbnail: 1": (50,) * 3, "thumbnail: 2": (10, 200, 90)}.items():
        cells = [code_cell("show()", [shown]), code_cell(f"#| {mark}\nshow()", [shown])]
        assert (book.pictures.thumbnail(notebook(*cells)) == color).all()
    assert book.pictures.thumbnail(notebook(code_cell("1"))) is None
    for wrong in ("thumbnail: 3", "thumbnail: left"):
        with pytest.raises(RuntimeError, match=r"expected `#\| thumbnail: 1` to 2"):
            book.pictures.thumbnail(notebook(code_cell(f"#| {wrong}\nshow()", [shown])))


def test_links_lead_to_pages(book):
    text = (
        "[a](00_images.ipynb) [b](../CONTRIBUTING.md#tests) [c](../LICENSE) [d](https://example.org/x.ipynb) [e](#here)"
    )
    images = next(name for name in book.pages.read_notebooks() if name.endswith("_images.ipynb"))
    expected = (
        f"[a]({book.pages.page_name(images)}) [b](contributing.md#tests) "
        "[c](https://github.com/khvostikov/petroscope/blob/main/LICENSE) [d](https://example.org/x.ipynb) [e](#here)"
    )
    assert book.pages.relink(text.replace("00_images.ipynb", images), "nbs/index.ipynb") == expected
    assert (
        book.pages.relink("[a](../tutorials/own_model.ipynb)", "nbs/io/10_x.ipynb")
        == "[a](../tutorials/own_model.ipynb)"
    )
    lost = book.pages.relink("[a](no_such.ipynb)", "nbs/index.ipynb")
    assert lost == "[a](https://github.com/khvostikov/petroscope/blob/main/nbs/no_such.ipynb)"


def test_every_notebook_becomes_a_page_and_is_in_the_contents(book):
    notebooks = book.pages.read_notebooks()
    contents = book.pages.contents(notebooks) + book.pages.gallery(notebooks, set())
    for name, made in notebooks.items():
        assert book.pages.page(made, name)["cells"], name
        listed = book.pages.docname(name)
        assert f"\n{listed}\n" in contents or f"<{listed}>" in contents or listed == "start", name


def test_folders_and_their_order_come_from_the_notebooks(book):
    def room(module, imported=""):
        return notebook(code_cell(f"#| default_exp {module}"), code_cell(f"#| export\n{imported}"))

    notebooks = {
        "00_api.ipynb": room("api", "from petroscope.view.plot import draw"),
        "cli/00_main.ipynb": room("cli.main", "import petroscope as ps"),
        "io/00_files.ipynb": room("io.files"),
        "io/deep/00_tiff.ipynb": room("io.deep.tiff"),
        "view/00_plot.ipynb": room("view.plot", "def draw():\n    from petroscope.io import files"),
    }
    rooms = book.pages.rooms(notebooks)
    assert [*rooms] == ["petroscope", "io", "view", "cli"]
    assert rooms["io"] == ["io/00_files.ipynb", "io/deep/00_tiff.ipynb"]
    used = book.pages.uses(notebooks)
    assert book.pages.needs(["view/00_plot.ipynb"], used) == {"view/00_plot.ipynb", "io/00_files.ipynb"}
    assert used["cli/00_main.ipynb"] == set(notebooks), "whoever uses the front door may use all"


def test_every_tutorial_is_in_the_gallery_once_and_in_order(book):
    names = ["tutorials/zebra.ipynb", "tutorials/a.ipynb", "tutorials/b.ipynb", "tutorials/ant.ipynb", "index.ipynb"]
    listed = text_cell("See [a](tutorials/a.ipynb).\n\n| [b](tutorials/b.ipynb) | B |\n| [a](tutorials/a.ipynb) | A |")
    ordered = book.pages.tutorials({name: notebook(listed) for name in names})
    assert ordered == [f"tutorials/{stem}.ipynb" for stem in ("b", "a", "ant", "zebra")]


def test_words_of_the_glossary_are_known_in_their_forms(book):
    assert book.links.forms("panorama") == ["panorama", "panoramas"] and book.links.forms("code (of a class)") == []
    assert book.links.forms("assay") == ["assay", "assays"] and book.links.forms("study") == ["study", "studies"]


def test_a_written_name_means_an_entry_only_where_that_is_certain(book):
    kinds = {
        "p.io": "module",
        "p.io.read": "function",
        "p.io.Map": "class",
        "p.io.Map.area": "method",
        "p.x.zoom": "data",
    }
    entries = {name: type("Entry", (), {"objtype": kind}) for name, kind in kinds.items()}
    unique = {"io": "p.io", "read": "p.io.read", "Map": "p.io.Map", "zoom": "p.x.zoom"}

    def meant(written, telling=False, imported=()):
        return book.links.meant(written, telling, "p.x", dict(imported), entries, unique)

    assert meant("Map") == "p.io.Map" and meant("Map.area") == "p.io.Map.area" and meant("zoom") == "p.x.zoom"
    assert meant("read") is None and meant("read", telling=True) == "p.io.read", "a plain word may be anything"
    assert meant("read", imported={"read": "p.io.read"}) == "p.io.read"
    assert meant("io.size") is None and meant("unknown", telling=True) is None
    assert meant("ps.Map.area", imported={"ps": "petroscope"}) == "p.io.Map.area", "through the front door"


def test_a_notebook_is_run_again_only_when_something_that_it_uses_has_changed(book):
    def room(module, code):
        return notebook(code_cell(f"#| default_exp {module}"), code_cell(f"#| export\n{code}"))

    notebooks = {
        "a.ipynb": notebook(code_cell("from petroscope.one import x"), code_cell("#| slow\nx")),
        "one.ipynb": room("one", "from petroscope.two import x"),
        "two.ipynb": room("two", "x = 1"),
        "other.ipynb": room("other", "y = 1"),
    }

    def key(**changed):
        made = notebooks | {f"{name}.ipynb": room(name, code) for name, code in changed.items()}
        needed = book.pages.needs(["one.ipynb"], book.pages.uses(made))
        return book.execute.prepared("a.ipynb", made, needed)["cells"][0]["metadata"]["depends"]

    assert key() == key(other="y = 2") != key(two="x = 2")
    assert book.pages.uses(notebooks, book.pages.all_code)["a.ipynb"] == {"one.ipynb"}
    ready = book.execute.prepared("a.ipynb", notebooks, set())
    assert (
        ready["cells"][1]["metadata"]["tags"] == ["skip-execution"] and not notebooks["a.ipynb"]["cells"][0]["metadata"]
    )


def test_settings_of_the_site_parse():
    ast.parse((ROOT / "docs" / "conf.py").read_text(encoding="utf-8"))
