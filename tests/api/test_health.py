import httpx2
import redis

from gateway.queue.task_queue import TaskQueue
from gateway.settings import Settings
from gateway.worker.loop import TaskWorker
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
