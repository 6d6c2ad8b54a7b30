"The documentation site's sources: every notebook becomes a page, and signatures become tables."

import ast
import importlib.util
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
def docs():
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "tools" / "build_docs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_docs"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["build_docs"]


def test_a_function_becomes_a_table(docs):
    text = docs.exported(FUNCTION)
    assert text.startswith('<a id="api-void_borders"></a>\n\n')
    assert ("**`void_borders(mask, radius, *others, value=255)`**\n\nVoid the borders.") in text
    assert "| `mask` | `np.ndarray` |  | Class codes, `(H, W)` uint8 |" in text
    assert "| `radius` | `int \\| None` |  | Half-width, in pixels |" in text
    assert "| `value` | `int` | `255` | What is written |" in text
    assert "| *returns* | `np.ndarray` |  | A copy |" in text
    assert f"```python\n{FUNCTION}\n```" in text


def test_a_class_becomes_fields_and_methods(docs):
    text = docs.exported(CLASS)
    assert "| `code` | `int` |  | In the mask |" in text and "| `label` | `str` | `'BG'` | Short |" in text
    assert "**`Mineral.short`**: `str`" in text
    assert "**`Mineral.matches(code)`**" in text
    assert "`Mineral._hidden" not in text


def test_what_says_nothing_is_left_out(docs):
    assert docs.exported('def f() -> int:\n    "One."\n    return 1').count("|") == 0
    text = docs.exported('def f(\n    a: int,  # First\n):\n    "None."')
    assert "| parameter | type | meaning |" in text and "| `a` | `int` | First |" in text


def test_imports_are_left_out_and_constants_shown(docs):
    assert docs.exported("import numpy as np\nfrom pathlib import Path") == ""
    assert docs.exported("VOID = 255  # Never a class") == "```python\nVOID = 255  # Never a class\n```"


def test_cells_of_nbdev_are_left_out(docs):
    def code(source):
        return {"cell_type": "code", "metadata": {}, "outputs": [], "source": source}

    kept = [docs.page_cell(code(s), "nbs/00_images.ipynb", {}) for s in ("#| default_exp x", "#| hide\nimport os", "x")]
    assert kept[:2] == [None, None] and kept[2]["source"] == "x"
    silent = docs.page_cell(code("#| echo: false\nplot()"), "nbs/00_images.ipynb", {})
    assert silent["source"] == "plot()" and silent["metadata"]["tags"] == ["remove-input"]


def test_links_lead_to_pages(docs):
    cfg = docs.settings()
    text = (
        "[a](00_images.ipynb) [b](../CONTRIBUTING.md#tests) [c](../LICENSE) [d](https://example.org/x.ipynb) [e](#here)"
    )
    expected = (
        "[a](images.ipynb) [b](contributing.md#tests) [c](https://github.com/khvostikov/petroscope/blob/main/LICENSE) "
        "[d](https://example.org/x.ipynb) [e](#here)"
    )
    assert docs.relink(text, "nbs/index.ipynb", cfg) == expected
    assert docs.relink("[a](../00_images.ipynb)", "nbs/segmentation/10_x.ipynb", cfg) == "[a](../images.ipynb)"


def test_every_notebook_becomes_a_page(docs):
    cfg = docs.settings()
    for path in docs.notebooks():
        name = f"nbs/{path.relative_to(ROOT / 'nbs').as_posix()}"
        page = docs.page(json.loads(path.read_text(encoding="utf-8")), name, cfg)
        assert page["cells"], name


def test_every_notebook_is_in_the_contents(docs):
    names = [path.relative_to(ROOT / "nbs").as_posix() for path in docs.notebooks()]
    text = docs.contents(names)
    for name in names:
        if name != "index.ipynb":
            assert f"\n{docs.page_name(name).removesuffix('.ipynb')}\n" in text, f"{name}: its folder has no contents"


def test_a_request_to_another_host_is_found(docs, tmp_path):
    (tmp_path / "a.html").write_text('<a href="https://example.org">a</a><script src="local.js"></script>')
    assert docs.foreign_requests(tmp_path) == []
    (tmp_path / "b.html").write_text('<script async src="https://example.org/x.js"></script>')
    (tmp_path / "c.css").write_text(
        "@import 'https://example.org/f.css'; body { background: url(//example.org/i.png) }"
    )
    assert len(docs.foreign_requests(tmp_path)) == 3


def test_settings_of_the_site_parse():
    ast.parse((ROOT / "docs" / "conf.py").read_text(encoding="utf-8"))
