"""The promises of the queue, over a real Redis: whatever dies between two steps, the task is run again or ended."""

import os
import threading
import time
from collections.abc import Callable

import httpx2
import pytest
import redis

from gateway.errors import WorkerLost
from gateway.queue import scripts
from gateway.queue.common import failure
from gateway.queue.maintenance import Maintenance
from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import image_key, job_key
from gateway.settings import Settings
from gateway.worker.loop import TaskWorker
from tests.api.clients import status
from tests.api.submit import submit
from tests.support.fakes import FakeTriton
from tests.support.pictures import encoded


def age_executions(connection: "redis.Redis", queue: TaskQueue) -> None:
    """Make every running execution look as if its heartbeat had stopped."""
    wip = queue.rq.started_job_registry.key
    for entry in connection.zrange(wip, 0, -1):
        assert isinstance(entry, bytes)
        connection.zadd(wip, {entry: 1})


def test_tasks_are_claimed_in_their_order(queue: TaskQueue, submitted: Callable[[], str]) -> None:
    ids = [submitted() for _ in range(3)]
    claims = [queue.claim(0, "worker") for _ in range(4)]
    assert [claim.task_id for claim in claims if claim] == ids and claims[3] is None


def test_a_worker_that_dies_between_dequeue_and_begin_loses_nothing(
    client: httpx2.Client, queue: TaskQueue, task_id: str, work: Callable[[], None], connection: "redis.Redis"
) -> None:
    connection.lmove(queue.rq.key, queue.rq.intermediate_queue_key)
    Maintenance(queue).rescue_lost(10)
    assert queue.claim(0, "worker") is None, "the first look only remembers the id"
    connection.hset("yolo:between", task_id, str(time.time() - 11))
    Maintenance(queue).rescue_lost(10)
    work()
    assert status(client, task_id) == "SUCCESS"
    assert connection.llen(queue.rq.intermediate_queue_key) == 0


def test_a_worker_that_dies_in_a_task_loses_nothing(
    client: httpx2.Client,
    queue: TaskQueue,
    worker: TaskWorker,
    task_id: str,
    work: Callable[[], None],
    connection: "redis.Redis",
) -> None:
    assert queue.claim(0, "worker") is not None
    assert status(client, task_id) == "PENDING"
    age_executions(connection, queue)
    worker.clean_registries()
    work()
    assert status(client, task_id) == "SUCCESS"


def test_a_task_whose_workers_keep_dying_ends_after_three_tries(
    client: httpx2.Client, queue: TaskQueue, worker: TaskWorker, task_id: str, connection: "redis.Redis"
) -> None:
    tries = 0
    while queue.claim(0, "worker") is not None:
        tries += 1
        age_executions(connection, queue)
        connection.delete("yolo:maintenance")
        worker.clean_registries()
    body = client.get(f"/result/{task_id}").json()
    assert (tries, body["status"], body["error"]["code"]) == (3, "FAILURE", "worker_lost")
    assert client.delete(f"/result/{task_id}").status_code == 204
    assert client.get(f"/result/{task_id}").status_code == 404


def test_a_task_taken_up_again_goes_to_the_head_of_the_queue(
    queue: TaskQueue, worker: TaskWorker, task_id: str, connection: "redis.Redis", submitted: Callable[[], str]
) -> None:
    later = submitted()
    claim = queue.claim(0, "worker")
    assert claim is not None and claim.task_id == task_id
    age_executions(connection, queue)
    worker.clean_registries()
    order = [claim.task_id for claim in (queue.claim(0, "worker"), queue.claim(0, "worker")) if claim]
    assert order == [task_id, later]


def test_a_task_that_ended_after_all_is_not_run_again(
    queue: TaskQueue, worker: TaskWorker, task_id: str, connection: "redis.Redis", triton: FakeTriton
) -> None:
    first = queue.claim(0, "worker")
    assert first is not None
    age_executions(connection, queue)
    worker.clean_registries()  # believed dead, queued again
    view, _ = worker.processor.process(first)
    queue.finish(view, first.request, first.execution)  # but it was only slow
    assert queue.claim(0, "worker") is None
    assert connection.exists(job_key(task_id)) == 0
    assert len(triton.seen) == 1


