"""A headless Chromium, and the gateway with a worker for it; only Triton is a fake."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from gateway.settings import Settings
from tests.api.serving import serving, working
from tests.support.fakes import FakeTriton

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")  # Playwright keeps an event loop running in this thread for as long as it lives
def browser() -> Iterator[Browser]:
    """Chromium from the system; skips the test where none is installed."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("no Chromium: install it to test the pages (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def address(redis_url: str) -> Iterator[str]:
    settings = Settings(redis_url=redis_url, triton_url="127.0.0.1:1")
    with serving(settings) as url, working(settings, FakeTriton()):
        yield url
