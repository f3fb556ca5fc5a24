"""The promises of the queue, over a real Redis: whatever dies between two steps, the task is run again or ended."""

import threading
import time
import uuid
from collections.abc import Callable

import httpx2
import pytest
import redis

from gateway.errors import WorkerLost
from gateway.jobs import Processor
from gateway.maintenance import Maintenance
from gateway.pipeline import Pipeline
from gateway.queue import Acceptance, NewTask, TaskQueue, failure, job_key
from gateway.requests import BatchEntry, TaskRequest
from gateway.settings import Settings
from gateway.worker import TaskWorker
from tests.fakes import FakeTriton
from tests.pictures import encoded


@pytest.fixture
def queue(settings: Settings, connection: "redis.Redis") -> TaskQueue:
    return TaskQueue(connection, settings)


@pytest.fixture
def worker(settings: Settings, queue: TaskQueue, triton: FakeTriton) -> TaskWorker:
    return TaskWorker(queue, Processor(Pipeline(triton, settings), settings), settings)


def submit(queue: TaskQueue) -> str:
    task_id = uuid.uuid4().hex
    request = TaskRequest(model="fake", accepted_at=time.time())
    queue.accept([NewTask(task_id, encoded(64, 48), request)], Acceptance([BatchEntry(0, "", task_id)]))
    return task_id


@pytest.fixture
def task_id(queue: TaskQueue) -> str:
    return submit(queue)


def age_executions(connection: "redis.Redis", queue: TaskQueue) -> None:
    """Make every running execution look as if its heartbeat had stopped."""
    wip = queue.rq.started_job_registry.key
    for entry in connection.zrange(wip, 0, -1):
        assert isinstance(entry, bytes)
        connection.zadd(wip, {entry: 1})


def status(client: httpx2.Client, task_id: str) -> str:
    return str(client.get(f"/result/{task_id}").json()["status"])


def test_tasks_are_claimed_in_their_order(queue: TaskQueue) -> None:
    ids = [submit(queue) for _ in range(3)]
    claims = [queue.claim(0) for _ in range(4)]
    assert [claim.task_id for claim in claims if claim] == ids and claims[3] is None


def test_a_worker_that_dies_between_dequeue_and_begin_loses_nothing(
    client: httpx2.Client, queue: TaskQueue, task_id: str, work: Callable[[], None], connection: "redis.Redis"
) -> None:
    assert queue.claim(0) is not None
    Maintenance(queue).rescue_lost(10)
    assert queue.claim(0) is None, "the first look only remembers the id"
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
    claim = queue.claim(0)
    assert claim is not None
    worker.begin(claim)
    assert status(client, task_id) == "PENDING"
    age_executions(connection, queue)
    worker.clean_registries()
    work()
    assert status(client, task_id) == "SUCCESS"


def test_a_task_whose_workers_keep_dying_ends_after_three_tries(
    client: httpx2.Client, queue: TaskQueue, worker: TaskWorker, task_id: str, connection: "redis.Redis"
) -> None:
    tries = 0
    while (claim := queue.claim(0)) is not None:
        tries += 1
        worker.begin(claim)
        age_executions(connection, queue)
        connection.delete("yolo:maintenance")
        worker.clean_registries()
    body = client.get(f"/result/{task_id}").json()
    assert (tries, body["status"], body["error"]["code"]) == (3, "FAILURE", "worker_lost")


def test_a_task_taken_up_again_goes_to_the_head_of_the_queue(
    queue: TaskQueue, worker: TaskWorker, task_id: str, connection: "redis.Redis"
) -> None:
    later = submit(queue)
    claim = queue.claim(0)
    assert claim is not None and claim.task_id == task_id
    worker.begin(claim)
    age_executions(connection, queue)
    worker.clean_registries()
    order = [claim.task_id for claim in (queue.claim(0), queue.claim(0)) if claim]
    assert order == [task_id, later]


def test_a_task_that_ended_after_all_is_not_run_again(
    queue: TaskQueue, worker: TaskWorker, task_id: str, connection: "redis.Redis", triton: FakeTriton
) -> None:
    first = queue.claim(0)
    assert first is not None
    execution = worker.begin(first)
    assert execution is not None
    age_executions(connection, queue)
    worker.clean_registries()  # believed dead, queued again
    view, _ = worker.processor.process(first)
    queue.finish(view, first.job, execution)  # but it was only slow
    assert queue.claim(0) is None
    assert connection.exists(job_key(task_id)) == 0
    assert len(triton.seen) == 1


def test_the_first_end_of_a_task_stays(
    client: httpx2.Client, queue: TaskQueue, worker: TaskWorker, task_id: str, connection: "redis.Redis"
) -> None:
    claim = queue.claim(0)
    assert claim is not None
    execution = worker.begin(claim)
    view, _ = worker.processor.process(claim)
    assert queue.finish(view, claim.job, execution)
    assert not queue.finish(failure(task_id, WorkerLost("believed dead")))
    assert status(client, task_id) == "SUCCESS"
    client.delete(f"/result/{task_id}")
    assert not queue.finish(view, claim.job, execution), "the client wants it forgotten"
    assert client.get(f"/result/{task_id}").status_code == 404


def test_a_claimed_task_that_ended_elsewhere_is_not_begun(
    queue: TaskQueue, worker: TaskWorker, task_id: str, connection: "redis.Redis"
) -> None:
    claim = queue.claim(0)
    assert claim is not None
    queue.finish(failure(task_id, WorkerLost("believed dead")))
    assert worker.begin(claim) is None
    assert connection.llen(queue.rq.intermediate_queue_key) == 0
    assert connection.zcard(queue.rq.started_job_registry.key) == 0


def test_what_is_left_of_a_deleted_job_harms_no_worker(
    queue: TaskQueue, task_id: str, connection: "redis.Redis"
) -> None:
    connection.delete(job_key(task_id))
    connection.hset(job_key(task_id), "status", "queued")
    assert queue.claim(0) is None
    assert connection.exists(job_key(task_id)) == 0


def test_a_given_back_task_costs_no_try(
    client: httpx2.Client, queue: TaskQueue, worker: TaskWorker, task_id: str, work: Callable[[], None]
) -> None:
    for _ in range(5):
        claim = queue.claim(0)
        assert claim is not None
        execution = worker.begin(claim)
        assert execution is not None
        queue.give_back(claim.job, execution)
    work()
    assert status(client, task_id) == "SUCCESS"


def test_maintenance_has_one_leader_at_a_time(queue: TaskQueue) -> None:
    maintenance = Maintenance(queue)
    assert [maintenance.lead(1), maintenance.lead(1)] == [True, False]
    time.sleep(1.1)
    assert maintenance.lead(1)


class TestStopping:
    @pytest.fixture
    def triton(self) -> FakeTriton:
        return FakeTriton(outages=1_000_000)

    def test_a_stopping_worker_gives_back_what_waits_for_triton(
        self, worker: TaskWorker, queue: TaskQueue, task_id: str, connection: "redis.Redis"
    ) -> None:
        running = threading.Thread(target=worker.run)
        running.start()
        deadline = time.monotonic() + 5
        while not worker.executions and time.monotonic() < deadline:
            time.sleep(0.02)
        worker.stop()
        running.join(timeout=10)
        assert not running.is_alive()
        claim = queue.claim(0)
        assert claim is not None and claim.task_id == task_id
        assert connection.zcard(queue.rq.started_job_registry.key) == 0
