"""One upload, one trace: a collector in this process reads what the real processes send."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from gateway.settings import SettingsError
from gateway.telemetry import tracing
from tests.api.processes import receiving, until, worker
from tests.api.receiving import SECRET, headers_of
from tests.support.collector import Collector, Received, collecting
from tests.support.gateway import running_gateway
from tests.support.internet import PUBLIC_ADDRESS
from tests.support.pictures import encoded
from tests.support.stack import ROOT

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
STEPS = {"decode", "letterbox", "triton", "nms", "annotate", "store"}
FILE, QUERY = "secret-holiday.jpg", "confidence=0.31"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def otel(collector: Collector, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100", **more}


def upload(url: str, traceparent: str = TRACEPARENT, **options: str) -> Any:
    files = {"image": (FILE, encoded(64, 48), "image/jpeg")}
    answer = httpx2.post(f"{url}/predict?{QUERY}", files=files, data=options, headers={"traceparent": traceparent})
    assert answer.status_code == 202, answer.text
    return answer.json()


def finished(url: str, task_id: str) -> Any:
    answer = httpx2.get(f"{url}/result/{task_id}?wait=30", headers={"traceparent": "00-garbage"}, timeout=40)
    assert answer.json()["status"] != "PENDING", answer.text
    return answer.json()


def one(spans: list[Received], name: str, service: str = "") -> Received:
    (found,) = [span for span in spans if span.name == name and service in span.service]
    return found


def test_an_upload_is_one_trace_from_gateway_to_webhook_and_a_retry_is_linked(
    redis_url: str, collector: Collector, tmp_path: Path
) -> None:
    traces = otel(collector)
    callbacks = {"CALLBACKS": "true", "WEBHOOK_SECRET": SECRET, "LOG_FORMAT": "json", **traces}
    with (
        running_gateway(redis_url, tmp_path, **callbacks) as gateway,
        receiving(redis_url, tmp_path, traces) as requests,
    ):
        url = f"https://{PUBLIC_ADDRESS}/ended?token=secret-token"
        with worker(redis_url, tmp_path / "first.log", traces, seconds=60) as first:
            task_id = upload(gateway.url, callback_url=url, annotate="true")["task_id"]
            until(lambda: redis.Redis.from_url(redis_url).hget(f"rq:job:{task_id}", "status") == b"started")
            first.kill()
        with worker(redis_url, tmp_path / "second.log", traces):
            assert finished(gateway.url, task_id)["status"] == "SUCCESS"
            spans = collector.wait(TRACE, lambda found: any(span.name == "webhook POST" for span in found))
    request = one(spans, "POST /predict", "yolo-gateway")
    send = one(spans, "predict send", "yolo-gateway")
    dead, live = sorted((span for span in spans if span.name == "predict process"), key=lambda span: len(span.links))
    webhook = one(spans, "webhook POST", "yolo-webhooks")
    assert (request.parent, send.parent) == (PARENT, request.identity)
    assert dead.parent == live.parent == send.identity
    assert dead.has_failed and dead.attributes["error.type"] == "worker_died"
    assert not live.has_failed and live.links == (dead.identity,)
    assert {span.name for span in spans if span.parent == live.identity} == STEPS
    assert webhook.parent == one(spans, "store").identity
    assert headers_of(requests[0])["traceparent"] == f"00-{TRACE}-{webhook.identity}-01"
    assert request.attributes["http.route"] == "/predict" and request.attributes["http.response.status_code"] == 202
    assert live.attributes["messaging.message.id"] == task_id and live.attributes["yolo.detections"] == 1
    for secret in (FILE, QUERY, "secret-token", "/ended", task_id + "?"):
        assert secret.encode() not in collector.raw
    for log in ("gateway.log", "second.log"):
        lines = [json.loads(line) for line in (tmp_path / log).read_text().splitlines()]
        assert [line["trace_id"] for line in lines if line.get("task_id") == task_id or "/predict" in line["message"]]


def test_what_is_not_sampled_sends_nothing_and_its_log_has_the_trace(
    redis_url: str, collector: Collector, tmp_path: Path
) -> None:
    traces = otel(collector)
    with (
        running_gateway(redis_url, tmp_path, **traces) as gateway,
        worker(redis_url, tmp_path / "worker.log", traces),
    ):
        task_id = upload(gateway.url, f"00-{TRACE}-{PARENT}-00")["task_id"]
        assert finished(gateway.url, task_id)["status"] == "SUCCESS"
        time.sleep(0.5)
    assert collector.of(TRACE) == []
    assert f'"trace_id": "{TRACE}"' in (tmp_path / "worker.log").read_text()


@pytest.mark.parametrize("hold", [None, 30.0], ids=["down", "hanging"])
def test_a_collector_that_is_away_costs_no_task_and_one_line(
    hold: float | None, redis_url: str, collector: Collector, tmp_path: Path
) -> None:
    collector.hold = hold or 0.0
    traces = otel(collector, OTEL_EXPORTER_OTLP_TIMEOUT="1", OTEL_BSP_MAX_QUEUE_SIZE="10")
    traces |= {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "5"}
    if hold is None:
        traces["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:1"
    with (
        running_gateway(redis_url, tmp_path, **traces) as gateway,
        worker(redis_url, tmp_path / "worker.log", traces) as working,
    ):
        for _ in range(10):
            assert finished(gateway.url, upload(gateway.url)["task_id"])["status"] == "SUCCESS"
        time.sleep(3)
        working.terminate()
        begun = time.monotonic()
        working.wait(20)
        assert time.monotonic() - begun < 10
    lines = [line for line in (tmp_path / "worker.log").read_text().splitlines() if "spans are lost" in line]
    assert 1 <= len(lines) <= 3, lines
    assert len({json.loads(line)["message"] for line in lines}) == len(lines)


def test_nothing_of_opentelemetry_is_imported_while_it_is_off() -> None:
    code = (
        "import sys, gateway.lean_redis, gateway.web.app, gateway.worker.loop, gateway.webhooks.deliverer;"
        "from gateway.telemetry import tracing; tracing.start('x');"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    for more in (
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SDK_DISABLED": "true"},
    ):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**clean, **more}, capture_output=True, text=True
        )
        assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_TRACES_SAMPLER", "sometimes", "sometimes"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "OTEL_BSP_MAX_QUEUE_SIZE"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "soon"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "zip"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "OTEL_EXPORTER_OTLP_ENDPOINT: give a URL"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "give otlp or none"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret-key", "OTEL_EXPORTER_OTLP_HEADERS: give name=value"),
    ],
)
def test_a_value_that_has_no_meaning_stops_the_start_with_one_line(name: str, value: str, said: str) -> None:
    full = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", name: value}
    command = [sys.executable, "-m", "gateway.webhooks"]
    done = subprocess.run(command, cwd=ROOT, env=full, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and "s3cret" not in done.stderr, done.stderr


def test_traces_without_the_packages_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gateway.telemetry.spans", None)
    with pytest.raises(SettingsError, match=r"yolov5-triton-gateway\[tracing\]"):
        tracing.start("x", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
