"The viewer in a real browser: whose the wheel is, what the keys and the fingers do, and lengths in micrometres."

import re

import browser
import lab
import numpy as np
import pytest

from petroscope.io.images import VOID
from petroscope.segmentation.classes import LumenStoneClasses
from petroscope.synth.rock import scene

pytestmark = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "everything is here")
S1 = LumenStoneClasses.S1v1
SECTION = scene((600, 900), seed=2)
MASK = np.where(np.isin(SECTION.mask, S1.codes), SECTION.mask, VOID).astype(np.uint8)


@pytest.fixture(scope="module")
def chromium():
    with lab.chromium() as chromium:
        yield chromium


@pytest.fixture
def overlay():
    from petroscope.notebook.widgets import explore_overlay

    return explore_overlay(SECTION.image, MASK, S1, pixel_size_um=0.5)


@pytest.fixture
def desk(tmp_path):
    from petroscope.notebook.widgets import touch_up

    return touch_up(SECTION.image, MASK, S1, tmp_path / "mask.png")


def scrolls(moved):
    return moved[0] > 50 and moved[1] == 1


def zooms(moved):
    return moved[0] == 0 and moved[1] > 1.05


# ---- the wheel


def test_the_wheel_scrolls_the_page_until_the_photo_is_clicked(chromium, overlay):
    with browser.shown(chromium, overlay) as view:
        view.page.mouse.move(*view.at())
        assert scrolls(view.wheel(120))
        assert "click" in view.hint.text_content() and "Ctrl" in view.hint.text_content()
        view.page.evaluate("scrollTo(0, 0)")
        view.page.mouse.click(*view.at())
        assert zooms(view.wheel(-120)) and view.hint.get_attribute("hidden") is not None


@pytest.mark.parametrize("leave", ["Escape", "click", "Tab", "window"])
def test_the_wheel_is_given_back(chromium, overlay, leave):
    with browser.shown(chromium, overlay) as view:
        view.page.mouse.click(*view.at())
        assert zooms(view.wheel(-120))
        if leave == "Escape":
            view.page.keyboard.press("Escape")
        elif leave == "click":
            view.page.locator("#before").click()
        elif leave == "Tab":
            view.page.locator("#after").focus()
        else:  # a click into another frame is told to this one as the loss of its window
            view.page.evaluate("window.dispatchEvent(new Event('blur'))")
        view.page.mouse.move(*view.at())
        view.page.wait_for_timeout(300)
        assert scrolls(view.wheel(120)), f"after {leave} the wheel is still the photo's"


@pytest.mark.parametrize("key", ["Control", "Meta"])
def test_the_wheel_zooms_while_a_key_is_held(chromium, overlay, key):
    with browser.shown(chromium, overlay) as view:
        view.page.mouse.move(*view.at())
        view.page.keyboard.down(key)
        moved = view.wheel(-120)
        view.page.keyboard.up(key)
        assert zooms(moved) and moved[1] < 1.6, "a notch of the wheel is a step, not a leap"
        assert scrolls(view.wheel(120)), "the key is no click"


def test_a_pinch_on_a_touchpad_zooms(chromium, overlay):
    "A browser tells of it as many small turns of the wheel with Ctrl."
    with browser.shown(chromium, overlay) as view:
        view.page.mouse.move(*view.at())
        turn = "e => e.dispatchEvent(new WheelEvent('wheel', {deltaY: -6, ctrlKey: true, cancelable: true}))"
        before = view.zoom
        held = [view.canvas.evaluate(turn) for _ in range(8)]
        view.settle()
        assert view.zoom / before == pytest.approx(np.exp(0.48), rel=0.01)
        assert held == [False] * 8, "the browser would zoom the page as well"


def test_a_pinch_in_safari_zooms(chromium, overlay):
    with browser.shown(chromium, overlay) as view:
        before = view.zoom
        made = "Object.assign(new Event(kind, {cancelable: true}), {scale, clientX: 200, clientY: 200})"
        told = [("gesturestart", 1), ("gesturechange", 1.5), ("gesturechange", 2)]
        held = [view.canvas.evaluate(f"(e, [kind, scale]) => e.dispatchEvent({made})", each) for each in told]
        view.settle()
        assert view.zoom / before == pytest.approx(2, rel=0.01) and held == [False] * 3


