"""Pages that may talk to the gateway only, and what a person does on the one at `/`."""

import base64
import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from tests.support.pictures import encoded

SIZE_WH = (640, 480)
# In pixels of a picture of SIZE_WH, which the input of the fake model is as large as.
ROWS: list[list[float]] = [
    [40, 40, 200, 320, 0.91, 0],
    [220, 60, 380, 340, 0.8125, 0],
    [400, 80, 520, 220, 0.62, 2],
    [30, 340, 130, 460, 0.4, 1],
    [500, 320, 620, 460, 0.18, 2],
]


def many(count: int) -> list[list[float]]:
    """Rows of boxes that do not touch, best first."""
    columns = int(np.ceil(np.sqrt(count)))
    width, height = 640 / columns, 480 / columns
    scores = np.linspace(0.95, 0.02, count)
    return [
        [x * width, y * height, (x + 0.8) * width, (y + 0.8) * height, float(score), index % 3]
        for index, score in enumerate(scores)
        for y, x in [divmod(index, columns)]
    ]


@contextlib.contextmanager
def opened(browser: Browser, address: str, refused: str = "/status|/models$", **options: Any) -> Iterator[Page]:
    """A page of a gateway; raises AssertionError at its end if it asked other hosts or complained.

    Chromium complains of every answer that is an error: those of paths that match `refused` are no complaint. The fake
    is no Triton that /status and /models could see.
    """
    foreign: list[str] = []
    complaints: list[str] = []

    def seen(request: Request) -> None:
        if not request.url.startswith((f"{address}/", "data:", "blob:")):
            foreign.append(request.url)

    def said(message: ConsoleMessage) -> None:
        is_refusal = "Failed to load resource" in message.text and re.search(refused, message.location["url"])
        if message.type in ("error", "warning") and not is_refusal:
            complaints.append(f"{message.text} {message.location}")

    with browser.new_context(base_url=address, **options) as context:
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("request", seen)
        page.on("console", said)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
    assert not foreign, f"the page asks other hosts: {foreign}"
    assert not complaints, "\n".join(complaints)


def picked(page: Page, folder: Path, *names: str, data: bytes | None = None) -> None:
    """Picks files of these names, pictures of SIZE_WH unless `data` is given, on a page that is opened by it."""
    if page.url == "about:blank":
        page.goto("/")
    for name in names:
        (folder / name).write_bytes(data if data is not None else encoded(*SIZE_WH))
    page.locator("#picker").set_input_files([folder / name for name in names])


def rows(page: Page) -> Any:
    """The rows of the table that are shown."""
    return page.locator(".pane:not([hidden]) .boxes tbody tr:not([hidden])")


def expect_rows(page: Page, count: int) -> None:
    expect(rows(page)).to_have_count(count, timeout=15_000)


def hand_over(page: Page, kind: str, target: str = "document.body") -> bool:
    """Drops or pastes a picture; whether the page took it."""
    picture = base64.b64encode(encoded(*SIZE_WH)).decode()
    code = """([picture, kind, target]) => {
        const bytes = Uint8Array.from(atob(picture), (each) => each.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], `${kind}.png`, { type: "image/png" }));
        const options = { bubbles: true, cancelable: true };
        const event = kind === "paste"
            ? new ClipboardEvent("paste", { ...options, clipboardData: data })
            : new DragEvent(kind, { ...options, dataTransfer: data });
        document.querySelector(target).dispatchEvent(event);
        return event.defaultPrevented;
    }"""
    return bool(page.evaluate(code, [picture, kind, target.removeprefix("document.")]))


def until(page: Page, expression: str) -> None:
    """Waits for JavaScript to be true. The policy of the page forbids the eval of Playwright's wait_for_function."""
    deadline = time.monotonic() + 15
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"never true: {expression}"
        page.wait_for_timeout(50)


def slide(page: Page, identity: str, value: float) -> None:
    """Moves a slider as a pointer does: input events on the way, a change at the end."""
    code = """(element, value) => {
        element.value = value;
        element.dispatchEvent(new Event("input", { bubbles: true }));
        element.dispatchEvent(new Event("change", { bubbles: true }));
    }"""
    page.locator(f"#{identity}").evaluate(code, str(value))
