"""A Sphinx extension: names of the package and words of the glossary become links, wherever they are written.

Notebooks stay plain Markdown for it. `ClassSet` in backticks, in prose, in a docstring or in the type of a parameter,
leads to its entry; the first time that a page uses a word of the glossary, the word leads there and shows what it
means.
"""

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

NAME = re.compile(r"[A-Za-z_][\w]*(?:\.[A-Za-z_]\w*)*")
# No links within what is a link, a title or a target already.
CLOSED = (nodes.reference, nodes.title, nodes.raw, addnodes.desc_signature, addnodes.pending_xref, nodes.term)

# A word of the glossary means something else behind these: a scalar field, half precision, a large patch of resin.
ELSE = ("scalar ", "large ", "logarithmic ", "colour ", "grey ", "half ", "class ", "vector ")


class Names:
    "Which entry a written name means on which page."

    def __init__(self, objects: dict, modules: dict[str, str], imports: dict[str, dict[str, str]]):
        self.objects = objects  # full name -> (page, anchor, kind)
        self.modules = modules  # page -> the module that it exports
        self.imports = imports  # page -> name as imported there -> full name
        self.by_short: dict[str, list[str]] = {}
        for full, (_, _, kind) in objects.items():
            if kind not in ("method", "property"):
                self.by_short.setdefault(full.rsplit(".", 1)[-1], []).append(full)

    def find(self, written: str, page: str, called: bool, parameters: set[str]) -> str | None:
        "The full name of what is meant, or None where that is not certain."
        if written in self.objects:
            return written
        first, _, rest = written.partition(".")
        here = f"{self.modules.get(page, '')}.{first}"
        full = here if here in self.objects else self.imports.get(page, {}).get(first)
        if full not in self.objects and full and len(self.by_short.get(first, ())) == 1:
            full = self.by_short[first][0]  # imported from a module that imports it itself
        # A plain word may be anything, a variable say, unless it is called or the page imports it.
        telling = called or "_" in first.strip("_") or first != first.lower() or bool(rest)
        if full is None and telling and len(self.by_short.get(first, ())) == 1:
            full = self.by_short[first][0]
        if full is None or (first in parameters and not called and not rest):
            return None
        known = rest
        while known and f"{full}.{known}" not in self.objects:
            known = known.rpartition(".")[0]
        found = f"{full}.{known}" if known else full
        # What no module holds is the attribute of some variable that has a module's name.
        variable = rest and not known and self.objects.get(full, ("", "", ""))[2] == "module"
        return found if found in self.objects and not variable else None


def uri(app: Sphinx, here: str, page: str, anchor: str) -> str:
    target = app.builder.get_relative_uri(here, page)
    return f"{target}#{anchor}" if anchor else target


def page_now(transform: SphinxPostTransform) -> str:
    "The page that is being written; newer versions of Sphinx keep its name elsewhere."
    current = getattr(transform.env, "current_document", None)
    return current.docname if current is not None else transform.env.docname


def closed(node: nodes.Node) -> bool:
    parent = node.parent
    while parent is not None:
        if isinstance(parent, CLOSED):
            return True
        parent = parent.parent
    return False


def own_entry(node: nodes.Node) -> tuple[str, set[str]]:
    "The entry that a node stands in, and the names of its parameters."
    while node is not None and not isinstance(node, addnodes.desc):
        node = node.parent
    if node is None:
        return "", set()
    heads = [head for head in node.children if isinstance(head, addnodes.desc_signature)]
    names = {p.astext().split("=")[0].strip("* ") for h in heads for p in h.findall(addnodes.desc_parameter)}
    return (heads[0]["ids"][0] if heads and heads[0]["ids"] else ""), names


