"""The Redis + RQ adapter: accept tasks, claim them, keep their end. Every change of a task's state is one transaction.

Keys, beside RQ's own job: `yolo:image:<task_id>` the encoded image, `yolo:result:<task_id>` the ended TaskView as JSON,
`yolo:picture:<task_id>` the annotated pictures, `yolo:batch:<batch_id>` the parts of a batch,
`yolo:idempotency:<digest>` what an Idempotency-Key stands for, `yolo:rate:<bucket>` how many tasks ended in those ten
seconds. Each change of state is published on the channel `yolo:events` as `<task_id>:<state>`.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
import redis
from rq import Queue, Retry
from rq.exceptions import DeserializationError
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from gateway.detections import State, TaskView, problem_of, timestamp
from gateway.errors import Canceled, GatewayError, IdempotencyConflict, ServiceUnavailable, TaskNotFound, TaskRunning
from gateway.requests import BatchEntry, TaskRequest
from gateway.settings import Settings
from gateway.webhooks import schedule

QUEUE_NAME = "predict"
EVENTS_CHANNEL = "yolo:events"
RATE_BUCKET_SECONDS = 10
_RATE_KEPT_SECONDS = 120
_MAINTENANCE_KEY = "yolo:maintenance"
_LOST_AFTER_SECONDS = 10

# A task id goes back to the head of the queue only if nobody has begun the task in the meantime.
_RESCUE = "if redis.call('lrem', KEYS[1], 1, ARGV[1]) == 1 then redis.call('lpush', KEYS[2], ARGV[1]) end"


class NewTask(NamedTuple):
    """A task to accept: its id, the encoded image, what was asked for."""

    task_id: str
    image: bytes
    request: TaskRequest


class Acceptance(msgspec.Struct, frozen=True):
    """What was accepted: one task, or a batch of them. `fingerprint` tells two requests with one key apart."""

    entries: list[BatchEntry]
    batch_id: str = ""
    fingerprint: str = ""


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


def picture_key(task_id: str) -> str:
    return f"yolo:picture:{task_id}"


def batch_key(batch_id: str) -> str:
    return f"yolo:batch:{batch_id}"


def rate_key(seconds: float) -> str:
    return f"yolo:rate:{int(seconds // RATE_BUCKET_SECONDS)}"


def job_key(task_id: str) -> str:
    return Job.key_for(task_id)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Translate what redis-py raises when the server is away, restarting, full or too slow."""
    try:
        yield
    except redis.RedisError as error:
        raise ServiceUnavailable("the queue cannot be reached at the moment; try again in a few seconds") from error


def failure(task_id: str, error: GatewayError, request: TaskRequest | None = None) -> TaskView:
    """The end of a task that failed."""
    problem = problem_of(error, request.request_id if request else "")
    state: State = "canceled" if isinstance(error, Canceled) else "failed"
    return TaskView(task_id=task_id, status="FAILURE", state=state, result=error.detail, error=problem)


