"""The Redis + RQ adapter: accept a task, claim it, keep its end. Every change of a task's state is one transaction.

Keys of one task, beside RQ's own job: `yolo:image:<task_id>` the encoded image, `yolo:result:<task_id>` the ended
TaskView as JSON. The id of an ended task is also published on the channel `yolo:finished`.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
import redis
from rq import Queue, Retry
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from gateway.detections import Problem, TaskView
from gateway.errors import GatewayError, ServiceUnavailable
from gateway.settings import Settings

QUEUE_NAME = "predict"
FINISHED_CHANNEL = "yolo:finished"
_MAINTENANCE_KEY = "yolo:maintenance"
_LOST_AFTER_SECONDS = 10

# A task id goes back to the head of the queue only if nobody has begun the task in the meantime.
_RESCUE = "if redis.call('lrem', KEYS[1], 1, ARGV[1]) == 1 then redis.call('lpush', KEYS[2], ARGV[1]) end"


class TaskRequest(msgspec.Struct, frozen=True):
    """What a client asked for. `accepted_at` is in seconds since the epoch."""

    model: str
    accepted_at: float


class Claim(NamedTuple):
    """A task that this worker has taken from the queue; `image` is None when it has expired."""

    job: Job
    image: bytes | None

    @property
    def task_id(self) -> str:
        return self.job.id

    @property
    def request(self) -> TaskRequest:
        return msgspec.convert(self.job.kwargs, TaskRequest)


def image_key(task_id: str) -> str:
    return f"yolo:image:{task_id}"


def result_key(task_id: str) -> str:
    return f"yolo:result:{task_id}"


def job_key(task_id: str) -> str:
    return Job.key_for(task_id)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Translate what redis-py raises when the server is away, restarting, full or too slow."""
    try:
        yield
    except redis.RedisError as error:
        raise ServiceUnavailable("the queue cannot be reached at the moment; try again in a few seconds") from error


def failure(task_id: str, error: GatewayError) -> TaskView:
    """The end of a task that failed."""
    problem = Problem(title=error.title, status=error.status, detail=error.detail, code=error.code)
    return TaskView(task_id, "FAILURE", result=error.detail, error=problem)


class TaskQueue:
    """Blocking calls, thread-safe; one per process. `submit` is the gateway's, the rest the worker's.

    `submit` raises ServiceUnavailable, the others redis.RedisError.
    """

    def __init__(self, connection: "redis.Redis", settings: Settings) -> None:
        self.connection = connection
        self.rq = Queue(QUEUE_NAME, connection=connection, serializer=JSONSerializer)
        self._settings = settings
        self._rescue = connection.register_script(_RESCUE)

    def submit(self, image: bytes, model: str) -> str:
        """Accept one encoded image for `model`; returns the task id.

        Raises ServiceUnavailable; nothing was accepted then, as far as this side can know.
        """
        settings, task_id = self._settings, uuid.uuid4().hex
        request = TaskRequest(model, accepted_at=time.time())
        with redis_errors(), self.connection.pipeline() as pipe:
            self.rq.enqueue_call(
                "gateway.predict",  # a name for the books: workers run no function that a job names
                kwargs=msgspec.to_builtins(request),
                job_id=task_id,
                failure_ttl=settings.result_ttl,
                description=f"predict {model}",
                retry=Retry(max=settings.task_retries, enqueue_at_front=True),
                pipeline=pipe,
            )
            pipe.set(image_key(task_id), image, ex=settings.image_ttl)
            pipe.execute()
        return task_id

    def claim(self, seconds: float) -> Claim | None:
        """Take the next task, waiting up to `seconds` for one; 0 does not wait."""
        while (task_id := self._next_id(seconds)) is not None:
            with self.connection.pipeline(transaction=False) as pipe:
                pipe.hgetall(job_key(task_id))
                pipe.get(image_key(task_id))
                pipe.exists(result_key(task_id))
                raw_job, image, has_ended = pipe.execute()
            if raw_job and not has_ended:
                job = Job(task_id, connection=self.connection, serializer=JSONSerializer)
                job.restore(raw_job)
                return Claim(job, image)
            self._forget(task_id)  # cancelled, or ended by a worker that was believed dead
        return None

    def finish(self, view: TaskView, job: Job | None = None, execution: Execution | None = None) -> None:
        """Keep the end of a task, drop its image and its job, wake whoever waits for it."""
        with self.connection.pipeline() as pipe:
            pipe.set(result_key(view.task_id), msgspec.json.encode(view), ex=self._settings.result_ttl)
            pipe.delete(image_key(view.task_id))
            if job is not None and execution is not None:
                execution.delete(job, pipe)
                pipe.delete(job.key, ExecutionRegistry(job.id, self.connection).key)
            pipe.publish(FINISHED_CHANNEL, view.task_id)
            pipe.execute()

    def give_back(self, job: Job, execution: Execution) -> None:
        """Put a begun task back to the head of the queue; it costs no try."""
        with self.connection.pipeline() as pipe:
            execution.delete(job, pipe)
            job.set_status(JobStatus.QUEUED, pipeline=pipe)
            self.rq.push_job_id(job.id, pipeline=pipe, at_front=True)
            pipe.execute()

    def lead_maintenance(self, seconds: int) -> bool:
        """Whether the caller is to do the maintenance of this interval; one worker is, also if the last one died."""
        return bool(self.connection.set(_MAINTENANCE_KEY, 1, nx=True, ex=seconds))

    def rescue_lost(self) -> None:
        """Put back the ids of tasks whose worker died between dequeue and begin."""
        between = self.rq.intermediate_queue
        for task_id in between.get_job_ids():
            if between.set_first_seen(task_id):
                continue
            seen = between.get_first_seen(task_id)
            if seen is not None and time.time() - seen.timestamp() > _LOST_AFTER_SECONDS:
                self._rescue(keys=[between.key, self.rq.key], args=[task_id])
                self.connection.delete(between.get_first_seen_key(task_id))

    def _next_id(self, seconds: float) -> str | None:
        source, target = self.rq.key, self.rq.intermediate_queue_key
        if seconds:
            moved = self.connection.blmove(source, target, seconds)  # type: ignore[arg-type]  # Redis takes fractions
        else:
            moved = self.connection.lmove(source, target)
        return moved.decode() if isinstance(moved, bytes) else None

    def _forget(self, task_id: str) -> None:
        with self.connection.pipeline() as pipe:
            pipe.lrem(self.rq.intermediate_queue_key, 1, task_id)
            pipe.delete(job_key(task_id))
            pipe.execute()
