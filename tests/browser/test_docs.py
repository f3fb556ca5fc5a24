"""/docs in a browser."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.support.pictures import encoded


def test_the_page_shows_every_operation(page: Page) -> None:
    page.goto("/docs")
    document = page.request.get("/openapi.json").json()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            article = page.locator(f"article#{operation['operationId']}")
            heading = article.locator("h3").inner_text()
            assert path in heading and method.upper() in heading
            assert article.locator("summary b").all_inner_texts() == list(operation["responses"])
    for code in document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]:
        assert page.locator(f"#error-{code}").count() == 1


def test_every_link_of_the_page_leads_somewhere(page: Page) -> None:
    page.goto("/docs")
    broken = page.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].map(each => each.getAttribute('href'))"
        ".filter(href => !document.getElementById(href.slice(1)))"
    )
    assert broken == []


def test_the_page_can_be_read_without_javascript(browser: Browser, address: str) -> None:
    with browser.new_context(base_url=address, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/docs")
        assert page.locator("#predict >> text=multipart/form-data").is_visible()
        assert f"curl -s -F image=@photo.jpg '{address}/predict'" in page.locator("#predict .curl").inner_text()
        assert page.locator("form").count() == 0


def test_a_request_can_be_sent_from_the_page(page: Page, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(encoded(640, 480))
    page.goto("/docs")
    predict = page.locator("#predict")
    predict.get_by_text("Send it from here").click()
    predict.locator("input[type=file]").set_input_files(picture)
    predict.locator("input[name=wait]").fill("20")
    predict.get_by_role("button", name="Send").click()
    head, body = predict.locator("output pre").first, predict.locator("output pre").nth(1)
    body.wait_for()
    assert head.inner_text().startswith("200 OK") and "content-location: /result/" in head.inner_text()
    assert '"label": "person"' in body.inner_text()


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_the_page_fits_every_width(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto("/docs")
    page.locator("form").first.wait_for(state="attached")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_two_pages_link_to_each_other(page: Page) -> None:
    page.goto("/docs")
    page.get_by_role("link", name="Try it").click()
    page.get_by_role("link", name="API").click()
    assert page.url.endswith("/docs")