def test_the_first_end_of_a_task_stays(
    client: httpx2.Client, queue: TaskQueue, worker: TaskWorker, task_id: str, connection: "redis.Redis"
) -> None:
    claim = queue.claim(0, "worker")
    assert claim is not None
    view, _ = worker.processor.process(claim)
    assert queue.finish(view, claim.request, claim.execution)
    assert not queue.finish(failure(task_id, WorkerLost("believed dead")))
    assert status(client, task_id) == "SUCCESS"
    client.delete(f"/result/{task_id}")
    assert not queue.finish(view, claim.request, claim.execution), "the client wants it forgotten"
    assert client.get(f"/result/{task_id}").status_code == 404


def test_a_task_that_ended_before_it_was_begun_is_not_begun(
    queue: TaskQueue, task_id: str, connection: "redis.Redis"
) -> None:
    queue.finish(failure(task_id, WorkerLost("believed dead")))
    assert queue.claim(0, "worker") is None
    assert connection.exists(job_key(task_id), queue.rq.key, queue.rq.intermediate_queue_key) == 0
    assert connection.zcard(queue.rq.started_job_registry.key) == 0


def test_a_task_is_waited_for(queue: TaskQueue, submitted: Callable[[], str], connection: "redis.Redis") -> None:
    later = threading.Timer(0.3, submitted)
    later.start()
    claim = queue.claim(5, "worker")
    later.join()
    assert claim is not None and claim.image == encoded(64, 48)
    assert connection.llen(queue.rq.intermediate_queue_key) == 0


# Up to SCRIPT_BYTES it comes with the claim, else apart.
@pytest.mark.parametrize("size", [1, scripts.SCRIPT_BYTES, scripts.SCRIPT_BYTES + 1, 3_000_000])
def test_an_image_of_any_size_reaches_the_worker(
    settings: Settings, queue: TaskQueue, connection: "redis.Redis", size: int
) -> None:
    image = os.urandom(size)
    task_id = submit(settings, image)
    claim = queue.claim(0, "worker")
    assert claim is not None and claim.image == image
    assert 0 < connection.ttl(image_key(task_id)) <= settings.image_ttl


def test_a_claim_is_in_the_books_of_rq(queue: TaskQueue, task_id: str, connection: "redis.Redis") -> None:
    claim = queue.claim(0, "worker")
    assert claim is not None
    job = queue.rq.fetch_job(task_id)
    assert job is not None and (job.get_status(), job.worker_name) == ("started", "worker")
    (execution,) = job.get_executions()
    assert execution == claim.execution
    assert (execution.composite_key, execution.worker_name) == (claim.execution.composite_key, "worker")
    assert queue.rq.started_job_registry.get_job_ids(cleanup=False) == [task_id]
    assert connection.smembers(execution.worker_executions_key) == {execution.composite_key.encode()}


def test_what_is_left_of_a_deleted_job_harms_no_worker(
    queue: TaskQueue, task_id: str, connection: "redis.Redis"
) -> None:
    connection.delete(job_key(task_id))
    connection.hset(job_key(task_id), "status", "queued")
    assert queue.claim(0, "worker") is None
    assert connection.exists(job_key(task_id)) == 0


def test_a_given_back_task_costs_no_try(
    client: httpx2.Client, queue: TaskQueue, worker: TaskWorker, task_id: str, work: Callable[[], None]
) -> None:
    for _ in range(5):
        claim = queue.claim(0, "worker")
        assert claim is not None
        queue.give_back(claim)
    work()
    assert status(client, task_id) == "SUCCESS"


def test_a_task_is_given_back_once(queue: TaskQueue, task_id: str, connection: "redis.Redis") -> None:
    claim = queue.claim(0, "worker")
    assert claim is not None
    queue.give_back(claim)
    queue.give_back(claim)  # the answer was lost
    assert connection.lrange(queue.rq.key, 0, -1) == [task_id.encode()]
    assert queue.claim(0, "worker") is not None
    queue.give_back(claim)  # the worker was believed dead, another one has begun
    assert connection.llen(queue.rq.key) == 0 and connection.hget(job_key(task_id), "status") == b"started"


def test_what_a_dead_worker_has_moved_is_begun_by_one_that_waits(
    queue: TaskQueue, task_id: str, connection: "redis.Redis"
) -> None:
    connection.lmove(queue.rq.key, queue.rq.intermediate_queue_key)
    claim = queue.claim(0.01, "worker")
    assert claim is not None and (claim.task_id, claim.was_lost) == (task_id, False)
    assert queue.claim(0.01, "other") is None


def test_maintenance_has_one_leader_at_a_time(queue: TaskQueue) -> None:
    maintenance = Maintenance(queue)
    assert [maintenance.lead(1), maintenance.lead(1)] == [True, False]
    time.sleep(1.1)
    assert maintenance.lead(1)
