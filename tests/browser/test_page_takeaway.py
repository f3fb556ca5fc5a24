"""What is taken along equals what the API gives, and runs as it stands."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from gateway.task import Box, Detection, DetectionResult, ImageSize, ServedModel, TaskView
from gateway.web.formats import document
from tests.browser.pages import ROWS, expect_rows, many, opened, picked, rows, slide, until
from tests.support.pictures import encoded

FORMS = {"coco": "COCO", "yolo": "YOLO", "csv": "CSV"}
LABELS = ("person", "=cmd", 'a "b", c', "-", "é\n")


def downloaded(page: Page, name: str) -> bytes:
    with page.expect_download() as download:
        page.get_by_role("button", name=name, exact=True).click()
    return Path(download.value.path()).read_bytes()


def of_the_api(address: str, query: dict[str, list[str]], form: str) -> tuple[str, bytes]:
    """The task that this request makes, and its result in a form."""
    files = {"image": encoded(640, 480)}
    task_id = httpx.post(f"{address}/predict", params=query, files=files, timeout=40).json()["task_id"]
    return task_id, httpx.get(f"{address}/result/{task_id}", params={"format": form}).content


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("triton", [ROWS, many(300)], ids=["five", "many"], indirect=True)
@pytest.mark.parametrize("conf", [0.3, 0.61, 0.96])
def test_a_file_equals_that_of_the_api(page: Page, address: str, tmp_path: Path, form: str, conf: float) -> None:
    picked(page, tmp_path, "a.png")
    rows(page).first.wait_for()
    slide(page, "conf", conf)
    page.locator("#max-det").fill("150")
    until(page, f"location.hash.includes('conf={conf}') && location.hash.includes('maxDet=150')")
    own = downloaded(page, FORMS[form])
    query = {"conf": [str(conf)], "max_det": ["150"], "wait": ["30"]}
    task_id, expected = of_the_api(address, query, form)
    if form == "csv":
        own_id = own.split(b"\r\n")[1].partition(b",")[0] if own.count(b"\r\n") > 1 else b"?"
        assert own.replace(own_id, task_id.encode()) == expected
    elif form == "coco":
        dataset = json.loads(own)
        dataset["images"][0]["file_name"] = task_id
        assert dataset == json.loads(expected)
    else:
        assert own == expected


def test_the_digits_of_every_form_are_those_of_the_api(page: Page) -> None:
    """Of boxes on whole, half and quarter pixels too, where rounding has ties."""
    made = random.Random(7)
    page.goto("/")
    code = """async ([form, view]) => {
        const formats = await import("/static/page/formats.js");
        return formats[form](view.task_id, view.result, view.result.detections);
    }"""
    for width, height in [(640, 480), (128, 256), (1000, 3), (1, 1)]:
        sides = [made.choice([made.uniform(0, 700), made.randrange(2800) / 4, made.randrange(9)]) for _ in range(400)]
        boxes = [Box(*(round(float(side), 2) for side in sides[at : at + 4])) for at in range(0, 400, 4)]
        boxes = [Box(min(b.x1, b.x2), min(b.y1, b.y2), max(b.x1, b.x2), max(b.y1, b.y2)) for b in boxes]
        found = [
            Detection(LABELS[index % 5], index % 5, round(made.random(), 4), box) for index, box in enumerate(boxes)
        ]
        result = DetectionResult(ServedModel("a,b", "1"), ImageSize(width, height), found, {})
        view = TaskView(task_id="f" * 32, status="SUCCESS", state="succeeded", result=result)
        for form in ("coco", "yolo", "csv"):
            own = page.evaluate(code, [form, msgspec.to_builtins(view)])
            shown = document(view, form)
            assert shown is not None
            expected = shown.content.decode()
            assert (json.loads(own) == json.loads(expected)) if form == "coco" else (own == expected)


@pytest.mark.parametrize("triton", [ROWS], indirect=True)
def test_the_picture_has_its_own_size_and_the_colours_of_the_boxes(page: Page, tmp_path: Path) -> None:
    picked(page, tmp_path, "a.png")
    expect_rows(page, 4)
    path = tmp_path / "taken.jpg"
    path.write_bytes(downloaded(page, "Picture"))
    with Image.open(path) as picture:
        assert picture.size == (640, 480) and picture.format == "JPEG"
        red, green, blue = picture.getpixel((200, 200))  # type: ignore[misc]
    assert red > 180 and green < 110 and blue < 110, "the line of a person is red"


def written(page: Page, language: str) -> str:
    page.get_by_role("tab", name=language).click()
    return page.locator("#request").inner_text()


@pytest.mark.parametrize("triton", [ROWS], indirect=True)
@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
def test_the_request_runs_as_it_stands(page: Page, tmp_path: Path, language: str) -> None:
    program = {"curl": "bash", "Python": sys.executable, "JavaScript": "node"}[language]
    if shutil.which(program) is None:
        pytest.skip(f"no {program}")
    picked(page, tmp_path, "photo.jpg")
    expect_rows(page, 4)
    slide(page, "conf", 0.5)
    expect_rows(page, 3)
    script = tmp_path / {"curl": "a.sh", "Python": "a.py", "JavaScript": "a.mjs"}[language]
    script.write_text(written(page, language))
    done = subprocess.run([program, script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    if language == "curl":
        found: list[dict[str, Any]] = json.loads(done.stdout)["result"]["detections"]
        assert [each["score"] for each in found] == [0.91, 0.8125, 0.62]
    else:
        assert [line.split()[:2] for line in done.stdout.splitlines()] == [
            ["person", "0.91"],
            ["person", "0.8125"],
            ["car", "0.62"],
        ]


def test_a_link_carries_the_settings_and_nothing_else(browser: Browser, address: str, tmp_path: Path) -> None:
    with opened(browser, address) as page:
        picked(page, tmp_path, "secret name.png")
        expect_rows(page, 1)
        slide(page, "conf", 0.61)
        slide(page, "iou", 0.7)
        page.locator("#max-det").fill("7")
        page.get_by_role("checkbox", name="person").uncheck()
        until(page, "location.hash.includes('hide=person')")
        link = page.url
    settings = parse_qs(urlsplit(link).fragment)
    assert settings == {"conf": ["0.61"], "iou": ["0.7"], "maxDet": ["7"], "hide": ["person"]}
    with opened(browser, address) as page:
        page.goto(link)
        values = {name: page.locator(f"#{name}").input_value() for name in ("conf", "conf-number", "iou", "max-det")}
        assert values == {"conf": "0.61", "conf-number": "0.61", "iou": "0.7", "max-det": "7"}
        expect(page.locator("#work")).to_be_hidden()
        picked(page, tmp_path, "b.png")
        expect(page.locator("#classes input")).not_to_be_checked()
        expect_rows(page, 0)
