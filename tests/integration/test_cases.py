"""Inputs from public bug reports, through the running service. They are read from YOLO_SHARED/cases, or skipped."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.integration.test_odd_images import wanted
from tests.integration.test_service import answered, differences, labels
from tests.support.shared import SHARED
from tests.support.stack import Stack

CASES = SHARED / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="YOLO_SHARED/cases is not there")

# A picture, the one with the same pixels, and how many warnings it gives.
PICTURES = [
    ("no_eoi.jpg", "base.jpg", 1),
    ("com_length_lies.jpg", "base.jpg", 0),
    ("junk_1_byte_before_dqt.jpg", "base.jpg", 0),
    ("motion_photo_9mb.jpg", "base.jpg", 0),
    ("orientation_6_as_long.jpg", "orientation_6_as_short.jpg", 0),
]


@pytest.fixture(scope="module")
def http(stack: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=stack.base_url, timeout=90) as client:
        yield client


@pytest.mark.parametrize(("name", "same", "warnings"), PICTURES, ids=[name for name, *_ in PICTURES])
def test_every_picture_gives_the_detections_of_the_same_pixels(
    http: httpx2.Client, name: str, same: str, warnings: int
) -> None:
    expected = answered(http, (CASES / same).read_bytes())
    result = answered(http, (CASES / name).read_bytes())
    assert labels(expected).count("person") == 2
    assert result["image"] == expected["image"] == {"width": 960, "height": 540}
    assert differences(result["detections"], wanted(expected)) == []
    assert len(result["warnings"]) == warnings


@pytest.mark.parametrize("name", ["multipart_lf_only.body", "multipart_preamble.body", "multipart_cte_base64.body"])
def test_every_form_is_taken(http: httpx2.Client, name: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=xBOUNDARYx"}
    answer = http.post("/predict?wait=30", content=(CASES / name).read_bytes(), headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (200, "SUCCESS"), answer.text


@pytest.mark.parametrize("name", ["json_bom.json", "json_no_padding.json"])
def test_every_json_is_taken(http: httpx2.Client, name: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = http.post("/predict?wait=30", content=(CASES / name).read_bytes(), headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (200, "SUCCESS"), answer.text


def test_a_camera_may_name_its_field_as_it_likes(http: httpx2.Client) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=xBOUNDARYx"}
    body = (CASES / "multipart_field_file.body").read_bytes()
    answer = http.post("/v1/vision/detection", content=body, headers=headers)
    assert answer.status_code == 200 and answer.json()["success"], answer.text
