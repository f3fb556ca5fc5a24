"""The running service: real Redis, real Triton, workers and gateway in processes of their own."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest

from gateway.triton.client import TritonClient
from tests.support.pictures import encoded
from tests.support.shared import photograph, reference
from tests.support.stack import Stack


@pytest.fixture(scope="module")
def http(stack: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=stack.base_url, timeout=90) as client:
        yield client


def answered(http: httpx2.Client, image: bytes) -> dict[str, Any]:
    """The result of one image, through upload and long-poll."""
    accepted = http.post("/predict", files={"image": ("photo.jpg", image, "image/jpeg")})
    assert accepted.status_code == 202, accepted.text
    body = http.get(accepted.headers["location"], params={"wait": 60}).json()
    assert body["status"] == "SUCCESS", body
    result: dict[str, Any] = body["result"]
    return result


def labels(result: dict[str, Any]) -> list[str]:
    return sorted(found["label"] for found in result["detections"])


def test_predict_no_file(http: httpx2.Client) -> None:
    answer = http.post("/predict")
    assert answer.status_code == 400
    assert answer.json()["code"] == "no_image"


def test_predict_valid_file(http: httpx2.Client) -> None:
    result = answered(http, photograph("bus.jpg"))
    assert result["image"] == {"width": 810, "height": 1080}
    assert (labels(result).count("bus"), labels(result).count("person")) == (1, 4)
    assert result["model"] == {"name": "yolov5n", "version": "1"}


@pytest.mark.parametrize(
    ("width", "height"), [(320, 180), (1280, 720), (4608, 2592)], ids=["small", "medium", "12 megapixels"]
)
def test_predict_image_sizes(http: httpx2.Client, width: int, height: int) -> None:
    source = cv2.imdecode(np.frombuffer(photograph("zidane.jpg"), np.uint8), cv2.IMREAD_COLOR)
    assert source is not None
    done, scaled = cv2.imencode(".jpg", cv2.resize(source, (width, height), interpolation=cv2.INTER_CUBIC))
    assert done
    result = answered(http, scaled.tobytes())
    assert result["image"] == {"width": width, "height": height}
    assert labels(result).count("person") == 2


def test_predict_task_status(http: httpx2.Client) -> None:
    accepted = http.post("/predict", content=photograph("bus.jpg"))
    assert (accepted.status_code, accepted.json()["status"]) == (202, "PENDING")
    task_id = accepted.json()["task_id"]
    assert http.get(f"/result/{task_id}").json()["status"] in {"PENDING", "SUCCESS"}
    assert http.get(f"/result/{task_id}?wait=60").json()["status"] == "SUCCESS"
    broken = http.post("/predict", content=encoded(64, 48)[:80]).json()["task_id"]
    failed = http.get(f"/result/{broken}?wait=60").json()
    assert (failed["status"], failed["error"]["code"]) == ("FAILURE", "invalid_image")
    assert http.get(f"/result/{'0' * 32}").status_code == 404


def test_answers_are_those_of_pytorch(http: httpx2.Client, stack: Stack) -> None:
    triton = TritonClient(stack.triton_url, 30)
    expected = reference(square=triton.spec("yolov5n").fixed)
    triton.close()
    complaints = [
        f"{name}: {complaint}"
        for name, answer in expected.items()
        for complaint in differences(answered(http, photograph(name))["detections"], answer["detections"])
    ]
    assert len(expected) >= 13 and complaints == []


def differences(served: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[str]:
    """Where two answers part: IoU below 0.98, scores more than 0.01 apart, missing or extra above 0.27."""
    told, unmatched = [], list(wanted)
    for found in served:
        same = [other for other in unmatched if other["label"] == found["label"]]
        best = max(same, key=lambda other: overlap(box(found), other["box"]), default=None)
        if best is None:
            told += [f"extra {found}"] if found["score"] > 0.27 else []
            continue
        iou, apart = overlap(box(found), best["box"]), abs(found["score"] - best["score"])
        if iou < 0.98 or apart > 0.01:
            told.append(f"{found} differs from {best}: IoU {iou:.3f}, scores {apart:.3f} apart")
        unmatched.remove(best)
    return told + [f"missing {other}" for other in unmatched if other["score"] > 0.27]


def box(found: dict[str, Any]) -> list[float]:
    return [found["box"][side] for side in ("x1", "y1", "x2", "y2")]


def overlap(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def test_requests_sent_together_are_executed_in_batches(http: httpx2.Client, stack: Stack) -> None:
    image = photograph("dog.jpg")
    before = counts(stack)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: answered(http, image), range(48)))
    inferences, executions = (after - first for after, first in zip(counts(stack), before, strict=True))
    assert inferences == 48
    assert executions < inferences


def counts(stack: Stack) -> tuple[float, float]:
    """Triton's nv_inference_count and nv_inference_exec_count of the default model."""
    lines = httpx2.get(stack.metrics_url).text.splitlines()
    values = {
        line.partition("{")[0]: float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("nv_inference_") and 'model="yolov5n"' in line
    }
    return values["nv_inference_count"], values["nv_inference_exec_count"]


def test_the_service_is_ready(http: httpx2.Client) -> None:
    assert http.get("/readyz").json() == {"status": "ready"}
    told = http.get("/status").json()
    assert told["status"] == "ready" and "missing" not in told and "yolov5n" in told["models"]
    assert told["workers"]["alive"] >= 1
