import socket
import time
from collections.abc import Callable

import httpx2
import msgspec
import pytest
import redis

from gateway.queue import redis_server
from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import OPEN_KEY
from gateway.security.api_keys import new_key
from gateway.settings import Settings, SettingsError
from gateway.web import readiness
from gateway.worker.loop import TaskWorker, connect
from tests.api.clients import client_of

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
            ready, status = client.get("/readyz", headers=headers), client.get("/status", headers=headers)
            assert (ready.status_code, ready.json()["missing"]) == (503, {"redis": "does not answer"})
            assert (status.status_code, status.json()["missing"]) == (503, missing)
            assert "127.0.0.1" not in ready.text + status.text
        if keys:
            told = client.get("/status", headers={"X-API-Key": KEY}).json()["missing"]
            assert "127.0.0.1" in told["triton"] and told["redis"].startswith("does not answer: ")
            assert client.get("/readyz", headers={"X-API-Key": KEY}).json()["missing"]["redis"] == told["redis"]


@pytest.mark.parametrize("keys", [None, KEY_LINE], ids=["no keys", "keys"])
def test_how_much_there_is_to_do_is_for_those_with_a_key(settings: Settings, keys: str | None) -> None:
    with client_of(msgspec.structs.replace(settings, api_keys=keys)) as client:
        told = {"workers": {"alive": 0, "busy": 0}, "queue": {"open": 0, "queued": 0, "webhooks": 0}}
        assert client.get("/status", headers={"X-API-Key": KEY}).json().items() >= told.items()
        assert bool(client.get("/status").json().keys() & told) == (keys is None)


@pytest.mark.usefixtures("afresh")
def test_what_a_model_is_called_and_why_it_is_away_is_for_those_with_a_key(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asked(self: readiness.Readiness) -> dict[str, str]:
        self.unavailable = {"secret": "no file /models/secret"}
        return {"triton": "the model secret is not served: no file /models/secret"}

    monkeypatch.setattr(readiness.Readiness, "_ask_triton", asked)
    monkeypatch.setattr(readiness, "_clock_warnings", lambda *_: {"worker_clock": "1 of 3 workers"})
    with client_of(msgspec.structs.replace(settings, api_keys=KEY_LINE, model="secret")) as client:
        stranger = client.get("/status")
        assert stranger.json()["missing"]["triton"] == "not served"
        assert stranger.json()["warnings"]["worker_clock"] == "told with a key"
        assert set(stranger.json()["warnings"].values()) == {"told with a key"}
        others = [client.get(path, headers={"Accept": "text/html"}).text for path in ("/", "/readyz", "/livez")]
        assert "secret" not in stranger.text + "".join(others)
        told = client.get("/status", headers={"X-API-Key": KEY}).json()
        assert "/models/secret" in told["missing"]["triton"] and "secret" in told["unavailable"]
        assert told["warnings"]["worker_clock"] == "1 of 3 workers"


def test_asking_often_does_not_ask_redis_often(client: httpx2.Client, connection: "redis.Redis") -> None:
    def asked() -> int:
        return int(connection.info("commandstats").get("cmdstat_smembers", {"calls": 0})["calls"])

    before = asked()
    begun = time.monotonic()
    for _ in range(50):
        client.get("/readyz")
        client.get("/status")
    assert asked() - before <= 2 + (time.monotonic() - begun)


@pytest.mark.parametrize("elsewhere", ["", "redis://127.0.0.1:1/0"], ids=["with Redis", "without Redis"])
def test_livez_says_the_process_runs(settings: Settings, elsewhere: str) -> None:
    with client_of(msgspec.structs.replace(settings, redis_url=elsewhere or settings.redis_url)) as client:
        assert client.get("/livez").json() == {"status": "alive"}


def test_livez_does_not_wait_for_a_redis_that_hangs(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with client_of(msgspec.structs.replace(settings, redis_url=hanging)) as client:
            begun = time.monotonic()
            assert client.get("/livez").status_code == 200
            assert time.monotonic() - begun < 3
            assert client.get("/readyz").json() == {"status": "not ready", "missing": {"redis": "does not answer"}}
            assert time.monotonic() - begun < 9, "a probe gives up before"


def test_without_worker_and_triton_it_can_accept_and_says_what_is_missing(client: httpx2.Client) -> None:
    ready, status = client.get("/readyz"), client.get("/status")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert (status.status_code, set(status.json()["missing"])) == (503, {"triton", "worker"})


@pytest.mark.usefixtures("afresh")
def test_status_counts_tasks_and_workers(
    client: httpx2.Client, connection: "redis.Redis", queue: TaskQueue, worker: TaskWorker, submitted: Callable[[], str]
) -> None:
    submitted(), submitted()
    assert client.get("/status").json()["queue"] == {"open": 2, "queued": 2, "webhooks": 0}
    claim = queue.claim(0, worker.name)
    worker.register_birth()  # type: ignore[no-untyped-call]
    told = client.get("/status").json()
    assert claim and told["queue"] == {"open": 2, "queued": 1, "webhooks": 0}, "running work is open too"
    assert told["workers"] == {"alive": 1, "busy": 1}
    assert (connection.type(OPEN_KEY), connection.hlen(OPEN_KEY)) == (b"hash", 2), "KEDA counts these fields"


@pytest.mark.usefixtures("afresh")
def test_readyz_follows_redis(client: httpx2.Client, connection: "redis.Redis") -> None:
    assert client.get("/readyz").status_code == 200
    connection.client_pause(2_700)  # as one that hangs
    assert client.get("/readyz").json() == {"status": "not ready", "missing": {"redis": "does not answer"}}
    assert client.get("/readyz").status_code == 200, "it asks again"


@pytest.mark.usefixtures("afresh")
def test_status_sees_a_living_worker(client: httpx2.Client, worker: TaskWorker) -> None:
    worker.register_birth()  # type: ignore[no-untyped-call]
    assert set(client.get("/status").json()["missing"]) == {"triton"}
    worker.register_death()  # type: ignore[no-untyped-call]
    assert set(client.get("/status").json()["missing"]) == {"triton", "worker"}


def test_status_does_not_believe_a_worker_that_stopped_beating(
    client: httpx2.Client, worker: TaskWorker, connection: "redis.Redis"
) -> None:
    worker.register_birth()  # type: ignore[no-untyped-call]
    connection.hset(worker.key, "last_heartbeat", "2026-01-01T00:00:00.000000Z")
    assert set(client.get("/status").json()["missing"]) == {"triton", "worker"}


@pytest.mark.usefixtures("afresh")
def test_a_redis_that_is_too_old_is_named(
    client: httpx2.Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "LEAST_VERSION", (99, 0))
    for path in ("/readyz", "/status"):
        assert client.get(path).json()["missing"]["redis"].endswith("this service needs 99.0 or newer")
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
