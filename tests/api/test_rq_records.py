"""RQ's records as our scripts write them: what RQ reads of them is what it reads of its own."""

from hashlib import sha1
from typing import Any

import msgspec
import pytest
import redis
from rq import Queue, Retry
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer

from gateway.errors import InternalError
from gateway.queue import scripts
from gateway.queue.common import failure
from gateway.queue.records import TaskRequest
from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import QUEUE_NAME, client_key
from gateway.settings import Settings
from tests.api.submit import submit
from tests.support.pictures import encoded

WORKER, TIMES = "worker-1", ("created_at", "enqueued_at", "started_at", "last_heartbeat")


@pytest.fixture
def reference(connection: "redis.Redis", settings: Settings) -> Job:
    """The job as RQ's own enqueue writes it."""
    queue = Queue(QUEUE_NAME, connection=connection, serializer=JSONSerializer)
    return queue.enqueue_call(
        "gateway.predict",
        kwargs=msgspec.to_builtins(TaskRequest(model="fake", accepted_at=1.0)),
        failure_ttl=settings.result_ttl,
        description="predict fake",
        retry=Retry(max=settings.task_retries, enqueue_at_front=True),
    )


def read(job_id: str, connection: "redis.Redis") -> dict[str, Any]:
    """All that RQ reads of a job; of times only whether they are there, of the request not when it was accepted."""
    job = Job.fetch(job_id, connection=connection, serializer=JSONSerializer)
    found: dict[str, Any] = {**vars(job), "kwargs": {**job.kwargs, "accepted_at": 0}, "name": job.func_name}
    for name in ("_id", "_data", "_kwargs", "connection", "_cached_result", "serializer"):
        found.pop(name, None)
    return found | {name: found[name] is not None for name in TIMES}


def names_in(connection: "redis.Redis", task_id: str, execution_id: str = "-") -> dict[str, Any]:
    """RQ's keys with their types, times to live and members."""
    found = {}
    keys: Any = connection.keys("rq:*")
    for key in map(bytes.decode, keys):
        kind = str(connection.type(key))
        members: Any = connection.zrange(key, 0, -1) if "zset" in kind else None
        members = sorted(connection.smembers(key)) if "'set'" in kind else members
        text = [each.decode().replace(task_id, "ID").replace(execution_id, "EXECUTION") for each in members or ()]
        name = key.replace(task_id, "ID").replace(execution_id, "EXECUTION")
        found[name] = kind, round(connection.ttl(key), -1), text
    return found


def test_an_accepted_job_reads_as_one_that_rq_enqueued(
    settings: Settings, connection: "redis.Redis", reference: Job
) -> None:
    expected, names = read(reference.id, connection), names_in(connection, reference.id)
    connection.flushall()
    task_id = submit(settings, encoded(8, 8))
    assert read(task_id, connection) == expected
    assert names_in(connection, task_id) == names


def test_a_begun_job_reads_as_one_that_rq_began(
    settings: Settings, connection: "redis.Redis", queue: TaskQueue, reference: Job
) -> None:
    with connection.pipeline() as pipe:
        execution = Execution.create(reference, settings.worker_ttl, pipe, worker_name=WORKER)
        reference.prepare_for_execution(WORKER, pipeline=pipe)
        pipe.lrem(queue.rq.key, 1, reference.id)
        pipe.execute()
    expected, names = read(reference.id, connection), names_in(connection, reference.id, execution.id)
    connection.flushall()
    task_id = submit(settings, encoded(8, 8))
    claim = queue.claim(0, WORKER)
    assert claim is not None and claim.task_id == task_id
    assert read(task_id, connection) == expected
    assert names_in(connection, task_id, claim.execution.id) == names
    kept = Execution.fetch(claim.execution.id, task_id, connection)
    assert (kept.job_id, kept.worker_name) == (task_id, WORKER)
    assert kept.created_at == kept.last_heartbeat
    registered: Any = connection.zscore(queue.rq.started_job_registry.key, claim.execution.composite_key)
    assert registered == int(kept.created_at.timestamp()) + settings.worker_ttl


def test_a_finished_job_leaves_none(settings: Settings, connection: "redis.Redis", queue: TaskQueue) -> None:
    task_id = submit(settings, encoded(8, 8), client="a")
    claim = queue.claim(0, WORKER)
    assert claim is not None
    assert queue.finish(failure(task_id, InternalError("planted")), claim.request, claim.execution)
    assert connection.keys("rq:*") == [b"rq:queues"]
    assert connection.exists(client_key("a"))


def test_scripts_run_on_a_server_that_has_forgotten_them(
    settings: Settings, connection: "redis.Redis", queue: TaskQueue
) -> None:
    for _ in range(2):
        connection.script_flush()
        submit(settings, encoded(8, 8))
        connection.script_flush()
        assert queue.claim(0, WORKER)
    assert connection.script_exists(sha1(scripts.CLAIM.encode()).hexdigest()) == [True]
