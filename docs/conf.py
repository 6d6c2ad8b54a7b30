"Sphinx settings of the documentation site; tools/build_docs.py writes the pages that it reads."

import sys
from html import escape
from pathlib import Path

from docutils import nodes

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from book.pages import CFG  # noqa: E402

project = CFG["title"]
copyright = CFG["copyright"]
version = release = CFG["version"]

extensions = ["myst_nb", "sphinx_copybutton", "book.api", "book.links"]
exclude_patterns = ["notebooks"]  # to be downloaded as they are
html_theme = "furo"
templates_path = ["_templates"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "repository.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_context = {"repository": CFG["git_url"]}
html_title = f"{project} {version}"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["petroscope.css"]
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
html_domain_indices = False
add_module_names = False
maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"
nitpicky = True
# Types of other packages are told, and lead nowhere.
nitpick_ignore_regex = [("py:.*", r"(?!petroscope\b).*")]
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"

# What a cell prints is no code that one would run.
copybutton_selector = "div.highlight:not(.output *) > pre"
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True

nb_execution_mode = "off"
nb_render_markdown_format = "myst"
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["mystnb.unknown_mime_type"]

# Pages ask no other host for anything: formulas become MathML while the site is built, and widgets load no script.
nb_ipywidgets_js: dict = {}
html_math_renderer = "mathml"


def mathml(self, node) -> None:
    "Write a formula as MathML, which browsers render by themselves."
    from latex2mathml.converter import convert

    display = "block" if isinstance(node, nodes.math_block) else "inline"
    try:
        markup = convert(node.astext(), display=display)
    except Exception as error:  # the converter has no common base of its errors
        raise ValueError(f"formula {node.astext()!r} cannot be converted: {error}") from error
    label = escape(node.astext(), quote=True)
    tag = "div" if display == "block" else "span"
    self.body.append(f'<{tag} class="math" title="{label}">{markup}</{tag}>')
    raise nodes.SkipNode


def setup(app) -> None:
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
