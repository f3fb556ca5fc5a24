"""Thresholds and classes without a new request; colours; labels as they are."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from gateway.page.colours import palette
from gateway.settings import Settings
from gateway.triton.client import Inference
from gateway.triton.shared_memory import Canvas
from gateway.triton.spec import ModelSpec
from gateway.vision.colours import class_colour, ink_on
from tests.api.serving import serving, working
from tests.browser.pages import ROWS, expect_rows, many, opened, picked, rows, slide
from tests.support.fakes import SPEC, FakeTriton
from tests.support.pictures import RGB, encoded

LABEL = '<img src=x onerror="window.taken = true"> & "co"'


class OddlyLabelled(FakeTriton):
    def spec(self, model: str, version: str = "") -> ModelSpec:
        return dataclasses.replace(SPEC, labels=(LABEL, "bicycle", "car"))

    def infer(self, spec: ModelSpec, image: RGB, version: str = "", canvas: Canvas | None = None) -> Inference:
        return Inference(self.rows, spec, {})


def answered(address: str, **query: Any) -> list[dict[str, Any]]:
    """What the API gives for the same picture."""
    files = {"image": encoded(640, 480)}
    answer = httpx.post(f"{address}/predict", params={"wait": 20, **query}, files=files, timeout=30)
    found: list[dict[str, Any]] = answer.json()["result"]["detections"]
    return found


def shown(page: Page) -> list[list[str]]:
    return [row.split("\t") for row in rows(page).all_inner_texts()]


@pytest.mark.parametrize("triton", [ROWS], indirect=True)
def test_thresholds_and_classes_move_without_a_request(page: Page, address: str, tmp_path: Path) -> None:
    picked(page, tmp_path, "a.png")
    expect_rows(page, 4)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for conf, most in [(0.1, 300), (0.5, 300), (0.5, 2), (0.1, 3), (0.95, 300)]:
        slide(page, "conf", conf)
        page.locator("#max-det").fill(str(most))
        expected = answered(address, conf=conf, max_det=most)
        expect_rows(page, len(expected))
        assert [row[1] for row in shown(page)] == [f"{each['score']:.4f}" for each in expected]
    slide(page, "conf", 0.1)
    page.get_by_role("checkbox", name="person").uncheck()
    expect_rows(page, 3)
    assert [row[0] for row in shown(page)] == ["car", "bicycle", "car"]
    assert [url for url in asked if "/status" not in url] == []


@pytest.mark.parametrize("triton", [ROWS], indirect=True)
def test_classes_are_counted_above_the_threshold(page: Page, tmp_path: Path) -> None:
    picked(page, tmp_path, "a.png")
    expect_rows(page, 4)
    expect(page.locator("#classes li")).to_have_text(["person2", "bicycle1", "car1"])
    slide(page, "conf", 0.1)
    expect(page.locator("#classes li").filter(has_text="car")).to_have_text("car2")
    page.get_by_role("button", name="None").click()
    expect_rows(page, 0)
    expect(page.locator(".empty").first).to_contain_text("5 below it or of hidden classes")
    page.get_by_role("button", name="All").click()
    expect_rows(page, 5)


@pytest.mark.parametrize("triton", [many(1200)], indirect=True)
def test_the_page_says_where_max_det_makes_it_inexact(page: Page, tmp_path: Path) -> None:
    picked(page, tmp_path, "a.png")
    expect_rows(page, 300)
    expect(page.locator("#doubts li")).to_have_count(0)
    slide(page, "conf", 0.05)
    expect(page.locator("#doubts")).to_contain_text("at most 1000 boxes (max_det), the weakest here has 0.17")
    slide(page, "conf", 0.2)
    expect(page.locator("#doubts li")).to_have_count(0)


@pytest.mark.parametrize("triton", [ROWS], indirect=True)
def test_what_nms_decides_is_asked_anew_and_remembered(page: Page, tmp_path: Path) -> None:
    picked(page, tmp_path, "a.png")
    expect_rows(page, 4)
    with page.expect_request(lambda request: "iou=0.7" in request.url):
        slide(page, "iou", 0.7)
    expect_rows(page, 4)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    slide(page, "iou", 0.45)
    expect_rows(page, 4)
    assert [url for url in asked if "/predict" in url] == [], "that answer is there already"


@pytest.mark.parametrize("triton", [ROWS], indirect=True)
def test_a_score_at_the_threshold_is_said_to_be_open(page: Page, tmp_path: Path) -> None:
    picked(page, tmp_path, "a.png")
    slide(page, "conf", 0.4)
    expect(page.locator("#doubts")).to_contain_text("A score equals the threshold")


@pytest.mark.parametrize("triton", [ROWS], indirect=True)
def test_pointing_links_box_and_row(page: Page, tmp_path: Path) -> None:
    picked(page, tmp_path, "a.png")
    expect_rows(page, 4)
    rows(page).nth(1).hover()
    expect(page.locator("tr.is-hot")).to_have_text(rows(page).nth(1).inner_text().replace("\t", ""))
    page.locator(".pane-head").first.scroll_into_view_if_needed()
    stage = page.locator(".stage").first.bounding_box()
    assert stage is not None
    scale = min(stage["width"] / 640, stage["height"] / 480)
    left, top = (stage["width"] - 640 * scale) / 2, (stage["height"] - 480 * scale) / 2
    x, y = 460, 150  # in the middle of the car
    page.mouse.move(stage["x"] + left + x * scale, stage["y"] + top + y * scale)
    expect(page.locator("tr.is-hot th")).to_have_text("car")


def test_the_colours_are_those_of_the_picture(page: Page) -> None:
    page.goto("/")
    colours = page.evaluate("JSON.parse(document.getElementById('facts').textContent).colours")
    assert colours == [list(pair) for pair in palette()]
    for index in (0, 1, 79, 255, 256, 999):
        ground, ink = colours[index % len(colours)]
        assert tuple(bytes.fromhex(ground[1:])) == class_colour(index)
        assert tuple(bytes.fromhex(ink[1:])) == ink_on(class_colour(index))


@pytest.fixture
def odd_address(settings: Settings) -> Iterator[str]:
    with serving(settings) as url, working(settings, OddlyLabelled(ROWS)):
        yield url


def test_a_label_is_text_whatever_it_says(browser: Browser, odd_address: str, tmp_path: Path) -> None:
    with opened(browser, odd_address) as page:
        picked(page, tmp_path, "<b>a.png")
        expect_rows(page, 4)
        expect(rows(page).first.locator("th")).to_have_text(LABEL)
        expect(page.locator("#classes .class-name").first).to_have_text(LABEL)
        expect(page.locator(".pane-title").first).to_contain_text("<b>a.png")
        assert page.evaluate("window.taken") is None
        assert page.locator(".boxes img, #classes img, .pane-title b").count() == 0
