"""A Sphinx extension: what stands around a page.

Beside the title of a room in the sidebar stands its module, which is what a reader will import.
"""

import re

from sphinx.application import Sphinx

from .pages import BESIDE


def name_modules(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    "Mark the modules' names in Furo's tree of pages, so that they look like code and not like part of a title."
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = re.sub(BESIDE + r"(\w+)</a>", r' <code class="room">\1</code></a>', tree)


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", name_modules, priority=900)  # after the theme, which makes the tree
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
