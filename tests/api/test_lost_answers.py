"""Redis has done what a worker asked for, and the answer never arrives: nothing is begun twice or left behind."""

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx2
import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import redis

from gateway.queue import scripts
from gateway.queue.task_queue import Claim, TaskQueue
from gateway.redis_names import EXECUTING_KEY, QUEUE_KEY, job_key
from gateway.settings import Settings
from gateway.triton.client import Inference
from gateway.triton.shared_memory import Canvas
from gateway.triton.spec import ModelSpec
from gateway.worker.loop import TaskWorker
from gateway.worker.pipeline import Pipeline
from gateway.worker.processor import Processor
from tests.api.clients import status
from tests.api.test_queue import age_executions
from tests.support.cutting import Cutting, cutting
from tests.support.fakes import FakeTriton

WORKER = "worker"


@pytest.fixture
def between(redis_url: str) -> Iterator[Cutting]:
    with cutting(urlsplit(redis_url).port or 6379) as between:
        yield between


@pytest.fixture
def cut(settings: Settings, between: Cutting) -> Iterator[TaskQueue]:
    """A worker's side of the queue whose connections can be cut."""
    with redis.Redis(port=between.port) as connection:
        yield TaskQueue(connection, settings)


def claimed(queue: TaskQueue, seconds: float = 0) -> Claim:
    claim = queue.claim(seconds, WORKER)
    assert claim is not None
    return claim


@pytest.mark.parametrize("seconds", [0, 5], ids=["at once", "after waiting"])
def test_a_claim_is_repeated_and_not_doubled(
    between: Cutting, cut: TaskQueue, connection: "redis.Redis", submitted: Callable[[], str], seconds: float
) -> None:
    assert cut.claim(0, WORKER) is None
    ids = [submitted() for _ in range(2)]
    between.lose_answer()
    with pytest.raises(redis.ConnectionError):
        cut.claim(seconds, WORKER)
    assert connection.hget(job_key(ids[0]), "status") == b"started"
    first, second = claimed(cut, seconds), claimed(cut, seconds)
    assert [first.task_id, second.task_id] == ids and first.image and not first.was_lost
    assert connection.zrange(EXECUTING_KEY, 0, -1) == sorted(
        claim.execution.composite_key.encode() for claim in (first, second)
    )
    assert cut.claim(0, WORKER) is None


def test_a_finish_is_repeated_and_claims_once(
    between: Cutting,
    cut: TaskQueue,
    client: httpx2.Client,
    worker: TaskWorker,
    connection: "redis.Redis",
    submitted: Callable[[], str],
) -> None:
    ids = [submitted() for _ in range(3)]
    connection.script_load(scripts.END)
    claim = claimed(cut)
    view, _ = worker.processor.process(claim)
    between.lose_answer()
    with pytest.raises(redis.ConnectionError):
        cut.finish_and_claim(view, claim.request, claim.execution)
    assert cut.finish_and_claim(view, claim.request, claim.execution) == (False, None)
    assert status(client, ids[0]) == "SUCCESS"
    assert connection.lrange(QUEUE_KEY, 0, -1) == [ids[2].encode()] and connection.zcard(EXECUTING_KEY) == 1
    following = claimed(cut)
    assert following.task_id == ids[1] and not following.was_lost
    view, _ = worker.processor.process(following)
    is_first, last = cut.finish_and_claim(view, following.request, following.execution)
    assert is_first and last is not None and last.task_id == ids[2]


def test_what_was_begun_unheard_and_then_believed_dead_is_not_taken_up(
    between: Cutting, cut: TaskQueue, worker: TaskWorker, connection: "redis.Redis", submitted: Callable[[], str]
) -> None:
    assert cut.claim(0, WORKER) is None
    task_id = submitted()
    between.lose_answer()
    with pytest.raises(redis.ConnectionError):
        cut.claim(0, WORKER)
    age_executions(connection, cut)
    worker.clean_registries()
    assert cut.resume(WORKER) is None
    again = claimed(cut)
    assert again.task_id == task_id and again.was_lost


def test_a_worker_that_stops_then_keeps_nothing(
    between: Cutting,
    cut: TaskQueue,
    settings: Settings,
    client: httpx2.Client,
    connection: "redis.Redis",
    submitted: Callable[[], str],
) -> None:
    class Last(FakeTriton):
        def infer(
            self, spec: ModelSpec, image: npt.NDArray[np.uint8], version: str = "", canvas: Canvas | None = None
        ) -> Inference:
            between.lose_answer(on_cut=worker.stop)
            return super().infer(spec, image, version, canvas)

    one = msgspec.structs.replace(settings, worker_tasks=1)
    worker = TaskWorker(cut, Processor(Pipeline(Last(), one), one), one)
    connection.script_load(scripts.END)
    ids = [submitted() for _ in range(2)]
    worker.run()
    assert between.cuts == 1
    assert status(client, ids[0]) == "SUCCESS"
    assert connection.lrange(QUEUE_KEY, 0, -1) == [ids[1].encode()]
    assert connection.zcard(EXECUTING_KEY) == 0
    assert connection.hget(job_key(ids[1]), "retries_left") == str(settings.task_retries).encode()


def test_a_task_claimed_when_the_worker_stops_is_given_back(
    worker: TaskWorker, queue: TaskQueue, connection: "redis.Redis", task_id: str
) -> None:
    worker._give_back_last(claimed(queue))
    assert connection.lrange(QUEUE_KEY, 0, -1) == [task_id.encode()]
    assert connection.zcard(EXECUTING_KEY) == 0


def test_both_scripts_run_on_a_server_that_has_forgotten_them(
    queue: TaskQueue, worker: TaskWorker, connection: "redis.Redis", submitted: Callable[[], str]
) -> None:
    ids = [submitted() for _ in range(2)]
    claim = claimed(queue)
    view, _ = worker.processor.process(claim)
    connection.script_flush()
    is_first, following = queue.finish_and_claim(view, claim.request, claim.execution)
    assert is_first and following is not None and following.task_id == ids[1]


def test_what_dead_workers_have_moved_keeps_its_order(
    settings: Settings, queue: TaskQueue, connection: "redis.Redis", submitted: Callable[[], str]
) -> None:
    ids = [submitted() for _ in range(3)]
    for _ in range(2):
        connection.lmove(QUEUE_KEY, queue.rq.intermediate_queue_key)  # their workers died
    assert [claimed(queue, 5).task_id for _ in range(3)] == ids
    assert queue.claim(0.01, WORKER) is None
    assert connection.exists(QUEUE_KEY, queue.rq.intermediate_queue_key) == 0
