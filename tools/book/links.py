"""A Sphinx extension: names of the package and words of the glossary become links, wherever they are written.

Notebooks stay plain Markdown for it. `ClassSet` in backticks, in prose, in a docstring or in the type of a parameter,
leads to its entry; the first time that a page uses a word of the glossary, the word leads there and shows what it
means. Beside the title of a room in the sidebar stands its module, which is what a reader will import.
"""

import functools
import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform

from .pages import BESIDE, PACKAGE, all_code, docname, imports, read_notebooks

NAME = re.compile(r"(?<![\w./-])[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
# No links within what is a link, a title or a target already.
CLOSED = (nodes.reference, nodes.title, nodes.raw, addnodes.desc_signature, addnodes.pending_xref, nodes.term)
# Lists of pages, and the glossary itself, in which every word would be a link.
LISTS = ("glossary", "changelog", "symbols", "reference", "index", "tutorials")
# A word of the glossary means something else behind these: a scalar field, half precision, a large patch of resin.
ELSE = ("scalar ", "large ", "logarithmic ", "colour ", "grey ", "half ", "class ", "vector ")


def meant(written: str, telling: bool, here: str, imported: dict[str, str], entries: dict, unique: dict) -> str | None:
    """The full name of the entry that a written name means in the module `here`, or None where that is not certain.

    `unique` are full names by their last part. A plain word may be anything, a variable say, unless it is `telling`.
    """
    first, _, rest = written.partition(".")
    if imported.get(first) == PACKAGE:  # its front door, under whatever name
        imported, (first, _, rest) = {}, rest.partition(".")
    telling = telling or "_" in first.strip("_") or first != first.lower() or bool(rest) or first in imported
    likely = (written, f"{here}.{first}", imported.get(first), unique.get(first) if telling else None)
    full = next((name for name in likely if name in entries), None)
    if full is None or full == written:
        return full
    known = rest
    while known and f"{full}.{known}" not in entries:
        known = known.rpartition(".")[0]
    # What no module holds is the attribute of some variable that has a module's name.
    return None if rest and not known and entries[full].objtype == "module" else f"{full}.{known}".rstrip(".")


def parents(node: nodes.Node | None) -> list[nodes.Node]:
    "A node and what it stands in."
    return [] if node is None else [node, *parents(node.parent)]


def free(node: nodes.Node) -> bool:
    "Whether something in a node may become a link; the line below a title tells a module's name as it is."
    return not any(
        isinstance(p, CLOSED) or "about" in getattr(p, "attributes", {}).get("classes", ()) for p in parents(node)
    )


@functools.cache
def words(env: BuildEnvironment) -> dict[str, tuple[str, str]]:
    "The forms in which texts use the glossary's words, in small letters -> anchor, and what the word means."
    found = {}
    for item in env.get_doctree("glossary").findall(nodes.definition_list_item):
        meaning = " ".join(item.children[-1].astext().split())
        for term in item.findall(nodes.term):
            found |= {form.lower(): (term["ids"][0], meaning) for form in forms(term.astext())}
    return found


def forms(term: str) -> list[str]:
    "A word and its plural; none of a word that means this only in a context, which is told in brackets."
    if "(" in term:
        return []
    if term.endswith(("s", "x", "ed")) or term.isupper() or " of " in term:
        return [term]
    return [term, term[:-1] + "ies" if term.endswith("y") and term[-2] not in "aeou" else term + "s"]


class Link(SphinxPostTransform):
    "`name` in backticks leads to its entry, and the first use of a glossary's word to the glossary."

    default_priority = 20

    def run(self, **kwargs) -> None:
        current = getattr(self.env, "current_document", None)  # older versions of Sphinx keep the name elsewhere
        self.page = current.docname if current is not None else self.env.docname
        self.link_names()
        if self.page not in LISTS:
            self.link_words(words(self.env))

    def put(self, text: str, found: list[tuple[re.Match, str, str, str, list[str]]]) -> list[nodes.Node]:
        "A text with links in the places found."
        parts, end = [], 0
        for match, page, anchor, title, classes in found:
            target = f"{self.app.builder.get_relative_uri(self.page, page)}#{anchor}".rstrip("#")
            link = nodes.reference("", match[0], refuri=target, internal=True, reftitle=title, classes=classes)
            parts += [nodes.Text(text[end : match.start()]), link]
            end = match.end()
        return [part for part in [*parts, nodes.Text(text[end:])] if part.astext()]

    def link_names(self) -> None:
        py = self.env.get_domain("py")
        here = next((name for name, module in py.modules.items() if module.docname == self.page), "")
        imported = self.app.imports.get(self.page, {})
        shorts = [name for name, entry in py.objects.items() if entry.objtype not in ("method", "property")]
        lasts = [name.rpartition(".")[2] for name in shorts]
        unique = {last: name for last, name in zip(lasts, shorts, strict=True) if lasts.count(last) == 1}
        for literal in filter(free, [*self.document.findall(nodes.literal)]):
            text, found = literal.astext(), []
            entry = next((parent for parent in parents(literal) if isinstance(parent, addnodes.desc)), nodes.Element())
            head = next(iter(entry.children), nodes.Element(ids=[]))
            given = {p.astext().split("=")[0].strip("* ") for p in head.findall(addnodes.desc_parameter)}
            for match in NAME.finditer(text):
                before, called = text[: match.start()], text[match.end() :].startswith("(")
                within_string = before.count("'") % 2 or before.count('"') % 2
                full = meant(match[0], called, here, imported, py.objects, unique)
                if full and full not in head["ids"] and not within_string and (called or match[0] not in given):
                    found.append((match, py.objects[full].docname, py.objects[full].node_id, full, []))
            if found:
                literal.children = []
                literal.extend(self.put(text, found))
                literal["classes"].append("linked")

    def link_words(self, known: dict[str, tuple[str, str]]) -> None:
        used = set()
        longest_first = "|".join(re.escape(form) for form in sorted(known, key=len, reverse=True))
        pattern = re.compile(rf"(?<![\w-])({longest_first})(?![\w-])", re.IGNORECASE)
        for text in filter(free, [*self.document.findall(nodes.Text)]):
            prose, cell = isinstance(text.parent, nodes.paragraph | nodes.emphasis), text.parent.parent
            found = []
            for match in pattern.finditer(text) if prose and not isinstance(cell, nodes.entry) else ():
                anchor, meaning = known[match[0].lower()]
                if anchor not in used and not text[: match.start()].lower().endswith(ELSE):
                    used.add(anchor)
                    found.append((match, "glossary", anchor, meaning, ["word"]))
            if found:
                place = text.parent.index(text)
                text.parent[place : place + 1] = self.put(str(text), found)


def load(app: Sphinx) -> None:
    "Which names each page imports."
    app.imports = {docname(name): imports(all_code(notebook)) for name, notebook in read_notebooks().items()}


def name_modules(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    "Mark the modules' names in Furo's tree of pages, so that they look like code and not like part of a title."
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = re.sub(BESIDE + r"(\w+)</a>", r' <code class="room">\1</code></a>', tree)


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", load)
    app.connect("html-page-context", name_modules, priority=900)  # after the theme, which makes the tree
    app.add_post_transform(Link)
    return {"parallel_read_safe": False, "parallel_write_safe": True, "version": "1"}