class LinkNames(SphinxPostTransform):
    "`name` in backticks leads to its entry."

    default_priority = 20

    def run(self, **kwargs) -> None:
        page, book = page_now(self), self.env.book
        py = self.env.get_domain("py")
        objects = {full: (o.docname, o.node_id, o.objtype) for full, o in py.objects.items()}
        names = Names(objects, book["modules"], book["imports"])
        for literal in list(self.document.findall(nodes.literal)):
            if closed(literal):
                continue
            entry, parameters = own_entry(literal)
            self.link(literal, literal.astext(), page, names, entry, parameters)

    def link(self, literal, text: str, page: str, names: Names, entry: str, parameters: set[str]) -> None:
        parts, end = [], 0
        for match in NAME.finditer(text):
            if text[: match.start()].count("'") % 2 or text[: match.start()].count('"') % 2:
                continue  # within a string
            called = text[match.end() : match.end() + 1] == "("
            full = names.find(match[0], page, called, parameters)
            if full is None or full == entry or text[match.start() - 1 : match.start()] in (".", "/", "-"):
                continue
            where, anchor, _ = names.objects[full]
            link = nodes.reference("", match[0], refuri=uri(self.app, page, where, anchor), internal=True)
            link["reftitle"] = full
            parts += [nodes.Text(text[end : match.start()]), link]
            end = match.end()
        if parts:
            literal.children = []
            literal.extend([part for part in [*parts, nodes.Text(text[end:])] if part.astext()])
            literal["classes"].append("linked")


class LinkWords(SphinxPostTransform):
    "The first use of a glossary's word in a page's text leads to the glossary."

    default_priority = 21

    def run(self, **kwargs) -> None:
        page, words = page_now(self), self.env.book["words"]
        where = self.env.book["glossary"]
        if not words or page in (where, "changelog", "symbols", "reference", "index", "tutorials"):
            return
        forms = {form.lower(): word for word, (_, forms) in words.items() for form in forms}
        pattern = re.compile(
            r"(?<![\w-])(" + "|".join(re.escape(f) for f in sorted(forms, key=len, reverse=True)) + r")(?![\w-])",
            re.IGNORECASE,
        )
        used: set[str] = set()
        for text in list(self.document.findall(nodes.Text)):
            paragraph = isinstance(text.parent, nodes.paragraph) or isinstance(text.parent, nodes.emphasis)
            aside = "about" in text.parent["classes"]  # a module's name is no prose
            if not paragraph or aside or closed(text) or isinstance(text.parent.parent, nodes.entry):
                continue
            written, parts, end = text.astext(), [], 0
            for match in pattern.finditer(written):
                word = forms[match[0].lower()]
                if word in used or written[: match.start()].lower().endswith(ELSE):
                    continue
                used.add(word)
                anchor, meaning = self.env.book["anchors"][word], words[word][0]
                link = nodes.reference("", match[0], refuri=uri(self.app, page, where, anchor), internal=True)
                link["reftitle"], link["classes"] = meaning, ["word"]
                parts += [nodes.Text(written[end : match.start()]), link]
                end = match.end()
            if parts:
                parent, place = text.parent, text.parent.index(text)
                parent[place : place + 1] = [p for p in [*parts, nodes.Text(written[end:])] if p.astext()]


def load(app: Sphinx) -> None:
    "What the build has found in the notebooks: modules, imports and the glossary's words."
    path = Path(app.srcdir) / "book.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    empty = {"modules": {}, "imports": {}, "words": {}, "glossary": "glossary"}
    app.env.book = empty | found | {"anchors": {}}


def anchors(app: Sphinx, env) -> None:
    "Where the words stand, which is known once all pages are read."
    terms = {name: node_id for _, name, _, _, node_id, _ in env.get_domain("std").get_objects() if node_id}
    env.book["anchors"] = {word: terms.get(word, "") for word in env.book["words"]}


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", load)
    app.connect("env-updated", anchors)
    app.add_post_transform(LinkNames)
    app.add_post_transform(LinkWords)
    return {"parallel_read_safe": False, "parallel_write_safe": True, "version": "1"}
