"""Camera software against the running service."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.support.shared import photograph
from tests.support.stack import Stack


@pytest.fixture
def camera(stack: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=stack.base_url, timeout=60) as client:
        yield client


def test_both_ways_to_ask_find_the_same(camera: httpx2.Client) -> None:
    image = photograph("bus.jpg")
    models = camera.post("/v1/vision/custom/list").json()["models"]
    assert "yolov5n" in models
    default = camera.post("/v1/vision/detection", files={"image": image}).json()
    named = camera.post("/v1/vision/custom/yolov5n", files={"image": image}).json()
    assert default["predictions"] == named["predictions"]
    assert [each["label"] for each in default["predictions"]].count("person") >= 3
    assert all(each["confidence"] >= 0.4 for each in default["predictions"])
    assert (default["command"], named["command"]) == ("detect", "custom")


def test_an_unknown_model_is_not_found(camera: httpx2.Client) -> None:
    answer = camera.post("/v1/vision/custom/helmets", files={"image": photograph("bus.jpg")})
    assert (answer.status_code, answer.json()["success"]) == (404, False)
    assert "yolov5n" in answer.json()["error"]
