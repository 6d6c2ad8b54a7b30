"A viewer in a browser without a notebook: its own script and style, a model between it and Python, and a long page."

import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import lab

HOST = "http://viewer.invalid/"
# What anywidget's model does between a view and Python: values with changes that are told, and messages.
SCRIPT = """
import widget from "./viewer.js";
const unpack = (name, value) => {
  if (!value || typeof value !== "object" || !value.__bytes__) return value;
  return new DataView(Uint8Array.from(atob(value.__bytes__), (c) => c.charCodeAt(0)).buffer);
};
class Model {
  constructor(state) { this.state = state; this.actions = []; this.changed = {}; }
  get(name) { return this.state[name]; }
  set(name, value) { this.take({ [name]: value }); this.changed[name] = value; }
  take(values) {
    for (const [name, value] of Object.entries(values)) {
      if (JSON.stringify(this.state[name]) === JSON.stringify(value)) continue;
      this.state[name] = value;
      this.tell(`change:${name}`);
    }
  }
  tell(event, ...given) { for (const [name, action] of [...this.actions]) if (name === event) action(...given); }
  on(name, action) { this.actions.push([name, action]); }
  off(name, action) { this.actions = this.actions.filter(([n, a]) => n !== name || a !== action); }
  save_changes() { const values = this.changed; this.changed = {}; this.python({ values }); }
  send(message) { this.python({ message }); }
  async python(said) {
    const { values, messages } = JSON.parse(await window.python(JSON.stringify(said)), unpack);
    this.take(values);
    for (const [content, buffers] of messages) this.tell("msg:custom", content, buffers);
  }
}
window.model = new Model(JSON.parse(document.querySelector("#state").textContent, unpack));
window.remove = widget.render({ model: window.model, el: document.querySelector("#widget") });
"""
PAGE = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<link rel="stylesheet" href="viewer.css"><style>:root {{ color-scheme: {scheme}; }} body {{ margin: 12px; }}</style>
<p id="before" tabindex="0">Above.</p><div id="widget"></div><p id="after" tabindex="0">Below.</p>
<div style="height: 4000px"></div><script type="application/json" id="state">{state}</script>
<script type="module">{script}</script>"""


def packed(value: Any) -> str:
    "JSON, with bytes as text."
    return json.dumps(value, default=lambda data: {"__bytes__": base64.b64encode(data).decode()}).replace("</", "<\\/")


class Shown:
    "A viewer that is shown: the page, and what its canvas is."

    def __init__(self, page: Any, viewer: Any):
        self.page, self.viewer, self.sent = page, viewer, list[Any]()
        self.root, self.canvas = page.locator(".petroscope-viewer"), page.locator(".petroscope-viewer canvas")
        self.stage, self.hint = page.locator(".petroscope-stage"), page.locator(".petroscope-hint")
        self.names = [name for name in viewer.keys if not name.startswith("_") and name not in ("layout", "tooltip")]
        viewer.send = lambda content, buffers=(): self.sent.append([content, list(buffers or ())])

    def answer(self, said: str) -> str:
        "What Python makes of a change or of a message: the values that differ by then, and messages back."
        from petroscope.notebook.viewer import answer

        told = json.loads(said)
        for name, value in told.get("values", {}).items():
            setattr(self.viewer, name, value)
        if "message" in told:
            answer(self.viewer, told["message"])
        messages, self.sent = self.sent, []
        small = [name for name in self.names if name not in ("pictures", "labels")]
        return packed({"values": {name: getattr(self.viewer, name) for name in small}, "messages": messages})

    def at(self, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
        "A place on the canvas, as shares of its width and height, in pixels of the window."
        box = self.canvas.bounding_box()
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    def settle(self) -> None:
        "Wait until nothing moves: neither the page nor the photo."
        state = "JSON.stringify([scrollY, document.querySelector('.petroscope-viewer').dataset])"
        before = None
        while before != (before := self.page.evaluate(state)):
            self.page.wait_for_timeout(130)

    @property
    def zoom(self) -> float:
        return float(self.root.get_attribute("data-zoom"))

    @property
    def scrolled(self) -> float:
        return self.page.evaluate("scrollY")

    def wheel(self, down: float, across: float = 0) -> tuple[float, float]:
        "Turn the wheel where the mouse is: how far the page scrolls, and by what factor the photo grows."
        scrolled, zoom = self.scrolled, self.zoom
        self.page.mouse.wheel(across, down)
        self.settle()
        return self.scrolled - scrolled, self.zoom / zoom


@contextlib.contextmanager
def shown(browser: Any, viewer: Any, width: int = 900, scheme: str = "light", **context: Any) -> Iterator[Shown]:
    "A viewer on a page of its own."
    from petroscope.notebook.viewer import assets

    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, **context}
    with browser.new_context(**options) as tab:
        page = tab.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        made = Shown(page, viewer)
        state = packed({name: getattr(viewer, name) for name in made.names})
        files = {name: (assets() / name).read_text(encoding="utf-8") for name in ("viewer.js", "viewer.css")}
        files[""] = PAGE.format(scheme=scheme, state=state, script=SCRIPT)
        kinds = {"js": "text/javascript", "css": "text/css"}

        def serve(route: Any) -> None:
            name = route.request.url.removeprefix(HOST)
            route.fulfill(body=files.get(name, ""), content_type=kinds.get(name.split(".")[-1], "text/html"))

        page.route(HOST + "**", serve)
        page.expose_function("python", made.answer)
        page.goto(HOST)
        page.wait_for_function("document.querySelector('.petroscope-viewer')?.dataset.waiting === '0'")
        page.wait_for_timeout(150)
        yield made
        assert wrong == []


def missing() -> str:
    "What keeps a viewer from being shown in a browser here; empty where nothing does."
    from importlib.util import find_spec

    for module in ("anywidget", "playwright"):
        if find_spec(module) is None:
            return f"{module} is not installed (pip install {module})"
    return "" if lab.CHROMIUM else "no Chromium is installed (Debian: apt install chromium)"
