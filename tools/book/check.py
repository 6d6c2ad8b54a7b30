"What is wrong with a built site: links that lead nowhere, pages nobody can reach, and requests to other hosts."

import posixpath
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Pages that Sphinx makes for itself; nobody needs to reach them by a link.
ALONE = {"search.html", "genindex.html", "404.html", "py-modindex.html"}


class Page(HTMLParser):
    "The links, pictures and anchors of a page."

    def __init__(self, text: str):
        super().__init__()
        self.targets: list[str] = []  # what a reader may follow
        self.loaded: list[str] = []  # what the browser fetches by itself
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and "href" in given:
            self.targets.append(given["href"])
        elif tag in ("script", "img", "iframe", "source", "video", "audio", "embed") and "src" in given:
            self.loaded.append(given["src"])
        elif tag == "link" and not {"search", "index", "next", "prev", "canonical"} & set(given.get("rel", "").split()):
            self.loaded.append(given.get("href", ""))

    handle_startendtag = handle_starttag


def read(site: Path) -> dict[str, Page]:
    "Every page of the site."
    pages = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)
    return {p.relative_to(site).as_posix(): Page(p.read_text(encoding="utf-8")) for p in pages}


def inside(page: str, link: str) -> tuple[str, str] | None:
    "File and anchor of a link, or None where it leaves the site."
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    file = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path))) if parts.path else page
    return file + "/index.html" if parts.path.endswith("/") else file, unquote(parts.fragment)


def broken_links(site: Path) -> list[str]:
    "Links within the site to files or anchors that are not there, each with its page."
    pages, found = read(site), []
    for name, page in pages.items():
        for link in [*page.targets, *page.loaded]:
            target = inside(name, link)
            if target is None or link.startswith("data:"):
                continue
            file, anchor = target
            if not (site / file).is_file():
                found.append(f"{name}: {link}: there is no such file")
            elif anchor and file in pages and anchor not in pages[file].anchors:
                found.append(f"{name}: {link}: there is no such anchor")
    return sorted(set(found))


def unreachable(site: Path) -> list[str]:
    "Pages that cannot be reached from the front page."
    pages = read(site)
    todo, seen = ["index.html"], set()
    while todo:
        name = todo.pop()
        if name in seen or name not in pages:
            continue
        seen.add(name)
        todo += [target[0] for link in pages[name].targets if (target := inside(name, link))]
    return sorted(set(pages) - seen - ALONE)


def foreign_requests(site: Path) -> list[str]:
    "What the pages would ask other hosts for; links that a reader must click are not among it."
    found = []
    for name, page in read(site).items():
        found += [f"{name}: {url}" for url in page.loaded if re.match(r"(https?:)?//", url)]
    loaded = re.compile(r"(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"')]+)")
    for path in site.rglob("*.css"):
        found += [f"{path.relative_to(site).as_posix()}: {url}" for url in loaded.findall(path.read_text("utf-8"))]
    return sorted(found)


def faults(site: Path) -> list[str]:
    "Everything that is wrong, a line each."
    return [
        *(f"broken link: {line}" for line in broken_links(site)),
        *(f"a page that nothing leads to: {line}" for line in unreachable(site)),
        *(f"a page asks another host: {line}" for line in foreign_requests(site)),
    ]
