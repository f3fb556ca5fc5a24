"""Tries that fail: whose worker died, froze, or met a defect; and what RQ's own tools leave behind."""

import json
import zlib
from typing import Any

import httpx2
import pytest
import redis
import redis.asyncio as aioredis

from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import OPEN_KEY, job_key, webhook_key
from gateway.settings import Settings
from gateway.worker.loop import TaskWorker
from tests.api.clients import client_of
from tests.support.pictures import encoded

CALLED: list[str] = []


def called(*arguments: object) -> None:
    CALLED.append("called")


def let_die(connection: "redis.Redis", queue: TaskQueue) -> None:
    key = queue.rq.started_job_registry.key
    entries: Any = connection.zrange(key, 0, -1)
    for entry in entries:
        connection.zadd(key, {entry: 1})


@pytest.mark.parametrize("retries_left", [0, 2])
def test_what_a_record_names_is_not_called(
    queue: TaskQueue, worker: TaskWorker, task_id: str, connection: "redis.Redis", retries_left: int
) -> None:
    claim = queue.claim(0, "dead")
    assert claim is not None
    record: dict[Any, Any] = {"failure_callback_name": f"{__name__}.called", "retries_left": retries_left}
    connection.hset(job_key(task_id), mapping=record)
    CALLED.clear()
    let_die(connection, queue)
    worker.clean_registries()
    assert CALLED == []
    assert bool(connection.llen(queue.rq.key)) == bool(retries_left)
    assert connection.hexists(OPEN_KEY, task_id) == bool(retries_left)


@pytest.mark.parametrize("retries_left", [0, 1])
def test_a_frozen_worker_that_meets_a_defect_leaves_the_task_to_who_runs_it(
    queue: TaskQueue, worker: TaskWorker, task_id: str, connection: "redis.Redis", retries_left: int
) -> None:
    frozen = queue.claim(0, "frozen")
    assert frozen is not None
    let_die(connection, queue)
    worker.clean_registries()
    running = queue.claim(0, "other")
    assert running is not None and running.task_id == task_id
    connection.hset(job_key(task_id), "retries_left", retries_left)
    worker._fail(frozen)
    assert connection.hget(job_key(task_id), "status") == b"started" and connection.llen(queue.rq.key) == 0
    assert connection.hget(job_key(task_id), "retries_left") == str(retries_left).encode()
    assert connection.hexists(OPEN_KEY, task_id)
    worker._fail(running)
    assert connection.llen(queue.rq.key) == retries_left and connection.hexists(OPEN_KEY, task_id) == bool(retries_left)


def test_what_rq_lets_fail_keeps_its_webhook_batch_and_request(
    settings: Settings, queue: TaskQueue, worker: TaskWorker, connection: "redis.Redis"
) -> None:
    with client_of(settings) as client:
        files = [("image", ("a.png", encoded(8, 8))), ("image", ("b.png", encoded(9, 9)))]
        batch = client.post("/predict", files=files).json()
        claim = queue.claim(0, "dead")
        assert claim is not None
        data = connection.hget(job_key(claim.task_id), "data")
        assert isinstance(data, bytes) and claim.request.request_id
        connection.hset(job_key(claim.task_id), mapping={"retries_left": 0, "data": with_callback(data)})
        let_die(connection, queue)
        queue.rq.started_job_registry.cleanup()  # as `rq info` does
        assert connection.hget(job_key(claim.task_id), "status") == b"failed"
        worker.clean_registries()
        body = client.get(f"/result/{claim.task_id}").json()
        assert (body["state"], body["batch_id"]) == ("failed", batch["batch_id"])
        assert body["error"]["request_id"] == claim.request.request_id
        assert connection.hget(webhook_key(claim.task_id), "url") == b"https://example.org/"


def with_callback(data: bytes) -> bytes:
    """A job's data, with a callback_url in what was asked for."""
    try:
        name, instance, args, kwargs = json.loads(data)
    except UnicodeDecodeError:
        name, instance, args, kwargs = json.loads(zlib.decompress(data))
    return json.dumps([name, instance, args, {**kwargs, "callback_url": "https://example.org/"}]).encode()


def test_a_cancel_whose_answer_was_lost_keeps_the_end(client: httpx2.Client, connection: "redis.Redis") -> None:
    place = client.post("/predict", content=encoded(64, 48)).headers["location"]
    original: Any = aioredis.Redis.eval

    async def twice(*arguments: Any) -> Any:
        await original(*arguments)
        return await original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aioredis.Redis, "eval", twice)
        assert client.delete(place).status_code == 200
    assert client.get(place).json()["state"] == "canceled"
