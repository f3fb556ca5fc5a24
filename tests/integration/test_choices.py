"""What a request may choose of a real model, and what the running service tells of it."""

import base64
from collections.abc import Iterator
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest

from tests.support.shared import photograph
from tests.support.stack import Stack


@pytest.fixture(scope="module")
def http(stack: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=stack.base_url, timeout=90) as client:
        yield client


def detect(http: httpx2.Client, **choices: str) -> dict[str, Any]:
    answer = http.post("/predict", params={"wait": "60", **choices}, content=photograph("bus.jpg"))
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def labels(body: dict[str, Any]) -> set[str]:
    return {found["label"] for found in body["result"]["detections"]}


@pytest.mark.parametrize(
    ("classes", "expected"),
    [("bus", {"bus"}), ("5", {"bus"}), ("person,5", {"person", "bus"}), ("Person", {"person"}), ("zebra", set())],
)
def test_classes_by_name_or_id(http: httpx2.Client, classes: str, expected: set[str]) -> None:
    assert labels(detect(http, classes=classes)) == expected


def test_classes_as_a_list_in_json(http: httpx2.Client) -> None:
    body = {"image": base64.b64encode(photograph("bus.jpg")).decode(), "classes": ["Person", 5], "wait": 60}
    answer = http.post("/predict", json=body)
    assert answer.status_code == 200 and labels(answer.json()) == {"person", "bus"}


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("classes", "unicorn", "person, bicycle"),
        ("classes", "80", "0 to 79"),
        ("model", "yolov9", "yolov5n"),
        ("version", "99", "1"),
    ],
)
def test_what_the_model_lacks_is_told_with_what_there_is(
    http: httpx2.Client, name: str, value: str, allowed: str
) -> None:
    answer = http.post("/predict", params={name: value}, content=photograph("bus.jpg"))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert answer.json()["detail"].startswith(f"{name}={value}") and allowed in answer.json()["detail"]


def test_a_model_and_version_can_be_named(http: httpx2.Client) -> None:
    body = detect(http, model="yolov5n", version="1")
    assert body["result"]["model"] == {"name": "yolov5n", "version": "1"}


def test_models_are_told_straight_from_triton(http: httpx2.Client) -> None:
    listing = http.get("/models").json()
    assert listing["default"] == "yolov5n"
    model = http.get("/models/yolov5n").json()
    assert model in listing["models"]
    assert model["versions"] == [{"version": "1", "state": "READY", "reason": ""}]
    assert (len(model["labels"]), model["labels"][0]) == (80, "person")
    sides = {"imgsz": 640, "height": 640, "width": 640}
    assert model["input"] == sides | {"stride": 32, "letterbox": "rectangular"}
    assert model["max_batch_size"] >= 1
    unknown = http.get("/models/yolov9")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "model_not_found")


def test_the_receipt_has_tritons_own_times(http: httpx2.Client) -> None:
    timings = detect(http)["result"]["timings_ms"]
    assert {"queue", "decode", "letterbox", "triton", "triton_queue", "triton_compute", "nms", "total"} <= set(timings)
    assert timings["triton_compute"] > 1


def test_the_annotated_picture_shows_the_detections(http: httpx2.Client) -> None:
    task_id = detect(http, annotate="true")["task_id"]
    picture = http.get(f"/result/{task_id}/image", headers={"Accept": "image/png"})
    assert picture.headers["content-type"] == "image/png"
    drawn = cv2.imdecode(np.frombuffer(picture.content, np.uint8), cv2.IMREAD_COLOR)
    plain = cv2.imdecode(np.frombuffer(photograph("bus.jpg"), np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None and plain is not None and drawn.shape == plain.shape
    changed = (np.abs(drawn.astype(int) - plain).max(axis=2) > 40).mean()
    assert 0.005 < changed < 0.3


def test_a_batch_of_photographs_through_the_whole_service(http: httpx2.Client) -> None:
    files = [("image", (name, photograph(name))) for name in ("bus.jpg", "zidane.jpg", "dog.jpg")]
    answer = http.post("/predict", params={"wait": "60"}, files=files)
    assert (answer.status_code, answer.json()["succeeded"]) == (200, 3)
    dog = http.get(f"/result/{answer.json()['tasks'][2]['task_id']}").json()
    assert "dog" in labels(dog)
