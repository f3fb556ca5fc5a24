"""The page on the whole service: a real Triton with two models. Nothing is excused here."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.pages import expect_rows, opened, until
from tests.support import tiny
from tests.support.stack import Stack, running_stack, running_triton


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    repository, folder = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("logs")
    tiny.write(repository, "finder", tiny.finder())
    tiny.write(repository, "other", tiny.finder())
    with running_triton(repository, folder) as triton, running_stack(triton, folder, "finder", workers=1) as service:
        yield service


def test_two_models_side_by_side_and_no_complaint_at_all(browser: Browser, stack: Stack) -> None:
    with opened(browser, stack.base_url, refused="^$") as page:
        page.goto("/")
        expect(page.locator("#ready")).to_have_text("ready")
        expect(page.locator("#model option")).to_have_text(["Default (finder)", "finder", "other"])
        page.locator(".sample").first.click()
        expect_rows(page, 2)
        with page.expect_request(lambda request: "model=other" in request.url):
            page.get_by_label("Beside it").select_option("other")
        expect_rows(page, 4)
        expect(page.locator(".pane-title")).to_have_text(["street.jpg · finder 1", "street.jpg · other 1"])
        expect(page.locator("#classes li")).to_have_text(["bicycle2", "person2"])
        views = "[...document.querySelectorAll('.stage img')].map((image) => image.style.transform)"
        before = page.evaluate(views)
        page.locator(".stage").first.focus()
        page.keyboard.press("+")
        until(page, f"({views})[0] !== {before[0]!r} && new Set({views}).size === 1")
        page.get_by_label("Model").select_option("other")
        expect(page.locator(".pane-title").first).to_contain_text("other 1")
        expect(page.locator("#request")).to_contain_text("model=other")
        page.get_by_role("checkbox", name="person").uncheck()
        expect(page.locator("#request")).to_contain_text("classes=bicycle")