def test_who_scrolls_past_the_photo_goes_on_scrolling(chromium, overlay):
    with browser.shown(chromium, overlay) as view:
        view.page.mouse.click(*view.at())
        zoom = view.zoom
        view.page.mouse.move(*(view.page.locator("#before").bounding_box()[k] + 5 for k in "xy"))
        for _ in range(3):
            view.page.mouse.wheel(0, 15)
        view.page.mouse.move(*view.at())
        view.page.mouse.wheel(0, 15)
        view.settle()
        assert view.zoom == zoom and view.scrolled >= 45


def test_sideways_the_wheel_pans(chromium, overlay):
    with browser.shown(chromium, overlay) as view:
        view.page.mouse.click(*view.at())
        view.wheel(-240), view.wheel(-240)
        before, zoom = float(view.root.get_attribute("data-col")), view.zoom
        moved = view.wheel(0, across=60)
        after = float(view.root.get_attribute("data-col"))
        assert moved == (0, 1) and after - before == pytest.approx(60 / zoom, abs=0.2)


# ---- a click that only wakes the viewer


def test_the_first_click_paints_nothing_and_a_stroke_paints(chromium, desk):
    with browser.shown(chromium, desk) as view:
        before = desk.retouch.mask.copy()
        view.page.mouse.click(*view.at(0.4, 0.4))
        view.settle()
        assert (desk.retouch.mask == before).all() and "again" in view.hint.text_content()
        view.page.mouse.click(*view.at(0.4, 0.4))
        view.settle()
        assert (desk.retouch.mask != before).any() and desk.history == [True, False]
        view.page.keyboard.press("Control+z")
        view.page.keyboard.press("Escape")
        view.settle()
        assert (desk.retouch.mask == before).all()
        drag(view, (0.3, 0.3), (0.6, 0.6))
        assert (desk.retouch.mask != before).sum() > 100, "a stroke is meant, whoever had the wheel"


def drag(view, start, end):
    view.page.mouse.move(*view.at(*start))
    view.page.mouse.down()
    view.page.mouse.move(*view.at(*end), steps=5)
    view.page.mouse.up()
    view.settle()


def test_the_first_click_fills_nothing(chromium, desk):
    desk.tool = "fill"
    with browser.shown(chromium, desk) as view:
        before = desk.retouch.mask.copy()
        desk.brush_code = next(code for code in S1.codes if code not in np.unique(before[250:350, 400:500]))
        view.page.evaluate(f"model.take({{brush_code: {desk.brush_code}}})")
        view.page.mouse.click(*view.at())
        view.settle()
        assert (desk.retouch.mask == before).all()
        view.page.mouse.click(*view.at())
        view.settle()
        assert (desk.retouch.mask != before).any()


def test_escape_takes_back_the_stroke_that_is_being_drawn(chromium, desk):
    with browser.shown(chromium, desk) as view:
        before = desk.retouch.mask.copy()
        view.page.mouse.move(*view.at(0.3, 0.3))
        view.page.mouse.down()
        view.page.mouse.move(*view.at(0.6, 0.6), steps=4)
        view.page.keyboard.press("Escape")
        view.page.mouse.move(*view.at(0.7, 0.3), steps=4)
        view.page.mouse.up()
        view.settle()
        assert (desk.retouch.mask == before).all()


# ---- keys


def test_keys_work_once_the_photo_is_reached_and_buttons_keep_them(chromium, desk):
    with browser.shown(chromium, desk) as view:
        zoom = view.zoom
        view.page.keyboard.press("+")
        view.settle()
        assert view.zoom == zoom, "a key belongs to whom the focus is on"
        view.canvas.focus()
        view.page.keyboard.press("+")
        view.settle()
        assert view.zoom > 1.3 * zoom
        before = float(view.root.get_attribute("data-col"))
        view.page.keyboard.press("ArrowRight")
        view.settle()
        assert float(view.root.get_attribute("data-col")) > before
        view.page.keyboard.press("0")
        view.settle()
        assert view.zoom == pytest.approx(zoom, rel=0.01)
        view.page.locator("button[aria-label=fill]").click()
        view.settle()
        assert desk.tool == "fill"
        focus = "document.activeElement.getAttribute('aria-label')"
        assert view.page.evaluate(focus) == "fill", "the buttons are made anew, and the focus stays"


def test_the_photo_is_reached_with_tab_and_left_with_it(chromium, overlay):
    with browser.shown(chromium, overlay) as view:
        view.page.locator("#before").focus()
        reached = 0
        for _ in range(40):
            view.page.keyboard.press("Tab")
            inside = view.page.evaluate("document.activeElement.tagName") == "CANVAS"
            reached += inside
            if inside:
                view.page.mouse.move(*view.at())
                assert zooms(view.wheel(-120))
            if view.page.evaluate("document.activeElement.id") == "after":
                break
        assert reached == 1 and view.page.evaluate("document.activeElement.id") == "after"
        assert scrolls(view.wheel(120))


