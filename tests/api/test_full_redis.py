"""A Redis beyond its maxmemory: what was accepted is worked off and read, new tasks are refused, and it says so."""

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import redis
import redis.asyncio as aioredis

from gateway.errors import Overloaded
from gateway.queue.connection import WorkerRedis
from gateway.queue.maintenance import Maintenance
from gateway.queue.redis_server import nearly_full
from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import QUEUE_KEY, WEBHOOKS_KEY, webhook_key
from gateway.settings import Settings
from gateway.webhooks.queue import WebhookQueue
from gateway.worker.loop import TaskWorker, connect
from gateway.worker.pipeline import Pipeline
from gateway.worker.processor import Processor
from local.ports import free_ports
from local.processes import running
from tests.api.clients import client_of, status
from tests.api.receiving import put
from tests.api.submit import submit
from tests.support.fakes import FakeTriton
from tests.support.pictures import encoded

PICTURE = encoded(64, 48)


@pytest.fixture(params=["valkey", "redis"])
def redis_url(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[str]:
    """Of Valkey, and of the Redis of this machine: that refuses in transactions, too, what only reads."""
    program, (port,) = shutil.which("redis-server"), free_ports(1)
    if request.param == "valkey":
        yield redis_url
    elif program is None:
        pytest.skip("no redis-server is installed")
    else:
        command, url = (
            [program, "--port", str(port), "--dir", str(tmp_path), "--save", ""],
            f"redis://127.0.0.1:{port}/0",
        )
        with running(command, {}, tmp_path / "redis.log", tmp_path), redis.Redis.from_url(url) as connection:
            wait_until(lambda: answers(connection), tmp_path / "redis.log")
            yield url


def answers(connection: "redis.Redis") -> bool:
    try:
        return bool(connection.ping())
    except redis.ConnectionError:
        return False


def wait_until(true: Callable[[], bool], log: Path) -> None:
    give_up_at = time.monotonic() + 20
    while not true():
        assert time.monotonic() < give_up_at, log.read_text()
        time.sleep(0.05)


@pytest.fixture
def fill(connection: "redis.Redis") -> Iterator[None]:
    """Lets a Redis that was made `full` take something again."""
    yield
    connection.config_set("maxmemory", 0)


def full(connection: "redis.Redis") -> None:
    connection.config_set("maxmemory", connection.info("memory")["used_memory"] // 2)
    with pytest.raises(redis.OutOfMemoryError):
        connection.set("anything", 1)


@pytest.fixture
def patient(settings: Settings) -> Iterator[TaskWorker]:
    """A worker over the connection that workers have."""
    connection = connect(settings)
    assert isinstance(connection, WorkerRedis)
    processor = Processor(Pipeline(FakeTriton(), settings), settings)
    yield TaskWorker(TaskQueue(connection, settings), processor, settings)
    connection.close()


def test_tasks_are_taken_finished_and_read(
    settings: Settings, connection: "redis.Redis", patient: TaskWorker, fill: None
) -> None:
    with client_of(msgspec.structs.replace(settings, rate_limit="100/minute")) as client:
        ways = {"annotate": "1"}, {"annotate": "1", "priority": "high"}
        places = [client.post("/predict", content=PICTURE, params=each).headers["location"] for each in ways]
        full(connection)
        assert client.get(places[0]).json()["status"] == "PENDING"
        patient.run(burst=True)  # its birth and death are in the records too
        for place in places:
            assert client.get(place).json()["status"] == "SUCCESS"
            assert client.get(place + "/image").json()["code"] == "no_picture"
        assert client.delete(places[0]).status_code == 204


def test_a_queued_task_can_be_canceled(client: httpx2.Client, connection: "redis.Redis", fill: None) -> None:
    place = client.post("/predict", content=PICTURE).headers["location"]
    full(connection)
    assert client.delete(place).json()["state"] == "canceled"


def test_deliveries_of_webhooks_are_ended_and_put_off(connection: "redis.Redis", redis_url: str, fill: None) -> None:
    put(connection, "arrived", "refused")
    full(connection)

    async def deliver() -> list[str]:
        async with aioredis.Redis.from_url(redis_url) as own:
            deliveries = WebhookQueue(own, 0.0)  # what is not put off is due again at once
            assert len(await deliveries.claim(2, 16, {})) == 2
            await deliveries.end("arrived")
            await deliveries.put_off("refused", 60)
            return [each.task_id for each in await deliveries.claim(2, 16, {})]

    assert asyncio.run(deliver()) == []
    assert connection.zrange(WEBHOOKS_KEY, 0, -1) == [b"refused"] and not connection.exists(webhook_key("arrived"))
    assert connection.ttl(webhook_key("refused")) > 86_400


def test_waiting_for_a_task_ends_with_it(
    settings: Settings, client: httpx2.Client, connection: "redis.Redis", patient: TaskWorker, fill: None
) -> None:
    place = client.post("/predict", content=PICTURE).headers["location"]
    full(connection)
    later = threading.Timer(0.3, patient.run, kwargs={"burst": True})
    later.start()
    assert client.get(place, params={"wait": "20"}).json()["status"] == "SUCCESS"
    later.join()


def test_a_worker_that_waits_finds_the_next_task(
    client: httpx2.Client, connection: "redis.Redis", patient: TaskWorker, queue: TaskQueue, fill: None
) -> None:
    full(connection)
    begun = time.monotonic()
    assert patient._tasks.claim(1, "worker") is None
    assert 0.1 < time.monotonic() - begun < 5, "it does not ask without a pause"


def test_a_worker_that_waits_takes_what_is_queued(
    client: httpx2.Client, connection: "redis.Redis", patient: TaskWorker, fill: None
) -> None:
    place = client.post("/predict", content=PICTURE).headers["location"]
    full(connection)
    claim = patient._tasks.claim(60, "worker")
    assert claim is not None and place.endswith(claim.task_id)


def test_heartbeats_and_maintenance_go_on(
    client: httpx2.Client, connection: "redis.Redis", patient: TaskWorker, fill: None
) -> None:
    place = client.post("/predict", content=PICTURE).headers["location"]
    tasks = patient._tasks
    claim = tasks.claim(0, patient.name)
    assert claim is not None
    patient.register_birth()  # type: ignore[no-untyped-call]
    full(connection)
    patient.executions[claim.execution.id] = claim.execution
    patient._keep_fresh()
    assert connection.hget(patient.key, "last_heartbeat") and connection.ttl(patient.key) > 0
    assert (connection.zscore(tasks.rq.started_job_registry.key, claim.execution.composite_key) or 0) > time.time()
    connection.config_set("maxmemory", 0)
    connection.zadd(tasks.rq.started_job_registry.key, {claim.execution.composite_key: 1})
    full(connection)
    patient.executions.clear()
    patient.clean_registries()  # its heartbeat has stopped: the task begins again
    assert client.get(place).json()["state"] == "retrying"
    again = tasks.claim(0, patient.name)
    assert again is not None and again.was_lost and again.task_id == claim.task_id
    patient._run(again)
    assert status(client, claim.task_id) == "SUCCESS"
    assert not Maintenance(tasks).lead(1)


def test_rates_are_counted(settings: Settings, connection: "redis.Redis", fill: None) -> None:
    with client_of(msgspec.structs.replace(settings, rate_limit="3/minute")) as client:
        full(connection)
        codes = [client.get(f"/result/{'0' * 32}").status_code for _ in range(5)]
    assert codes == [404, 404, 404, 429, 429]


def test_it_is_told(
    client: httpx2.Client, connection: "redis.Redis", fill: None, caplog: pytest.LogCaptureFixture
) -> None:
    assert "redis" not in client.get("/status").json().get("warnings", {})
    full(connection)
    for _ in range(3):
        time.sleep(1.1)  # an answer is good for a second
        answer = client.get("/status").json()
    assert "redis" not in answer["missing"] and "new tasks are refused" in answer["warnings"]["redis"]
    assert len([each for each in caplog.records if "hardly any memory" in each.message]) == 1
    assert client.get("/readyz").status_code == 200, "results are read, and another gateway has no other Redis"
    refused = client.post("/predict", content=PICTURE)
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert "the memory of Redis is taken up" in refused.json()["detail"]


by_both_ways = pytest.mark.parametrize("images", [1, 2], ids=["over the shared connection", "over one of its own"])


def large_upload(images: int) -> dict[str, Any]:
    """400 kB an image, with an Idempotency-Key."""
    files = [("image", (f"{each}.png", PICTURE + bytes(400_000))) for each in range(images)]
    return {"headers": {"Idempotency-Key": "one upload"}, "files": files}


@by_both_ways
def test_an_upload_that_is_sent_again_is_known(
    client: httpx2.Client, connection: "redis.Redis", fill: None, images: int
) -> None:
    upload = large_upload(images)
    first = client.post("/predict", **upload)
    full(connection)
    again = client.post("/predict", **upload)
    assert (first.status_code, again.status_code) == (202, 202), again.text
    assert again.headers["location"] == first.headers["location"]
    assert connection.llen(QUEUE_KEY) == images


@by_both_ways
def test_where_nothing_may_be_written_what_is_known_is_told(
    client: httpx2.Client, connection: "redis.Redis", images: int
) -> None:
    upload = large_upload(images)
    first = client.post("/predict", **upload)
    connection.config_set("min-replicas-to-write", 1)
    try:
        assert client.post("/predict", **upload).headers["location"] == first.headers["location"]
        assert client.post("/predict", content=PICTURE).json()["code"] == "service_unavailable"
    finally:
        connection.config_set("min-replicas-to-write", 0)


def test_a_large_image_is_refused_in_the_same_words(settings: Settings, connection: "redis.Redis", fill: None) -> None:
    full(connection)
    with pytest.raises(Overloaded, match=r"the memory of Redis is (full|taken up)"):
        submit(settings, bytes(600_000))


@pytest.mark.parametrize(
    ("used", "most", "reserved", "told"),
    [(500, 1000, 200, False), (500, 1000, 300, True), (900, 1000, 0, True), (10**9, 0, 10**9, False)],
)
def test_results_that_are_to_come_count_as_used(used: int, most: int, reserved: int, told: bool) -> None:
    assert bool(nearly_full({"used_memory": used, "maxmemory": most}, reserved)) == told
