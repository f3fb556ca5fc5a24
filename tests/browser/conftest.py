"""A headless Chromium, and the gateway with a worker for it; only Triton is a fake."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from gateway.settings import Settings
from tests.api.serving import serving, working
from tests.browser.pages import opened
from tests.support.fakes import FakeTriton

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")  # Playwright keeps an event loop running in this thread for as long as it lives
def browser() -> Iterator[Browser]:
    """Chromium from the system, with a camera; skips the test where none is installed."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("no Chromium: install it to test the pages (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_OPTIONS + _CAMERA)
        yield browser
        browser.close()


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, triton_url="127.0.0.1:1")


@pytest.fixture
def triton(request: pytest.FixtureRequest) -> FakeTriton:
    """Finds one person, or the rows that the test names as its parameter."""
    return FakeTriton(getattr(request, "param", None))


@pytest.fixture
def address(settings: Settings, triton: FakeTriton) -> Iterator[str]:
    with serving(settings) as url, working(settings, triton):
        yield url


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as page:
        yield page