class TaskQueue:
    """Blocking calls, thread-safe; one per process. `accept`, `cancel` are the gateway's, the rest the worker's.

    The gateway's raise ServiceUnavailable when Redis is away, the worker's redis.RedisError.
    """

    def __init__(self, connection: "redis.Redis", settings: Settings) -> None:
        self.connection = connection
        self.rq = Queue(QUEUE_NAME, connection=connection, serializer=JSONSerializer)
        self._settings = settings
        self._rescue = connection.register_script(_RESCUE)

    def accept(
        self, tasks: Sequence[NewTask], acceptance: Acceptance, *, at_front: bool = False, idempotency_key: str = ""
    ) -> Acceptance:
        """Accept tasks, all or none, in one transaction; returns what was accepted.

        With an `idempotency_key` that is known already nothing is accepted again: returns what was accepted then.
        Raises IdempotencyConflict when that was another request, and ServiceUnavailable; nothing was accepted then, as
        far as this side can know.
        """
        key = f"yolo:idempotency:{idempotency_key}"
        with redis_errors(), self.connection.pipeline() as pipe:
            while True:
                if idempotency_key:
                    pipe.watch(key)  # type: ignore[no-untyped-call]
                    known = pipe.get(key)
                    if isinstance(known, bytes):
                        return _same_request(msgspec.json.decode(known, type=Acceptance), acceptance)
                    pipe.multi()
                for task in tasks:
                    self._enqueue(task, pipe, at_front)
                if acceptance.batch_id:
                    pipe.set(batch_key(acceptance.batch_id), msgspec.json.encode(acceptance), ex=self._kept_seconds)
                if idempotency_key:
                    pipe.set(key, msgspec.json.encode(acceptance), ex=self._kept_seconds)
                try:
                    pipe.execute()
                    return acceptance
                except redis.WatchError:
                    continue  # another request with this key came first

    def cancel(self, task_id: str) -> TaskView | None:
        """Cancel a task that has not begun and return its end; forget one that has ended and return None.

        Raises TaskRunning, TaskNotFound, ServiceUnavailable.
        """
        with redis_errors(), self.connection.pipeline() as pipe:
            while True:
                pipe.watch(result_key(task_id), job_key(task_id), self.rq.key)  # type: ignore[no-untyped-call]
                if pipe.exists(result_key(task_id)):
                    pipe.multi()
                    pipe.delete(result_key(task_id), picture_key(task_id))
                    view = None
                elif not pipe.exists(job_key(task_id)):
                    raise TaskNotFound(f"no task {task_id}; it was never accepted, or its result has expired")
                elif pipe.lpos(self.rq.key, task_id) is None:
                    raise TaskRunning("the task has begun; it can be deleted once it has ended")
                else:
                    view = failure(task_id, Canceled("the task was canceled before it began"))
                    job = Job.fetch(task_id, connection=self.connection, serializer=JSONSerializer)
                    pipe.multi()
                    pipe.lrem(self.rq.key, 1, task_id)
                    pipe.delete(job_key(task_id))
                    self._store_end(view, pipe, job)
                try:
                    pipe.execute()
                    return view
                except redis.WatchError:
                    continue

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
            self._forget(task_id)  # canceled, or ended by a worker that was believed dead
        return None

    def finish(
        self,
        view: TaskView,
        job: Job | None = None,
        execution: Execution | None = None,
        pictures: Mapping[str, bytes] | None = None,
    ) -> None:
        """Keep the end of a task, tell whoever waits for it, drop its image and, with its `execution`, its job.

        `pictures` are annotated pictures by media type.
        """
        with self.connection.pipeline() as pipe:
            if pictures:
                for media_type, picture in pictures.items():
                    pipe.hset(picture_key(view.task_id), media_type, picture)
                pipe.expire(picture_key(view.task_id), self._settings.result_ttl)
            if job is not None and execution is not None:
                execution.delete(job, pipe)
                pipe.delete(job.key, ExecutionRegistry(job.id, self.connection).key)
            self._store_end(view, pipe, job)
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

    @property
    def _kept_seconds(self) -> int:
        return self._settings.image_ttl + self._settings.result_ttl

    def _enqueue(self, task: NewTask, pipe: "redis.client.Pipeline", at_front: bool) -> None:
        settings = self._settings
        self.rq.enqueue_call(
            "gateway.predict",  # a name for the books: workers run no function that a job names
            kwargs=msgspec.to_builtins(task.request),
            job_id=task.task_id,
            failure_ttl=settings.result_ttl,
            description=f"predict {task.request.model}",
            retry=Retry(max=settings.task_retries, enqueue_at_front=True),
            at_front=at_front,
            pipeline=pipe,
        )
        pipe.set(image_key(task.task_id), task.image, ex=settings.image_ttl)

    def _store_end(self, view: TaskView, pipe: "redis.client.Pipeline", job: Job | None) -> None:
        ended_at = time.time()
        view.ended_at = timestamp(ended_at)
        view.expires_at = timestamp(ended_at + self._settings.result_ttl)
        body = msgspec.json.encode(view)
        pipe.set(result_key(view.task_id), body, ex=self._settings.result_ttl)
        if job is not None and (callback_url := _callback_url(job)):
            schedule(pipe, view.task_id, callback_url, body)
        pipe.delete(image_key(view.task_id))
        pipe.incr(rate_key(ended_at))
        pipe.expire(rate_key(ended_at), _RATE_KEPT_SECONDS)
        pipe.publish(EVENTS_CHANNEL, f"{view.task_id}:{view.state}")

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


def _callback_url(job: Job) -> str:
    try:
        return str(job.kwargs.get("callback_url", ""))
    except DeserializationError:
        return ""


def _same_request(known: Acceptance, new: Acceptance) -> Acceptance:
    if known.fingerprint != new.fingerprint:
        raise IdempotencyConflict("this Idempotency-Key was used for another request; choose a new key")
    return known
