import time

import httpx2
import msgspec
import pytest
import redis

from gateway.queue import redis_server
from gateway.queue.task_queue import TaskQueue
from gateway.security.api_keys import new_key
from gateway.settings import Settings, SettingsError
from gateway.web import readiness
from gateway.worker.loop import TaskWorker, connect
from gateway.worker.pipeline import Pipeline
from gateway.worker.processor import Processor
from tests.api.clients import client_of
from tests.support.fakes import FakeTriton

KEY, KEY_LINE = new_key("operator")


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis and Triton are asked each time."""
    monkeypatch.setattr(readiness, "KEPT_SECONDS", 0.0)


@pytest.mark.parametrize("keys", [None, KEY_LINE], ids=["no keys", "keys"])
def test_where_something_is_is_told_with_a_key_only(settings: Settings, keys: str | None) -> None:
    nowhere = msgspec.structs.replace(settings, redis_url="redis://127.0.0.1:1/0", api_keys=keys)
    with client_of(nowhere) as client:
        missing = {"redis": "does not answer", "triton": "does not answer"}
        for headers in ({}, {"X-API-Key": "yolo_wrong"}):
            answer = client.get("/readyz", headers=headers)
            assert (answer.status_code, answer.json()["missing"]) == (503, missing)
            assert "127.0.0.1" not in answer.text
        if keys:
            told = client.get("/readyz", headers={"X-API-Key": KEY}).json()["missing"]
            assert "127.0.0.1" in told["triton"] and told["redis"].startswith("does not answer: ")


def test_asking_often_does_not_ask_redis_often(client: httpx2.Client, connection: "redis.Redis") -> None:
    def asked() -> int:
        return int(connection.info("commandstats").get("cmdstat_smembers", {"calls": 0})["calls"])

    before = asked()
    begun = time.monotonic()
    for _ in range(50):
        client.get("/readyz")
    assert asked() - before <= 2 + (time.monotonic() - begun)


def test_livez_says_the_process_runs(client: httpx2.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}


def test_readyz_names_what_is_missing(client: httpx2.Client) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert set(answer.json()["missing"]) == {"triton", "worker"}


def worker(settings: Settings, connection: "redis.Redis") -> TaskWorker:
    processor = Processor(Pipeline(FakeTriton(), settings), settings)
    return TaskWorker(TaskQueue(connection, settings), processor, settings)


@pytest.mark.usefixtures("afresh")
def test_readyz_sees_a_living_worker(client: httpx2.Client, settings: Settings, connection: "redis.Redis") -> None:
    living = worker(settings, connection)
    living.register_birth()  # type: ignore[no-untyped-call]
    assert set(client.get("/readyz").json()["missing"]) == {"triton"}
    living.register_death()  # type: ignore[no-untyped-call]
    assert set(client.get("/readyz").json()["missing"]) == {"triton", "worker"}


def test_readyz_does_not_believe_a_worker_that_stopped_beating(
    client: httpx2.Client, settings: Settings, connection: "redis.Redis"
) -> None:
    dead = worker(settings, connection)
    dead.register_birth()  # type: ignore[no-untyped-call]
    connection.hset(dead.key, "last_heartbeat", "2026-01-01T00:00:00.000000Z")
    assert set(client.get("/readyz").json()["missing"]) == {"triton", "worker"}


@pytest.mark.usefixtures("afresh")
def test_a_redis_that_is_too_old_is_named(
    client: httpx2.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "LEAST_VERSION", (99, 0))
    assert client.get("/readyz").json()["missing"]["redis"].endswith("this service needs 99.0 or newer")
    with pytest.raises(SettingsError, match=r"REDIS_URL=\S+ is Redis \S+; this service needs 99.0 or newer"):
        connect(settings)


@pytest.mark.usefixtures("afresh")
def test_a_redis_that_drops_keys_is_warned_of(
    client: httpx2.Client, settings: Settings, connection: "redis.Redis", caplog: pytest.LogCaptureFixture
) -> None:
    connection.config_set("maxmemory-policy", "allkeys-lru")
    connection.config_set("maxmemory", "100mb")
    try:
        for _ in range(3):
            client.get("/readyz")
        assert len([each for each in caplog.records if "maxmemory-policy" in each.message]) == 1
        connect(settings).close()
        assert len([each for each in caplog.records if "maxmemory-policy" in each.message]) == 2
    finally:
        connection.config_set("maxmemory-policy", "noeviction")
        connection.config_set("maxmemory", "0")
