"""A Sphinx extension: into what autodoc says of functions and classes it puts tables of parameters and of errors.

What a parameter means is told by the comment behind it, as nbdev has it.
"""

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Callable

from docutils import nodes
from docutils.parsers import Parser
from docutils.parsers.rst import Parser as RstParser
from docutils.utils import new_document
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from .markdown import code_span, joined, note_of, plain, table


@functools.cache
def parsed(thing: Callable) -> tuple[ast.stmt, list[str]]:
    "The source of a function or class: its tree and its lines."
    code = textwrap.dedent(inspect.getsource(thing))
    return ast.parse(code).body[0], code.splitlines()


# -- Errors -----------------------------------------------------------------------------------------------------------


def message(node: ast.expr) -> str:
    "The text of an error as a reader meets it: what is filled in at run time stands in angle brackets, or as dots."
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(message, node.values))
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name | ast.Attribute):
        return f"‹{ast.unparse(node.value)}›"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return message(node.left) + message(node.right)
    return "…"


def helper(function: Callable, called: ast.expr) -> Callable | None:
    "The function that a call in `function` leads to, if what it raises is its caller's: a private one, or a check."
    name, module = getattr(called, "attr", getattr(called, "id", "")), inspect.getmodule(function)
    if not re.match(r"_[^_]|check_", name):
        return None
    # What has an owner is sought in the module of that name, in the function's own class, and then in any other.
    classes = sorted(
        filter(inspect.isclass, vars(module).values()), key=lambda c: c.__name__ not in function.__qualname__
    )
    owners = [vars(module).get(getattr(called.value, "id", "")), *classes] if hasattr(called, "value") else [module]
    found = inspect.unwrap(next((getattr(owner, name) for owner in owners if hasattr(owner, name)), None))
    ours = inspect.isfunction(found) and found.__module__.split(".")[0] == module.__name__.split(".")[0]
    return found if ours else None


def errors(function: Callable, seen: set[Callable]) -> list[list[str]]:
    "Rows of what a function raises with a message of its own, by itself or through private helpers and checks."
    seen.add(function)
    rows = []
    for node in ast.walk(parsed(function)[0]):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            # An exception of Python's or of this package: `raise SystemExit(main())` tells a reader nothing.
            kind, said = ast.unparse(node.exc.func), message(node.exc.args[0])
            if kind.endswith(("Error", "Exception")) and len(said.replace("…", "").strip()) > 8:
                rows.append([kind, " ".join(said.split())])
        elif isinstance(node, ast.Call) and (called := helper(function, node.func)) and called not in seen:
            rows += errors(called, seen)
    return [row for number, row in enumerate(rows) if row not in rows[:number]]


def error_table(function: Callable) -> str:
    # A backslash keeps Markdown from reading a message's own signs.
    rows = [[code_span(kind), re.sub(r"([\\`*_\[\]<>{}$#|])", r"\\\1", said)] for kind, said in errors(function, set())]
    return "{.errors}\n" + table(["error", "message"], rows) if rows else ""


# -- Entries ----------------------------------------------------------------------------------------------------------


def parameter_table(function: Callable) -> str:
    "The parameters of a function and what it returns, each with its comment; empty where there is nothing to tell."
    (node, lines), rows, told = parsed(function), [], set()
    arguments = {arg.arg: arg for arg in ast.walk(node.args) if isinstance(arg, ast.arg)}
    last = {arg.end_lineno: arg for arg in arguments.values()}  # a comment speaks of the last parameter on its line
    for name, parameter in inspect.signature(function).parameters.items():
        arg = arguments[name]
        if name in ("self", "cls"):
            continue
        bare = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
        kind = ast.unparse(arg.annotation) if arg.annotation else ""
        default = "" if parameter.default is parameter.empty else repr(parameter.default)
        note = plain(note_of(arg, lines)) if last[arg.end_lineno] is arg else ""
        rows.append([code_span(bare), code_span(kind), code_span(default), note])
        told.add(arg.end_lineno)
    if node.returns and ast.unparse(node.returns) != "None":
        note = plain(note_of(node.returns, lines)) if node.returns.end_lineno not in told else ""
        rows += [["*returns*", code_span(ast.unparse(node.returns)), "", note]] if rows or note else []
    return table(["parameter", "type", "default", "meaning"], rows)


