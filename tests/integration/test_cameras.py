"""Camera software against the running service."""

from collections.abc import Iterator

import httpx2
import pytest
from deepstack.core import (
    DeepstackException,
    DeepstackObject,
    DeepstackScene,
    get_objects,
    get_objects_summary,
)
from deepstack_sdk import Detection, ServerConfig

from tests.support.shared import photograph
from tests.support.stack import Stack


@pytest.fixture
def camera(stack: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=stack.base_url, timeout=60) as client:
        yield client


def test_both_ways_to_ask_find_the_same(camera: httpx2.Client) -> None:
    image = photograph("bus.jpg")
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


def test_models_are_listed(camera: httpx2.Client) -> None:
    for answer in (camera.post("/v1/vision/custom/list"), camera.get("/v1/vision/custom/list")):
        assert answer.json()["success"] and "yolov5n" in answer.json()["models"]


@pytest.mark.parametrize("name", ["yolov5n", "YOLOv5n", "YOLOV5N"])
def test_a_model_by_name(camera: httpx2.Client, name: str) -> None:
    answer = camera.post(f"/v1/vision/custom/{name}", files={"image": photograph("bus.jpg")}).json()
    assert answer["success"] and answer["moduleId"] == "yolov5n" and answer["count"] >= 4


def test_home_assistants_client(stack: Stack) -> None:
    address = httpx2.URL(stack.base_url)
    for model in ("", "yolov5n"):
        client = DeepstackObject(ip=address.host, port=address.port, api_key="", timeout=30, custom_model=model)
        found = client.detect(photograph("bus.jpg"))
        assert "person" in get_objects(found) and get_objects_summary(found)["bus"] == 1
    scene = DeepstackScene(ip=address.host, port=address.port, api_key="", timeout=30)
    with pytest.raises(DeepstackException, match="status code: 403"):
        scene.recognize(photograph("bus.jpg"))


def test_deepstacks_own_client(stack: Stack) -> None:
    for name in (None, "yolov5n"):
        found = Detection(ServerConfig(stack.base_url), name=name).detectObject(
            photograph("bus.jpg"), min_confidence=0.5
        )
        assert [each.label for each in found].count("person") >= 3
        assert all(each.confidence >= 0.5 and each.x_max > each.x_min for each in found)
