"""Exported code as reference: what is public becomes an entry of Sphinx's Python domain, with a table of parameters.

An entry is found by the search, has an address of its own, and is where links to its name lead.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator

HEADER = ["parameter", "type", "default", "meaning"]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def comments(code: str) -> dict[int, str]:
    "Line number -> the comment on that line."
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}


def arguments(function: Function) -> Iterator[tuple[str, ast.arg, ast.expr | None]]:
    "Name as written in a call, argument and default, in their order."
    spec = function.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults = [None] * (len(positional) - len(spec.defaults)) + spec.defaults
    for arg, default in zip(positional, defaults):
        yield arg.arg, arg, default
    if spec.vararg:
        yield "*" + spec.vararg.arg, spec.vararg, None
    elif spec.kwonlyargs:
        yield "*", ast.arg("*"), None
    for arg, default in zip(spec.kwonlyargs, spec.kw_defaults):
        yield arg.arg, arg, default
    if spec.kwarg:
        yield "**" + spec.kwarg.arg, spec.kwarg, None


def note_of(node: ast.stmt, notes: dict[int, str]) -> str:
    "The comment of an assignment: at its end, or else on the lines right above it."
    if node.end_lineno in notes:
        return notes[node.end_lineno]
    above, line = [], node.lineno - 1
    while line in notes:
        above.insert(0, notes[line])
        line -= 1
    return " ".join(above)


# -- Markdown ---------------------------------------------------------------------------------------------------------


def code_span(text: str) -> str:
    "Code in a table's cell."
    ticks = "``" if "`" in text else "`"
    return ticks + text.replace("|", "\\|").replace("\n", " ") + ticks if text else ""


def plain(text: str) -> str:
    "A comment in a table's cell."
    return text.replace("|", "\\|")


def table(header: list[str], rows: list[list[str]]) -> str:
    "A table in Markdown, without the columns that say nothing."
    told = [column for column in range(len(header)) if any(row[column] for row in rows)]
    lines = [[line[column] for column in told] for line in (header, ["---"] * len(header), *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fence(name: str, argument: str, body: str, options: dict[str, str] | None = None) -> str:
    "A directive of MyST, with more ticks than anything that it holds."
    ticks = "`" * max([3, *(len(run) + 1 for run in re.findall(r"^`{3,}", body, re.MULTILINE))])
    lines = [f":{key}: {value}".rstrip() for key, value in (options or {}).items()]
    return "\n".join([f"{ticks}{{{name}}} {argument}".rstrip(), *lines, "", body.strip(), ticks])


def joined(*parts: str) -> str:
    return "\n\n".join(filter(None, parts))


# -- Errors -----------------------------------------------------------------------------------------------------------


def message(node: ast.expr) -> str:
    "The text of an error as a reader meets it: what is filled in at run time stands in angle brackets, or as dots."
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(message(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        simple = isinstance(node.value, ast.Name | ast.Attribute)
        return f"‹{ast.unparse(node.value)}›" if simple else "…"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return message(node.left) + message(node.right)
    return "…"


def errors(function: Function, helpers: dict[str, Function], seen: frozenset[str] = frozenset()) -> list[list[str]]:
    "Rows of what a function raises with a message of its own, by itself or through the module's private helpers."
    rows = []
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            # An exception of Python's or of this package: `raise SystemExit(main())` tells a reader nothing.
            kind, said = ast.unparse(node.exc.func), message(node.exc.args[0])
            if kind.split(".")[-1].endswith(("Error", "Exception")) and len(said.replace("…", "").strip()) > 8:
                rows.append([kind, " ".join(said.split())])
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name.startswith("_") and name in helpers and name not in seen:
                rows += errors(helpers[name], helpers, seen | {name})
    return [row for number, row in enumerate(rows) if row not in rows[:number]]


def error_table(rows: list[list[str]]) -> str:
    "The errors of a function as a table."
    if not rows:
        return ""
    # A backslash keeps Markdown from reading a message's own signs.
    quiet = [[code_span(kind), re.sub(r"([\\`*_\[\]<>{}$#|])", r"\\\1", said)] for kind, said in rows]
    return "{.errors}\n" + table(["error", "message"], quiet)


# -- Entries ----------------------------------------------------------------------------------------------------------


def signature(function: Function, notes: dict[int, str], helpers: dict, owner: str = "") -> str:
    "A function as an entry: how to call it, what it does, a table of its parameters, and what it raises."
    rows, names, last = [], [], function.lineno
    decorators = {ast.unparse(d).split(".")[-1] for d in function.decorator_list}
    for name, arg, default in arguments(function):
        if owner and name in ("self", "cls"):
            continue
        names.append(name if default is None else f"{name}={ast.unparse(default)}")
        if name == "*":
            continue
        last = (default or arg).end_lineno or last
        kind = ast.unparse(arg.annotation) if arg.annotation else ""
        value = "" if default is None else ast.unparse(default)
        rows.append([code_span(name), code_span(kind), code_span(value), plain(notes.get(last, ""))])
    arrow = ""
    if function.returns is not None and ast.unparse(function.returns) != "None":
        end = function.returns.end_lineno or last
        # A one-line signature has one comment, which speaks of the last parameter where there is one.
        note = notes.get(end, "") if end != last or not rows else ""
        if rows or note:
            rows.append(["*returns*", code_span(ast.unparse(function.returns)), "", plain(note)])
        else:
            arrow = f" -> {ast.unparse(function.returns)}"
    body = joined(
        ast.get_docstring(function) or "",
        table(HEADER, rows) if rows else "",
        error_table(errors(function, helpers)),
    )
    if owner and function.name in ("__init__", "__post_init__"):
        return body
    options = {name: "" for name in ("classmethod", "staticmethod", "abstractmethod") if name in decorators}
    called = f"{owner}.{function.name}" if owner else function.name
    return fence("py:method" if owner else "py:function", f"{called}({', '.join(names)}){arrow}", body, options)


def class_entry(node: ast.ClassDef, notes: dict[int, str], helpers: dict) -> str:
    "A class as an entry: what it is, its fields, and its public methods."
    rows, members, made, called = [], [], "", ""
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id[0] != "_":
            value = ast.unparse(item.value) if item.value else ""
            note = plain(notes.get(item.end_lineno or 0, ""))
            rows.append([code_span(item.target.id), code_span(ast.unparse(item.annotation)), code_span(value), note])
        elif isinstance(item, Function) and item.name == "__init__":
            made = signature(item, notes, helpers, node.name)
            given = [n if d is None else f"{n}={ast.unparse(d)}" for n, _, d in arguments(item) if n != "self"]
            called = f"({', '.join(given)})"
        elif isinstance(item, Function) and item.name == "__post_init__":
            made = error_table(errors(item, helpers))
        elif isinstance(item, Function) and not item.name.startswith("_"):
            decorators = {ast.unparse(d).split(".")[-1] for d in item.decorator_list}
            if decorators & {"property", "cached_property"}:
                kind = {"type": ast.unparse(item.returns)} if item.returns else {}
                told = joined(ast.get_docstring(item) or "", error_table(errors(item, helpers)))
                members.append(fence("py:property", f"{node.name}.{item.name}", told, kind))
            elif "setter" not in decorators:
                members.append(signature(item, notes, helpers, node.name))
    fields = table(["field", "type", "default", "meaning"], rows) if rows else ""
    body = joined(ast.get_docstring(node) or "", fields, made, *members)
    exception = any(ast.unparse(base).endswith(("Error", "Exception")) for base in node.bases)
    return fence("py:exception" if exception else "py:class", node.name + called, body)


def constant(node: ast.Assign | ast.AnnAssign, notes: dict[int, str]) -> str:
    "A constant as an entry; its value where it is short."
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    if not isinstance(target, ast.Name) or target.id.startswith("_") or node.value is None:
        return ""
    value = ast.unparse(node.value)
    options = {"value": value} if len(value) <= 60 else {}
    if isinstance(node, ast.AnnAssign):
        options = {"type": ast.unparse(node.annotation)} | options
    return fence("py:data", target.id, plain(note_of(node, notes)), options)


def private_functions(codes: list[str]) -> dict[str, Function]:
    "The private functions and methods of a module: what they raise reaches whoever called the public one."
    nodes = [node for code in codes for node in ast.walk(ast.parse(code))]
    return {node.name: node for node in nodes if isinstance(node, Function) and node.name.startswith("_")}


def defined(code: str) -> list[str]:
    "The names that a cell gives to functions, classes and constants."
    names = []
    for node in ast.parse(code).body:
        if isinstance(node, Function | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return names


def brings_in(node: ast.stmt) -> bool:
    "Whether a statement only imports, or makes the logger of its module: nothing that a reader of the site looks for."
    if isinstance(node, ast.Try | ast.If):
        return all(brings_in(inner) for inner in node.body)
    logger = isinstance(node, ast.Assign) and ast.unparse(node.value) == "logging.getLogger(__name__)"
    return logger or isinstance(node, ast.Import | ast.ImportFrom)


def entries(code: str, helpers: dict | None = None) -> str:
    "An exported cell as Markdown; an empty string for one that only imports."
    body = [node for node in ast.parse(code).body if not brings_in(node)]
    if not body:
        return ""
    notes = comments(code)
    helpers = private_functions([code]) if helpers is None else helpers
    parts = []
    for node in body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            parts.append(signature(node, notes, helpers))
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            parts.append(class_entry(node, notes, helpers))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            parts.append(constant(node, notes))
    source = f"```python\n{code}\n```"
    names = [node.name for node in body if isinstance(node, Function | ast.ClassDef)]
    # A constant is told by its source, which is short; what is public is described, and its source is folded.
    if not names:
        short = len(body) == 1 and parts and ":value:" in parts[0]
        return joined(*parts, "" if short else source)
    summary = f"<summary>Source of {', '.join(names)}</summary>"
    return joined(*parts, f'<details class="source">{summary}\n\n{source}\n\n</details>')


# -- What there is ----------------------------------------------------------------------------------------------------


def symbols(codes: list[str]) -> list[tuple[str, str, str]]:
    "Name, kind and first sentence of everything public in the cells of a module."
    found = []
    for code in codes:
        notes = comments(code)
        for node in ast.parse(code).body:
            if brings_in(node):
                continue
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                text = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
                found.append((node.name, "class" if isinstance(node, ast.ClassDef) else "function", text))
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if isinstance(target, ast.Name) and not target.id.startswith("_"):
                    found.append((target.id, "constant", note_of(node, notes)))
    return found
