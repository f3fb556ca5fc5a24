import httpx2
import pytest
import redis

from gateway.queue import redis_server
from gateway.queue.task_queue import TaskQueue
from gateway.settings import Settings, SettingsError
from gateway.worker.loop import TaskWorker, connect
from gateway.worker.pipeline import Pipeline
from gateway.worker.processor import Processor
from tests.support.fakes import FakeTriton


def test_livez_says_the_process_runs(client: httpx2.Client) -> None:
    assert client.get("/livez").json() == {"status": "alive"}


def test_readyz_names_what_is_missing(client: httpx2.Client) -> None:
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert set(answer.json()["missing"]) == {"triton", "worker"}


def worker(settings: Settings, connection: "redis.Redis") -> TaskWorker:
    processor = Processor(Pipeline(FakeTriton(), settings), settings)
    return TaskWorker(TaskQueue(connection, settings), processor, settings)


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


def test_a_redis_that_is_too_old_is_named(
    client: httpx2.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "LEAST_VERSION", (99, 0))
    assert client.get("/readyz").json()["missing"]["redis"].endswith("this service needs 99.0 or newer")
    with pytest.raises(SettingsError, match=r"REDIS_URL=\S+ is Redis \S+; this service needs 99.0 or newer"):
        connect(settings)


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