def field_table(thing: type) -> str:
    "The public fields that a class declares, each with its comment."
    (body, lines), rows = parsed(thing), []
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and not ast.unparse(node.target).startswith("_"):
            texts = [ast.unparse(part) if part else "" for part in (node.target, node.annotation, node.value)]
            rows.append([*map(code_span, texts), plain(note_of(node, lines))])
    return table(["field", "type", "default", "meaning"], rows)


def written(thing: type, *names: str) -> list[Callable]:
    "The methods of these names that a class spells out; a dataclass and a protocol have others that nobody wrote."
    spelled = {getattr(node, "name", "") for node in parsed(thing)[0].body}
    return [vars(thing)[name] for name in names if name in spelled]


def described(kind: str, thing, inherited: str) -> str:
    "The text of an entry in Markdown: the docstring as its author wrote it, the parameters, and the errors."
    thing = inspect.unwrap(getattr(thing, "fget", None) or getattr(thing, "func", None) or thing)
    text = ast.get_docstring(parsed(thing)[0]) or inherited
    if kind not in ("class", "exception"):
        return joined(text, "" if kind == "property" else parameter_table(thing), error_table(thing))
    made = written(thing, "__init__")
    told = [part for init in made for part in (ast.get_docstring(parsed(init)[0]), parameter_table(init))]
    return joined(text, field_table(thing), *told, *map(error_table, [*made, *written(thing, "__post_init__")]))


class Nested(SphinxDirective):
    "A text in another markup: autodoc wants and writes reStructuredText, docstrings are Markdown."

    has_content = True
    parser: type[Parser]

    def run(self) -> list[nodes.Node]:
        document = new_document("", self.state.document.settings)
        self.parser().parse("\n".join(self.content), document)
        return document.children


def describe(app: Sphinx, what: str, name: str, obj, options, lines: list[str]) -> None:
    "Put Markdown in place of a docstring."
    text = described(what, obj, "\n".join(lines))
    lines[:] = [".. markdown::", "", *textwrap.indent(text, "   ").splitlines(), ""]


def call_only(
    app: Sphinx, what: str, name: str, obj, options, args: str | None, returns: str
) -> tuple[str, str | None] | None:
    "A signature without the types, which the table tells; none for a class whose fields the table tells."
    if args is None:  # autodoc found none, as for an exception without `__init__`
        return None
    kind = what in ("class", "exception")
    if not kind and what not in ("function", "method"):
        return args, returns
    if kind and not written(obj, "__init__"):
        return "", None
    signature = inspect.signature(obj)
    shown = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name != "self"]
    told = kind or parameter_table(inspect.unwrap(obj))
    call = str(signature.replace(parameters=shown, return_annotation=signature.empty))
    return call, None if told or returns == "None" else returns


def skip(app: Sphinx, what: str, name: str, obj, skipped: bool, options) -> bool | None:
    "Show the methods and properties of a class; its fields stand in the table."
    shown = inspect.isroutine(obj) or isinstance(obj, property) or hasattr(obj, "func")
    return None if shown else True


def setup(app: Sphinx) -> dict:
    app.setup_extension("sphinx.ext.autodoc")
    app.add_directive("rst", type("RestructuredText", (Nested,), {"parser": RstParser}))
    app.add_directive("markdown", type("Markdown", (Nested,), {"parser": MystParser}))
    app.connect("autodoc-process-docstring", describe)
    app.connect("autodoc-process-signature", call_only)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}
