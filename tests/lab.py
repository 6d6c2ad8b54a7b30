"A notebook in JupyterLab, in a browser without a window: opened, run, looked at and touched as a reader does."

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = [found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))]
# No news, no settings of the user, no list of extensions from elsewhere, nothing to click away.
OPTIONS = {
    "ServerApp.ip": "127.0.0.1",
    "ServerApp.open_browser": False,
    "ServerApp.port_retries": 0,
    "ServerApp.allow_root": True,
    "IdentityProvider.token": "",
    "LabApp.news_url": None,
    "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    "LabApp.extension_manager": "readonly",
    "LabApp.expose_app_in_browser": True,
}
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}
WIDGET = "application/vnd.jupyter.widget-view+json"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CURRENT = "const panel = window.jupyterapp?.shell.currentWidget;"
READY = (
    CURRENT + "return panel?.content?.model?.cells?.length && panel.sessionContext.session?.kernel?.status == 'idle';"
)
RUN = (
    CURRENT
    + """
window.ran = false;
window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.ran = true; });
"""
)
CELLS = (
    CURRENT
    + """
return [...panel.content.model.cells].filter(cell => cell.type == 'code').map(cell => (
    {source: cell.sharedModel.source, count: cell.executionCount, outputs: cell.outputs.toJSON()}));
"""
)


def missing() -> str:
    "What keeps a notebook from being opened in JupyterLab here, in one sentence; empty where nothing does."
    from importlib.util import find_spec

    for module, what in {"jupyterlab": "JupyterLab", "ipykernel": "ipykernel", "playwright": "playwright"}.items():
        if find_spec(module) is None:
            return f"{what} is not installed (pip install {module})"
    return "" if CHROMIUM else "no Chromium is installed (Debian: apt install chromium)"


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


@contextlib.contextmanager
def jupyterlab(folder: Path, home: Path, seconds: float = 60) -> Iterator[str]:
    "JupyterLab over `folder` with this interpreter as its kernel, its own files in `home`; its address."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kernel = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": kernel, "display_name": "Python 3", "language": "python"}
    write_json(home / "path/kernels/python3/kernel.json", spec)
    for plugin, settings in SETTINGS.items():
        package, name = plugin.split(":")
        write_json(home / f"settings/{package}/{name}.jupyterlab-settings", settings)
    own = {
        **{f"JUPYTER_{what}_DIR": str(home / what.lower()) for what in ("CONFIG", "DATA", "RUNTIME")},
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_PATH": str(home / "path"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"} | own
    options = [f"--{name}={value}" for name, value in OPTIONS.items()]
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        *options,
        f"--ServerApp.port={port}",
        f"--ServerApp.root_dir={folder}",
    ]
    url, log = f"http://127.0.0.1:{port}", home / "server.log"
    with (
        open(log, "w") as said,
        subprocess.Popen(command, env=environment, stdout=said, stderr=said, cwd=home) as server,
    ):
        try:
            wait_for(f"{url}/api", server, log, seconds)
            yield url
        finally:
            # Asked to end, the server ends its kernels too.
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def wait_for(url: str, server: subprocess.Popen, log: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not answer at {url} within {seconds} s:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    "A browser without a window."
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM[0], args=flags)
        try:
            yield browser
        finally:
            browser.close()


