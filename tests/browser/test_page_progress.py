"""How far a task is, what goes wrong, and what the page does about it."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from playwright.sync_api import Browser, Page, expect

from gateway.security.api_keys import new_key
from gateway.settings import Settings
from local.processes import running
from local.wheel import ROOT
from tests.api.serving import serving, working
from tests.browser.pages import expect_rows, opened, picked
from tests.support.fakes import FakeTriton

KEY, ENTRY = new_key("page")


@contextlib.contextmanager
def on(browser: Browser, settings: Settings, refused: str = "/status|/models$") -> Iterator[Page]:
    """The page of a gateway that no worker works for."""
    with serving(settings) as address, opened(browser, address, refused) as page:
        page.goto("/")
        yield page


def test_place_and_cancelling(browser: Browser, settings: Settings, tmp_path: Path) -> None:
    with on(browser, settings) as page:
        picked(page, tmp_path, "a.png")
        progress = page.locator(".progress:visible")
        expect(progress).to_contain_text("In the queue\nnext", use_inner_text=True)
        picked(page, tmp_path, "b.png")
        page.locator(".tile").nth(1).click()
        expect(progress).to_contain_text("1 task before it")
        page.locator(".tile").nth(0).click()
        with page.expect_request(lambda request: request.method == "DELETE"):
            progress.get_by_role("button", name="Cancel").click()
        expect(page.locator(".problem:visible")).to_contain_text("Canceled.")
        page.locator(".tile").nth(1).click()
        expect(progress).to_contain_text("next", timeout=10_000)
        with working(settings, FakeTriton()):
            expect_rows(page, 1)
        bar = page.locator(".times:visible")
        for step in ("waiting", "decoding", "Triton", "NMS", "network and browser"):
            expect(bar).to_contain_text(step)


def test_a_task_whose_worker_is_killed_is_watched_to_its_end(
    browser: Browser, settings: Settings, redis_url: str, tmp_path: Path
) -> None:
    worker = [sys.executable, "-m", "tests.api.skewed", redis_url, "0"]  # takes it for dead after two seconds
    with on(browser, settings) as page:
        progress = page.locator(".progress:visible")
        with running([*worker, "60"], {}, tmp_path / "first.log", ROOT) as first:
            picked(page, tmp_path, "a.png")
            expect(progress).to_contain_text("Being looked at", timeout=15_000)
            first.kill()
            first.wait()
        with running([*worker, "0"], {}, tmp_path / "second.log", ROOT):
            expect_rows(page, 1)


def test_a_refusal_shows_detail_and_request_id(browser: Browser, settings: Settings, tmp_path: Path) -> None:
    with on(browser, settings, "/status|/models$|/predict") as page:
        with page.expect_response("**/predict?*") as answer:
            picked(page, tmp_path, "notes.txt", data=b"no picture")
        problem = page.locator(".problem:visible")
        expect(problem).to_contain_text("the body is not a JPEG, PNG, WebP, BMP or GIF image")
        expect(problem).to_contain_text(f"request {answer.value.headers['x-request-id']}")
        expect(page.locator("#live")).to_be_attached()
        assert problem.get_attribute("role") == "alert"


def test_a_file_that_nobody_can_draw_has_no_broken_picture(
    browser: Browser, settings: Settings, tmp_path: Path
) -> None:
    with on(browser, settings, "/status|/models$|/predict") as page, working(settings, FakeTriton()):
        (tmp_path / "notes.txt").write_text("no picture")
        picked(page, tmp_path, "a.png")
        page.locator("#picker").set_input_files(tmp_path / "notes.txt")
        expect(page.locator("#strip .tile-state").nth(1)).to_have_text("failed")
        page.locator("#strip .tile").nth(1).click()
        expect(page.locator(".problem:visible")).to_contain_text("the body is not")
        expect(page.locator(".pane:not([hidden]) .frame")).to_be_hidden()
        expect(page.locator("#strip .tile img").nth(1)).to_be_hidden()
        page.locator("#strip .tile").nth(0).click()
        expect(page.locator(".pane:not([hidden]) .frame")).to_be_visible()
        expect(page.locator("#strip .tile img").nth(0)).to_be_visible()


def test_a_file_that_is_too_large_is_not_sent(browser: Browser, settings: Settings, tmp_path: Path) -> None:
    small = msgspec.structs.replace(settings, max_image_bytes=1_000_000)
    with on(browser, small) as page:
        picked(page, tmp_path, "a.png", data=bytes(1_500_000))
        expect(page.locator(".problem:visible")).to_contain_text("has 1.5 MB; this service takes at most 1.0 MB")


def test_a_full_queue_is_waited_for(browser: Browser, settings: Settings, tmp_path: Path) -> None:
    full = msgspec.structs.replace(settings, max_queued_tasks=1, max_queued_tasks_per_client=1)
    with on(browser, full, "/status|/models$|/predict") as page:
        picked(page, tmp_path, "a.png")
        expect(page.locator(".progress:visible")).to_contain_text("next")
        picked(page, tmp_path, "b.png")
        page.locator(".tile").nth(1).click()
        expect(page.locator(".progress:visible")).to_contain_text("Trying again in")
        with working(full, FakeTriton()):
            expect(page.locator("#strip .tile-state", has_text="1 box")).to_have_count(2, timeout=30_000)


def test_a_lost_connection_is_taken_up_again(browser: Browser, settings: Settings, tmp_path: Path) -> None:
    with on(browser, settings, ".*") as page:
        picked(page, tmp_path, "a.png")
        expect(page.locator(".progress:visible")).to_contain_text("next")
        page.context.set_offline(True)
        picked(page, tmp_path, "b.png")
        page.locator(".tile").nth(1).click()
        expect(page.locator(".progress:visible")).to_contain_text("the service cannot be reached. Trying again")
        page.context.set_offline(False)
        with working(settings, FakeTriton()):
            expect(page.locator("#strip .tile-state", has_text="1 box")).to_have_count(2, timeout=30_000)


@pytest.fixture
def keyed(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, api_keys=ENTRY)


def test_the_key_is_asked_for_and_kept_in_memory_only(browser: Browser, keyed: Settings, tmp_path: Path) -> None:
    with on(browser, keyed, "/status|/models$|/predict") as page, working(keyed, FakeTriton()):
        picked(page, tmp_path, "a.png")
        expect(page.locator(".problem:visible")).to_contain_text("give a key of this service")
        page.get_by_label("Key of this service").fill("wrong")
        page.get_by_label("Key of this service").fill(KEY)
        expect_rows(page, 1)
        kept = "[location.href, JSON.stringify({...localStorage, ...sessionStorage}), document.cookie].join()"
        assert KEY not in page.evaluate(kept) and KEY not in page.locator("#request").inner_text()
        assert page.evaluate("indexedDB.databases()") == []
        expect(page.locator("#request")).to_contain_text("X-API-Key: YOUR_KEY")
        page.reload()
        expect(page.get_by_label("Key of this service")).to_have_value("")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", "text/html"),
        ("text/html", "text/html"),
        ("*/*", "application/json"),
        ("application/json, text/html;q=0.5", "application/json"),
        (None, "application/json"),
        ("image/png", "application/json"),
    ],
    ids=["browser", "html", "curl", "rather-json", "none", "camera"],
)
def test_browsers_get_the_page_and_others_the_doors(address: str, accept: str | None, kind: str) -> None:
    with httpx.Client(headers={"Accept": accept or ""}) as client:
        if accept is None:
            del client.headers["Accept"]
        answer = client.get(f"{address}/")
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)
    assert answer.headers["vary"] == "Accept"
    if kind == "application/json":
        doors = answer.json()
        assert {doors["docs"], doors["predict"], doors["models"]} == {"/docs", "/predict", "/models"}


def test_the_doors_are_those_of_the_handbook(address: str) -> None:
    handbook = (Path(__file__).parents[2] / "docs" / "page.md").read_text()
    shown = json.loads(handbook.partition("```json\n")[2].partition("```")[0])
    assert httpx.get(f"{address}/").json() == shown
    described = httpx.get(f"{address}/openapi.json").json()["paths"]
    assert {path for name, path in shown.items() if name not in ("service", "version")} <= described.keys()


def test_the_policy_of_the_page_allows_its_own_scripts_only(address: str) -> None:
    policy = httpx.get(address, headers={"Accept": "text/html"}).headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["script-src"] == rules["connect-src"] == rules["style-src"] == "'self'"
    assert rules["default-src"] == rules["frame-ancestors"] == "'none'"
    assert rules["require-trusted-types-for"] == "'script'"


def test_it_is_switched_off_by_a_setting(settings: Settings) -> None:
    with serving(msgspec.structs.replace(settings, page=False)) as address, httpx.Client(base_url=address) as client:
        assert client.get("/", headers={"Accept": "text/html"}).json()["docs"] == "/docs"
        assert client.get("/static/page/main.js").status_code == 404
        docs = client.get("/docs").text
        assert 'href="/"' not in docs and client.get("/static/look.css").status_code == 200


def test_an_answer_that_is_not_of_the_service_is_said(browser: Browser, settings: Settings, tmp_path: Path) -> None:
    with on(browser, settings, ".*") as page:
        page.route("**/predict?*", lambda route: route.fulfill(status=502, content_type="text/html", body="<b>bad</b>"))
        picked(page, tmp_path, "a.png")
        expect(page.locator(".problem:visible")).to_contain_text("HTTP 502")