# ---- fingers


def touch(view, *ways):
    "Fingers that go from one place to another at once, both given as pixels from the middle, across and down."
    session, (x, y) = view.page.context.new_cdp_session(view.page), view.at()
    for step in np.linspace(0, 1, 13):
        points = [[x + a[0] + step * (b[0] - a[0]), y + a[1] + step * (b[1] - a[1])] for a, b in ways]
        touches = [{"x": across, "y": down, "id": i} for i, (across, down) in enumerate(points)]
        kind = "touchMove" if step else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
        view.page.wait_for_timeout(16)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    view.settle()


UP, APART = [((0, 60), (0, -60))], [((-30, 0), (-80, 0)), ((30, 0), (80, 0))]


def test_one_finger_scrolls_the_page_and_two_zoom(chromium, overlay):
    with browser.shown(chromium, overlay, width=390, has_touch=True, is_mobile=True) as view:
        zoom = view.zoom
        touch(view, *UP)
        assert view.scrolled > 60 and view.zoom == zoom
        assert "two fingers" in view.hint.text_content().lower()
        view.page.evaluate("scrollTo(0, 0)")
        touch(view, *APART)
        assert view.zoom > 1.5 * zoom and view.scrolled == 0
        assert view.page.evaluate("visualViewport.scale") == 1, "the page was zoomed as well"


def test_after_a_tap_one_finger_moves_the_photo(chromium, overlay):
    with browser.shown(chromium, overlay, width=390, has_touch=True, is_mobile=True) as view:
        touch(view, *APART)
        view.page.touchscreen.tap(*view.at())
        row = float(view.root.get_attribute("data-row"))
        touch(view, *UP)
        assert view.scrolled == 0 and float(view.root.get_attribute("data-row")) > row + 5


def test_fingers_paint_only_after_a_tap(chromium, desk):
    with browser.shown(chromium, desk, width=390, has_touch=True, is_mobile=True) as view:
        before = desk.retouch.mask.copy()
        touch(view, *UP)
        view.page.evaluate("scrollTo(0, 0)")
        view.page.touchscreen.tap(*view.at())
        view.settle()
        assert (desk.retouch.mask == before).all()
        touch(view, *UP)
        assert view.scrolled == 0 and (desk.retouch.mask != before).any()


# ---- lengths


def told(view, across, down):
    view.page.mouse.move(*view.at(across, down))
    return view.page.locator(".petroscope-readout").text_content()


def test_the_status_line_is_in_micrometres_where_the_pixel_size_is_known(chromium, overlay):
    with browser.shown(chromium, overlay) as view:
        text = told(view, 0.5, 0.5)
        x, y = (float(re.search(rf"{axis} ([\d.]+) µm", text)[1]) for axis in "xy")
        assert (x, y) == (pytest.approx(225, abs=1), pytest.approx(150, abs=1)), text
        assert re.search(r"row \d+, col \d+", text)
        # A fifth of what is seen, at most: 900 px of 0.5 µm are 450 µm wide.
        assert view.root.get_attribute("data-scale") in ("50 µm", "100 µm")
        view.page.evaluate("model.take({pixel_size_um: 50})")
        view.settle()
        assert re.search(r"x 22\.\d+ mm", told(view, 0.5, 0.49)) and "mm" in view.root.get_attribute("data-scale")
        view.page.evaluate("model.take({pixel_size_um: null})")
        view.settle()
        assert "µm" not in told(view, 0.5, 0.5) and view.root.get_attribute("data-scale") is None


def test_the_scale_bar_is_as_long_as_it_says(chromium, overlay):
    "Its black line, counted in the picture, against the zoom and the pixel size."
    import cv2

    with browser.shown(chromium, overlay) as view:
        raw = np.frombuffer(view.canvas.screenshot(), np.uint8)
        picture = cv2.imdecode(raw, cv2.IMREAD_COLOR)
        length = float(view.root.get_attribute("data-scale").split()[0])
        dark = (picture[-17:-15, -180:] < 60).all(axis=(0, 2)) & (picture[-12, -180:] > 200).all(axis=1)
        assert dark.sum() == pytest.approx(length / 0.5 * view.zoom, abs=1.5)


def test_the_brush_is_told_in_micrometres(chromium, desk):
    desk.pixel_size_um, desk.brush_size = 0.5, 12
    with browser.shown(chromium, desk) as view:
        assert view.page.locator(".petroscope-size").text_content() == "12 px · 6 µm"