class Notebook:
    "A notebook that is open in JupyterLab, and what the browser asked for and complained about."

    def __init__(self, browser: Any, url: str, path: str, seconds: float = 120):
        self.path, self.foreign, self.complaints = path, list[str](), list[str]()
        self.page = browser.new_page(viewport={"width": 1300, "height": 1100})
        self.page.set_default_timeout(1000 * seconds)
        self.page.on("request", lambda request: self._requested(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.complaints.append(said.text))
        self.page.goto(f"{url}/lab/tree/{path}?reset")
        self._until(READY)

    def _requested(self, url: str) -> None:
        if url.startswith(("http", "ws")) and "//127.0.0.1:" not in url:
            self.foreign.append(url)

    def _until(self, javascript: str, seconds: float | None = None) -> None:
        timeout = {} if seconds is None else {"timeout": 1000 * seconds}
        self.page.wait_for_function(f"() => {{ {javascript} }}", **timeout)

    def run(self, seconds: float = 300) -> None:
        "Run every cell, and wait until the last one is done."
        self.page.evaluate(f"() => {{ {RUN} }}")
        self._until("return window.ran;", seconds)
        self._until(READY, seconds)

    def cells(self) -> list[dict[str, Any]]:
        "The code cells: `source`, `count` of the execution, and `outputs`."
        return self.page.evaluate(f"() => {{ {CELLS} }}")

    def errors(self) -> list[str]:
        "The tracebacks of the cells that failed, without their colours."
        outputs = [(cell["source"], output) for cell in self.cells() for output in cell["outputs"]]
        failed = [(source, output) for source, output in outputs if output["output_type"] == "error"]
        return [COLOUR.sub("", "\n".join([source, *output["traceback"]])) for source, output in failed]

    def widgets(self) -> list[Any]:
        "The outputs that are widgets, each as something to look at and to touch, once all of them are drawn."
        found = []
        for cell, outputs in enumerate(cell["outputs"] for cell in self.cells()):
            shown = self.page.locator(".jp-Notebook .jp-CodeCell").nth(cell).locator(".jp-OutputArea-child")
            kinds = [output.get("data", {}) for output in outputs]
            # A progress bar is a widget too, but none to touch.
            numbers = [k for k, kind in enumerate(kinds) if WIDGET in kind and "%|" not in "".join(kind["text/plain"])]
            found += [shown.nth(k).locator(".jp-OutputArea-output") for k in numbers]
        for widget in found:
            widget.locator(":is(button, canvas, img, input, .noUi-handle, svg):visible").first.wait_for()
        return found

    def changes(self, what: Any, move: Any, seconds: float = 20) -> bool:
        "Does `what` look different after `move()`?"
        before, end = what.screenshot(), time.monotonic() + seconds
        move()
        while (same := what.screenshot() == before) and time.monotonic() < end:
            self.page.wait_for_timeout(100)
        return not same

    def moves(self, widget: Any) -> dict[str, bool]:
        "Move what can be moved on a widget: what was moved, and whether the picture followed."
        widget.scroll_into_view_if_needed()
        canvas, images = widget.locator("canvas"), widget.locator("img")
        picture, mouse = (canvas if canvas.count() else images).first, self.page.mouse
        slider, box = widget.locator("input[type=range]").first, widget.locator("input[type=checkbox]").first

        def at(across: float, down: float) -> tuple[float, float]:
            edge = picture.bounding_box()
            return edge["x"] + across * edge["width"], edge["y"] + down * edge["height"]

        def slide() -> None:
            slider.press("Home")
            slider.press("End")

        def drag() -> None:
            mouse.down()
            mouse.move(*at(0.6, 0.6), steps=4)
            mouse.up()

        # The whole picture first: what a box hides may lie outside of what is left after zooming in.
        moved = {"page": self.scrolls(canvas.first, at)} if canvas.count() else {}
        moved |= {"slider": self.changes(picture, slide)} if slider.count() else {}
        moved |= {"box": self.changes(picture, box.click)} if box.count() else {}
        if canvas.count():
            mouse.click(*at(0.4, 0.5))
            self.page.wait_for_timeout(1800)  # what is told of the place under the pointer, or of the click, is no zoom
            moved["zoom"] = self.changes(picture, lambda: mouse.wheel(0, -400))
            moved["drag"] = self.changes(picture, drag)
        return moved

    def scrolls(self, canvas: Any, at: Any) -> bool:
        "Does the wheel over a photo that nobody clicked move the notebook, and leave the photo as it is?"
        told = "canvas => canvas.closest('.petroscope-viewer').dataset.zoom"
        zoom, before = canvas.evaluate(told), canvas.bounding_box()["y"]
        for turn in (-120, 120):  # at the end of a notebook it only goes one way
            self.page.mouse.move(*at(0.4, 0.5))
            self.page.mouse.wheel(0, turn)
            self.page.wait_for_timeout(600)
            if canvas.bounding_box()["y"] != before:
                break
        scrolled = canvas.bounding_box()["y"] != before
        canvas.scroll_into_view_if_needed()
        return scrolled and canvas.evaluate(told) == zoom

    def close(self) -> None:
        self.page.close()
