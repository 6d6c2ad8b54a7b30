"Pieces of Markdown that pages are written from."

import ast
import re

COMMENT = re.compile(r"^(?:[^\"'#]|\"[^\"]*\"|'[^']*')*#\s*(.*?)\s*$")


def plain(text: str) -> str:
    "A text in a table's cell."
    return text.replace("|", "\\|").replace("\n", " ")


def code_span(text: str) -> str:
    "Code in a table's cell."
    ticks = "``" if "`" in text else "`"
    return ticks + plain(text) + ticks if text else ""


def table(header: list[str], rows: list[list[str]]) -> str:
    "A table, without the columns that say nothing; an empty text without rows."
    told = [column for column in range(len(header)) if any(row[column] for row in rows)]
    lines = [[line[column] for column in told] for line in (header, ["---"] * len(header), *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) if rows else ""


def fence(name: str, argument: str, body: str, **options: str) -> str:
    "A directive of MyST."
    lines = [f":{key}: {value}".rstrip() for key, value in options.items()]
    return "\n".join([f"```{{{name}}} {argument}".rstrip(), *lines, "", body.strip(), "```"])


def joined(*parts: str | None) -> str:
    return "\n\n".join(filter(None, parts))


def note_of(node: ast.AST, lines: list[str]) -> str:
    "The comment of a parameter, a field or a constant: at its end, or else on the lines right above it."
    if found := COMMENT.match(lines[node.end_lineno - 1]):
        return found[1]
    above = node.lineno - 1
    while above and lines[above - 1].lstrip().startswith("#"):
        above -= 1
    return " ".join(line.lstrip(" #") for line in lines[above : node.lineno - 1])
