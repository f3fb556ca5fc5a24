"""What the metrics say after requests and tasks."""

import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gateway.queue.records import TaskRequest
from gateway.queue.state import reader
from gateway.queue.task_queue import TaskQueue
from gateway.settings import Settings
from gateway.telemetry.metrics import QueueCollector, QueueState, WorkerMetrics
from gateway.worker.loop import TaskWorker
from gateway.worker.pipeline import Pipeline
from gateway.worker.processor import Processor
from tests.support.fakes import FakeTriton
from tests.support.pictures import encoded
from tests.support.redis_servers import running_redis

PICTURE = encoded(64, 48)


@pytest.fixture
def value(client: TestClient) -> Callable[..., float | None]:
    """Reads a sample of the gateway's page."""
    assert isinstance(client.app, Starlette)
    registry: CollectorRegistry = client.app.state.services.metrics.registry

    def read(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    return read


@pytest.fixture
def queue(settings: Settings, connection: "redis.Redis") -> TaskQueue:
    return TaskQueue(connection, settings)


def state_of(queue: TaskQueue) -> QueueState:
    state = reader(queue.connection, 15)()
    assert state is not None
    return state


def test_requests_are_counted_by_route(client: httpx2.Client, value: Callable[..., float | None]) -> None:
    task_id = client.post("/predict", content=PICTURE).json()["task_id"]
    client.get(f"/result/{task_id}")
    client.get("/result/unknown")
    client.get("/no/such/page")
    client.request("BREW", "/livez")
    total = "yolo_gateway_requests_total"
    assert value(total, method="POST", route="/predict", status="202") == 1
    assert value(total, method="GET", route="/result/{task_id}", status="200") == 1
    assert value(total, method="GET", route="/result/{task_id}", status="404") == 1
    assert value(total, method="GET", route="none", status="404") == 1
    assert value(total, method="other", route="/livez", status="405") == 1
    assert value("yolo_gateway_requests_in_flight") == 0
    assert value("yolo_gateway_accepted_images_total") == 1
    assert value("yolo_gateway_upload_size_bytes_sum") == len(PICTURE)


def test_waiting_does_not_count_as_latency(client: httpx2.Client, value: Callable[..., float | None]) -> None:
    client.post("/predict?wait=0.1", content=PICTURE)
    count = "yolo_gateway_request_duration_seconds_count"
    assert value(count, route="/predict", waited="yes") == 1
    assert value(count, route="/predict", waited="no") is None


def test_refusals_are_counted_by_reason(client: httpx2.Client, value: Callable[..., float | None]) -> None:
    client.post("/predict", content=b"no image at all")
    parts = [("image", ("a.jpg", PICTURE)), ("image", ("b.jpg", b"no image either"))]
    assert client.post("/predict", files=parts).status_code == 202
    assert value("yolo_gateway_rejected_total", reason="unsupported_image") == 2
    assert value("yolo_gateway_accepted_images_total") == 1


def test_readiness_is_a_metric(client: httpx2.Client, value: Callable[..., float | None]) -> None:
    deadline = time.monotonic() + 5
    while value("yolo_gateway_ready", part="redis") is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert value("yolo_gateway_ready", part="redis") == 1
    assert value("yolo_gateway_ready", part="worker") == 0
    assert value("yolo_gateway_ready", part="triton") == 0


def test_the_queue_is_described(client: httpx2.Client, queue: TaskQueue) -> None:
    assert state_of(queue).tasks == {"queued": 0, "taken": 0, "started": 0}
    for _ in range(3):
        client.post("/predict", content=PICTURE)
    time.sleep(0.05)
    state = state_of(queue)
    assert state.tasks == {"queued": 3, "taken": 0, "started": 0}
    assert state.open_tasks == 3 and state.open_bytes - state.reserved_bytes > 3 * len(PICTURE)
    assert state.reserved_bytes == 3 * TaskRequest(model="fake", accepted_at=0.0).end_bytes
    assert 0.05 <= state.oldest_age < 5
    assert state.memory > 0
    queue.connection.lmove(queue.rq.key, queue.rq.intermediate_queue_key)
    assert queue.claim(0, "worker") is not None
    assert state_of(queue).tasks == {"queued": 1, "taken": 1, "started": 1}


def test_a_busy_worker_is_seen(client: httpx2.Client, queue: TaskQueue, settings: Settings) -> None:
    client.post("/predict", content=PICTURE)
    worker = TaskWorker(queue, Processor(Pipeline(FakeTriton(), settings), settings), settings)
    worker.register_birth()  # type: ignore[no-untyped-call]
    worker._keep_fresh()
    assert state_of(queue).workers == {"alive": 1, "busy": 0}
    assert queue.claim(0, worker.name) is not None
    assert state_of(queue).workers == {"alive": 1, "busy": 1}
    assert state_of(queue).tasks == {"queued": 0, "taken": 0, "started": 1}
    worker.register_death()  # type: ignore[no-untyped-call]


def test_reading_the_queue_changes_nothing(client: httpx2.Client, queue: TaskQueue, connection: "redis.Redis") -> None:
    client.post("/predict", content=PICTURE)
    abandoned = "gone:0123"
    connection.zadd(queue.rq.started_job_registry.key, {abandoned: time.time() - 3600})
    before = {key: connection.dump(key) for key in connection.keys("*")}
    assert state_of(queue).tasks["started"] == 0
    assert {key: connection.dump(key) for key in connection.keys("*")} == before


def test_a_queue_without_redis_is_down(settings: Settings) -> None:
    with redis.Redis(port=1, socket_timeout=1) as nowhere:
        registry = CollectorRegistry()
        registry.register(QueueCollector(reader(nowhere, 15)))
        assert "yolo_queue_up 0.0" in generate_latest(registry).decode()


def test_a_worker_counts_what_became_of_its_tasks(
    client: httpx2.Client, queue: TaskQueue, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    client.post("/predict", content=PICTURE, headers={"X-Request-ID": "good-one"})
    client.post("/predict", content=PICTURE[:60])
    metrics = WorkerMetrics()
    processor = Processor(Pipeline(FakeTriton(outages=1), settings, metrics), settings, metrics)
    with caplog.at_level(logging.INFO, "gateway.worker"):
        TaskWorker(queue, processor, settings).run(burst=True)
    value = processor.metrics.registry.get_sample_value
    assert value("yolo_worker_tasks_total", {"status": "success"}) == 1
    assert value("yolo_worker_tasks_total", {"status": "failure"}) == 1
    assert value("yolo_worker_failures_total", {"code": "invalid_image"}) == 1
    assert value("yolo_worker_retries_total", {"reason": "triton_away"}) == 1
    assert value("yolo_worker_step_duration_seconds_count", {"step": "triton"}) == 1
    assert value("yolo_worker_detections_sum") == 1
    assert value("yolo_worker_tasks_running") == 0
    assert value("yolo_worker_slots") == settings.worker_tasks
    assert value("yolo_worker_decoding_bytes") == 0
    assert value("yolo_worker_decoding_limit_bytes") == settings.max_decoding_bytes
    assert {record.getMessage().partition(":")[0] for record in caplog.records} >= {"succeeded", "failed"}


def test_labels_are_the_documented_ones(client: httpx2.Client, queue: TaskQueue) -> None:
    client.post("/predict", content=b"no image at all")
    assert isinstance(client, TestClient) and isinstance(client.app, Starlette)
    registry: CollectorRegistry = client.app.state.services.metrics.registry
    registry.register(QueueCollector(reader(queue.connection, 15)))
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    documented = {
        name.removesuffix("_total"): {label.strip() for label in labels.split(",") if label.strip()}
        for name, labels in re.findall(r"^\| `(yolo_\w+)` \| \w+ \| ([\w, ]*)\|", text, re.MULTILINE)
    }
    for family in registry.collect():
        for sample in family.samples if family.name.startswith("yolo_") else []:
            assert sample.labels.keys() - {"le"} == documented[family.name], json.dumps(sample.labels)


def test_a_redis_that_may_lose_tasks_is_a_metric(tmp_path: Path) -> None:
    with running_redis(tmp_path, appendonly="yes") as server, server.connect() as connection:
        state = reader(connection, 15)()
        assert state is not None and (state.evicts, state.keeps_file) == (False, True)
        for name, value in {"appendonly": "no", "maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}.items():
            connection.config_set(name, value)
        state = reader(connection, 15)()
        assert state is not None and (state.evicts, state.keeps_file) == (True, False)
