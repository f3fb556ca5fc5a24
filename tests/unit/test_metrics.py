import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.samples import Sample

from gateway.errors import error_classes
from gateway.settings import Settings
from gateway.telemetry import exporter
from gateway.telemetry.metrics import STEPS, GatewayMetrics, QueueCollector, QueueState, WorkerMetrics
from gateway.telemetry.summed import observe
from local.ports import free_ports

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(yolo_\w+)` \| (\w+) \| ([\w, ]*)\| (.+) \|$", re.MULTILINE)

# A worker process with two tasks running, one success and one failure behind it.
WORKER = """
import sys, time
from gateway.telemetry.exporter import WorkerPort
from gateway.settings import load
port = WorkerPort(load())
port.metrics.slots.set(4)
port.metrics.running.set(2)
port.metrics.succeeded({"queue": 1.0, "decode": 2.0, "total": 40.0}, detections=3)
port.metrics.failed("invalid_image")
while True:
    port.try_to_serve()
    print("counted", flush=True)
    time.sleep(0.1)
"""


def declared() -> dict[str, tuple[str, str]]:
    """Type and help of every metric of the service, by its name on the page."""
    registry = CollectorRegistry()
    GatewayMetrics(registry)
    worker = CollectorRegistry()
    WorkerMetrics(worker)
    registry.register(QueueCollector(QueueState))
    found = {}
    for family in [*registry.collect(), *worker.collect()]:
        if family.name.startswith("yolo_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = (family.type, family.documentation)
    return found


def test_a_triton_that_is_no_longer_an_address_has_no_series() -> None:
    metrics = GatewayMetrics()
    metrics.set_tritons({"a:1": True, "b:1": False})
    metrics.set_tritons({"b:1": True})
    found = {each.labels["triton"]: each.value for each in next(iter(metrics.triton_up.collect())).samples}
    assert found == {"b:1": 1}


def test_every_metric_is_documented() -> None:
    rows = ROW.findall((ROOT / "docs" / "metrics.md").read_text())
    assert {name: (kind, meaning) for name, kind, _, meaning in rows} == declared()


def test_names_follow_the_conventions() -> None:
    for name, (kind, meaning) in declared().items():
        assert re.fullmatch(r"yolo_(gateway|queue|worker)_[a-z_]+", name)
        assert name.endswith("_total") == (kind == "counter")
        assert meaning and not meaning.endswith(".")


def test_a_step_is_counted_before_it_happens() -> None:
    page = generate_latest(WorkerMetrics().registry).decode()
    for step in STEPS:
        assert f'yolo_worker_step_duration_seconds_count{{step="{step}"}} 0.0' in page


def test_a_success_is_spread_over_its_steps() -> None:
    metrics = WorkerMetrics()
    metrics.succeeded({"queue": 100.0, "decode": 20.0, "triton": 300.0, "total": 450.0}, detections=2)
    value = metrics.registry.get_sample_value
    assert value("yolo_worker_task_wait_seconds_sum") == pytest.approx(0.1)
    assert value("yolo_worker_task_duration_seconds_sum") == pytest.approx(0.45)
    assert value("yolo_worker_step_duration_seconds_sum", {"step": "triton"}) == pytest.approx(0.3)
    assert value("yolo_worker_tasks_total", {"status": "success"}) == 1
    assert value("yolo_worker_detections_sum") == 2


@pytest.mark.parametrize("values", [[0.0], [0.5], [1.0, 2.0, 2.5, 1e9], [0.3] * 7 + [4.0]], ids=str)
def test_values_observed_at_once_are_as_if_observed_one_by_one(values: list[float]) -> None:
    pages = []
    for at_once in (True, False):
        registry = CollectorRegistry()
        histogram = Histogram("some", "some", buckets=(0.5, 1.0, 2.0), registry=registry)
        if at_once:
            observe(histogram, values)
        else:
            for value in values:
                histogram.observe(value)
        pages.append([line for line in generate_latest(registry).decode().splitlines() if "_created" not in line])
    assert pages[0] == pages[1]


def test_successes_are_counted_together() -> None:
    metrics = WorkerMetrics()
    for _ in range(100):
        metrics.succeeded({"queue": 1.0, "decode": 2.0, "total": 3.0}, detections=1)
    (first,) = metrics.tasks.labels("success").collect()
    assert first.samples[0].value < 100
    assert metrics.registry.get_sample_value("yolo_worker_tasks_total", {"status": "success"}) == 100
    assert metrics.registry.get_sample_value("yolo_worker_step_duration_seconds_count", {"step": "decode"}) == 100
    metrics.count()
    assert metrics.registry.get_sample_value("yolo_worker_tasks_total", {"status": "success"}) == 100


def test_nothing_is_said_of_a_queue_that_cannot_be_read() -> None:
    page = generate_latest(_registry(lambda: None)).decode()
    assert "yolo_queue_up 0.0" in page
    assert "yolo_queue_tasks" not in page


def test_readiness_without_redis_knows_no_worker() -> None:
    metrics = GatewayMetrics()
    metrics.set_ready({"redis"})
    parts = {part: metrics.registry.get_sample_value("yolo_gateway_ready", {"part": part}) for part in PARTS}
    assert parts == {"redis": 0, "worker": 0, "triton": 1}


PARTS = ("redis", "worker", "triton")


def test_a_port_in_use_is_told_and_not_fatal(caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)
    assert exporter.serve("127.0.0.1", port, CollectorRegistry(), "METRICS_PORT")
    assert not exporter.serve("127.0.0.1", port, CollectorRegistry(), "METRICS_PORT")
    assert "give another METRICS_PORT" in caplog.text


def test_port_0_serves_nothing() -> None:
    port = exporter.WorkerPort(Settings(worker_metrics_port=0))
    port.try_to_serve()


class Workers:
    """Worker processes that share a folder and a port."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self.environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder), "WORKER_METRICS_PORT": str(self.port)}
        self.running: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER], cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, text=True
        )
        self.running.append(process)
        assert process.stdout is not None and process.stdout.readline() == "counted\n"

    def kill(self, index: int) -> None:
        process = self.running.pop(index)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def page(self) -> str:
        deadline = time.monotonic() + 10
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                    return str(answer.read().decode())
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(tmp_path)
    yield workers
    while workers.running:
        workers.kill(0)


def test_workers_of_a_host_share_a_port_and_outlive_each_other(workers: Workers) -> None:
    for _ in range(3):
        workers.start()
    page = workers.page()
    assert 'yolo_worker_tasks_total{status="success"} 3.0' in page
    assert "yolo_worker_slots 12.0" in page
    workers.kill(0)  # the one that answered
    page = workers.page()
    assert 'yolo_worker_tasks_total{status="success"} 3.0' in page
    assert 'yolo_worker_failures_total{code="invalid_image"} 3.0' in page
    assert "yolo_worker_task_duration_seconds_count 3.0" in page
    assert "yolo_worker_slots 8.0" in page
    assert "yolo_worker_tasks_running 4.0" in page
    workers.start()
    assert 'yolo_worker_tasks_total{status="success"} 4.0' in workers.page()


def _registry(read: Callable[[], QueueState | None]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(QueueCollector(read))
    return registry


def test_every_refusal_and_failure_has_a_series_before_the_first() -> None:
    refused = {sample.labels["reason"] for sample in samples(GatewayMetrics().registry, "yolo_gateway_rejected_total")}
    failed = {sample.labels["code"] for sample in samples(WorkerMetrics().registry, "yolo_worker_failures_total")}
    assert {"no_image", "overloaded", "unsupported_image"} <= refused and "invalid_image" in failed
    assert refused | failed == {error.code for error in error_classes()} and not refused & failed


def samples(registry: CollectorRegistry, name: str) -> list[Sample]:
    return [sample for metric in registry.collect() for sample in metric.samples if sample.name == name]
