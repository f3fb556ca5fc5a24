"""Everyone can use the page: by keyboard alone, at every width, read aloud, in light and dark."""

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.pages import ROWS, expect_rows, many, opened, picked, rows, until

WIDTHS = (320, 768, 1440)


def findings(page: Page, context: dict[str, Any] | None = None) -> list[str]:
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    found = Axe().run(page, context=context, options=options).response["violations"]
    return [f"{each['id']}: {each['help']} {[node['html'][:120] for node in each['nodes']]}" for each in found]


@pytest.mark.parametrize("triton", [ROWS], indirect=True)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1440])
def test_axe_finds_nothing(browser: Browser, address: str, tmp_path: Path, scheme: str, width: int) -> None:
    size = {"width": width, "height": 900}
    with opened(browser, address, "/status|/models$|/predict", viewport=size, color_scheme=scheme) as page:
        page.goto("/")
        expect(page.locator("#ready")).to_have_text("not ready")
        assert findings(page) == []
        picked(page, tmp_path, "a.png")
        expect_rows(page, 4)
        rows(page).first.hover()
        assert findings(page) == []
        picked(page, tmp_path, "b.txt", data=b"no picture")
        page.locator(".problem:visible").wait_for()
        assert findings(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_reference(browser: Browser, address: str, scheme: str) -> None:
    with opened(browser, address, color_scheme=scheme) as page:
        page.goto("/docs")
        page.locator("form").first.wait_for(state="attached")
        parts = ["nav", "article#predict", "article#result", "article#schema-TaskView"]  # of 3,000 elements alike
        assert findings(page, {"include": [[part] for part in parts]}) == []


@pytest.mark.parametrize("triton", [[[0, 0, 1, 1, 0.001, 0]], ROWS, many(300)], ids=[0, 5, 300], indirect=True)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_every_width(page: Page, tmp_path: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto("/")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    picked(page, tmp_path, "a-name-that-is-as-long-as-those-that-cameras-and-telephones-give.png")
    page.locator(".times:visible").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("triton", [ROWS], indirect=True)
def test_the_keyboard_is_enough(page: Page) -> None:
    page.goto("/")
    reach(page, "button.sample")
    page.keyboard.press("Enter")
    expect_rows(page, 4)
    reach(page, ".stage")
    before = page.evaluate("document.querySelector('.stage img').style.transform")
    page.keyboard.press("+")
    until(page, f"document.querySelector('.stage img').style.transform !== {before!r}")
    page.keyboard.press("0")
    until(page, f"document.querySelector('.stage img').style.transform === {before!r}")
    page.keyboard.press("n")
    expect(page.locator("tr.is-hot")).to_have_count(1)
    expect(page.locator("#live")).to_contain_text("person, 91 percent")
    reach(page, ".boxes tbody tr")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.rowIndex") == 2
    page.keyboard.press("Enter")
    expect(page.locator(".stage.is-zoomed")).to_have_count(1)
    reach(page, "#conf")
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    expect_rows(page, 3)
    reach(page, "#classes input")
    page.keyboard.press("Space")
    expect(rows(page).first).to_contain_text("car")
    reach(page, "#take-csv")
    with page.expect_download():
        page.keyboard.press("Enter")
    reach(page, "[role=tab]")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#request")).to_contain_text("httpx.post")


def reach(page: Page, selector: str) -> None:
    """Presses Tab until the element has the focus, which must be seen."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            style = "(({outlineStyle: style, outlineWidth: width}) => style !== 'none' && parseFloat(width) >= 2)"
            assert page.evaluate(f"{style}(getComputedStyle(document.activeElement))"), "the focus is not seen"
            return
    raise AssertionError(f"Tab never comes to {selector}")


@pytest.mark.parametrize("triton", [many(300)], indirect=True)
def test_the_table_says_all_that_the_canvas_says(page: Page, tmp_path: Path) -> None:
    picked(page, tmp_path, "a.png")
    page.locator(".times:visible").wait_for()
    count = int(page.locator(".summary:visible").inner_text().split()[0])
    assert count > 200
    expect_rows(page, count)
    expect(page.locator("#live")).to_contain_text(f"{count} boxes shown of")


def test_who_wants_less_motion_sees_none(browser: Browser, address: str) -> None:
    with opened(browser, address, reduced_motion="reduce") as page:
        page.goto("/")
        page.evaluate("document.body.append(Object.assign(document.createElement('i'), { className: 'runner' }))")
        assert page.evaluate("getComputedStyle(document.querySelector('.runner')).animationName") == "none"
        assert page.evaluate("getComputedStyle(document.querySelector('.intake')).transitionDuration") == "0s"


@pytest.mark.parametrize("triton", [ROWS], indirect=True)
def test_wheel_and_pinch_zoom_where_they_point(page: Page, tmp_path: Path) -> None:
    picked(page, tmp_path, "a.png")
    expect_rows(page, 4)
    page.locator(".pane-head").first.scroll_into_view_if_needed()
    box = page.locator(".stage").first.bounding_box()
    assert box is not None
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    scale = "new DOMMatrix(getComputedStyle(document.querySelector('.stage img')).transform).a"
    fitted = page.evaluate(scale)
    page.mouse.move(*middle)
    page.mouse.wheel(0, -300)
    until(page, f"{scale} > {fitted} * 1.5")
    page.mouse.dblclick(*middle)
    until(page, f"Math.abs({scale} - {fitted}) < 1e-6")
    pinch = """([x, y]) => {
        const stage = document.querySelector(".stage");
        stage.setPointerCapture = () => {};
        const send = (kind, id, dx) => stage.dispatchEvent(new PointerEvent(kind, {
            pointerId: id, clientX: x + dx, clientY: y, bubbles: true, pointerType: "touch", button: 0 }));
        send("pointerdown", 11, -40); send("pointerdown", 12, 40);
        send("pointermove", 11, -120); send("pointermove", 12, 120);
        send("pointerup", 11, -120); send("pointerup", 12, 120);
    }"""
    page.evaluate(pinch, list(middle))
    until(page, f"Math.abs({scale} / {fitted} - 3) < 0.1")
