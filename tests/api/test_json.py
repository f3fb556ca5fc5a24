"""JSON bodies: the image as base64, the parameters as typed values."""

import base64
import gc
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import redis

from gateway.web.parameters import PARAMETERS
from tests.support.fakes import FakeTriton
from tests.support.pictures import encoded

PICTURE = encoded(64, 48)
IMAGE = base64.b64encode(PICTURE).decode()


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton([[0, 0, 300, 300, 0.9, 0], [10, 10, 310, 310, 0.8, 1], [400, 0, 500, 100, 0.4, 2]])


def detections_of(client: httpx2.Client, answer: httpx2.Response, work: Callable[[], None]) -> list[Any]:
    assert answer.status_code == 202, answer.text
    work()
    body = client.get(answer.headers["location"]).json()
    assert body["status"] == "SUCCESS", body
    found: list[Any] = body["result"]["detections"]
    return found


@pytest.mark.parametrize(
    ("choices", "count"),
    [
        ({}, 3),
        ({"conf": 0.5}, 2),
        ({"conf": 1}, 0),
        ({"max_det": 1}, 1),
        ({"max_det": 1.0}, 1),
        ({"agnostic_nms": True}, 2),
        (dict.fromkeys(PARAMETERS), 3),
        ({"note": {"any": ["thing"]}, "min_confidence": "of cameras"}, 3),
    ],
    ids=["none", "conf", "nothing above", "max_det", "whole", "agnostic", "null", "other members"],
)
def test_typed_choices_reach_the_worker(
    client: httpx2.Client, work: Callable[[], None], choices: dict[str, object], count: int
) -> None:
    answer = client.post("/predict", json={"image": IMAGE, **choices})
    assert len(detections_of(client, answer, work)) == count


FRACTION, COUNT, CLASSES = "a number from 0 to 1", "a whole number from 1 to 1000", "labels or class ids"


@pytest.mark.parametrize(
    ("name", "value", "shown", "allowed"),
    [
        ("conf", [0.5], "[…]", FRACTION),
        ("conf", {"least": 0.5}, "{…}", FRACTION),
        ("conf", "0.5", '"0.5"', FRACTION),
        ("conf", "", '""', FRACTION),
        ("conf", True, "true", FRACTION),
        ("conf", 1.1, "1.1", FRACTION),
        ("conf", 10**400, "1000", FRACTION),
        ("iou", [[]], "[…]", FRACTION),
        ("max_det", 1.5, "1.5", COUNT),
        ("max_det", [5], "[…]", COUNT),
        ("max_det", 1e300, "1e+300", COUNT),
        ("annotate", "true", '"true"', "true or false"),
        ("annotate", 1, "1", "true or false"),
        ("agnostic_nms", [True], "[…]", "true or false"),
        ("priority", ["high"], "[…]", "high or normal"),
        ("priority", 1, "1", "high or normal"),
        ("model", ["yolov5n"], "[…]", "text of at most 200 characters"),
        ("version", 1, "1", "a version of the model: digits, in JSON a string of digits"),
        ("classes", {"person": True}, "{…}", CLASSES),
        ("classes", [True], "[…]", CLASSES),
        ("classes", [["person"]], "[…]", CLASSES),
        ("classes", 0, "0", CLASSES),
        ("wait", "5", '"5"', "a number from 0 to 60"),
        ("wait", 61, "61", "a number from 0 to 60"),
        ("callback_url", ["https://example.com/"], "[…]", "text of at most 2000 characters"),
        ("model", "m" * 100_000, '"mmm', "text of at most 200 characters"),
    ],
)
def test_a_wrong_type_is_named_with_what_is_allowed(
    client: httpx2.Client, connection: "redis.Redis", name: str, value: object, shown: str, allowed: str
) -> None:
    answer = client.post("/predict", json={"image": IMAGE, name: value})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter"), answer.text
    detail = answer.json()["detail"]
    assert detail.startswith(f"{name}={shown}") and f": give {allowed}" in detail and len(detail) < 250
    assert connection.dbsize() == 0


def test_json_takes_a_data_url_and_typed_values(client: httpx2.Client, work: Callable[[], None]) -> None:
    image = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    answer = client.post("/predict", json={"image": image, "conf": 0.5, "agnostic_nms": True})
    assert len(detections_of(client, answer, work)) == 1


def test_base64_may_have_line_breaks(client: httpx2.Client) -> None:
    assert client.post("/predict", json={"image": base64.encodebytes(PICTURE).decode()}).status_code == 202


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "bad_json"),
        (b"[]", "bad_json"),
        (b'{"image": 5}', "bad_json"),
        (b'{"image": "not base64!"}', "bad_json"),
        ('{"image": "é"}'.encode(), "bad_json"),
        (b'{"image": "aGVsbG8="}', "unsupported_image"),
        (b"{}", "no_image"),
        (b"\xff\xfe", "bad_json"),
        (b"\xff\xfe" + b"\x00\xd8" * 5, "bad_json"),
        (b"\xef\xbb\xbf\xff", "bad_json"),
    ],
)
def test_bad_json_is_told(client: httpx2.Client, body: bytes, code: str) -> None:
    answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 415) and answer.json()["code"] == code


def test_json_nested_too_deeply(client: httpx2.Client) -> None:
    body = '{"x":' + "[" * 100_000 + "]" * 100_000 + "}"
    answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_json")


@pytest.mark.parametrize(
    ("member", "status"),
    [('"x": [' + "[]," * 100_000 + "[]]", 202), ('"x": {' + '"y": 1,' * 10_000 + '"y": 1}', 400)],
    ids=["lists", "members"],
)
def test_what_is_no_parameter_is_not_built(client: httpx2.Client, member: str, status: int) -> None:
    gc.collect()
    before = gc.get_stats()[0]["collections"]
    body = f'{{"image": "{IMAGE}", {member}}}'
    answer = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert gc.get_stats()[0]["collections"] - before < 50, "a list each would have brought a hundred more"


def test_a_parameter_in_json_is_bounded(client: httpx2.Client) -> None:
    answer = client.post("/predict", json={"image": IMAGE, "classes": ["person"] * 1000})
    assert (answer.status_code, answer.json()["detail"]) == (422, "classes: give at most 4096 bytes")
