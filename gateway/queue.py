"""The Redis + RQ adapter: accept tasks, claim them, keep their end. Every change of a task's state is one transaction.

Keys, beside RQ's own job: `yolo:image:<task_id>` the encoded image, `yolo:result:<task_id>` the ended TaskView as JSON,
`yolo:picture:<task_id>` the annotated pictures, `yolo:batch:<batch_id>` the parts of a batch,
`yolo:idempotency:<digest>` what an Idempotency-Key stands for, `yolo:rate:<bucket>` how many tasks ended in those ten
seconds; the book of open tasks is told of in `gateway.atomic`. Each change of state is published on the channel
`yolo:events` as `<task_id>:<state>`.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import redis
from msgspec import UNSET
from rq import Queue, Retry
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from gateway import atomic
from gateway.detections import State, TaskView, problem_of, timestamp
from gateway.errors import (
    Canceled,
    GatewayError,
    IdempotencyConflict,
    Overloaded,
    ServiceUnavailable,
    TaskNotFound,
    TaskRunning,
)
from gateway.rate import KEPT_SECONDS, rate_key, rate_keys, retry_after, tasks_per_second
from gateway.requests import BatchEntry, TaskRequest
from gateway.settings import Settings
from gateway.webhooks import schedule

QUEUE_NAME = "predict"
EVENTS_CHANNEL = "yolo:events"
MEMORY_SHARE = 0.8  # of Redis' maxmemory; the rest is for the ends of what was accepted
_BOOK = (atomic.OPEN_KEY, atomic.OPEN_BYTES_KEY)


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
    was_lost: bool = False  # a worker has died under it, or it met a defect

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
    view = TaskView(task_id=task_id, status="FAILURE", state=state, result=error.detail, error=problem)
    if request:
        view.created_at = timestamp(request.accepted_at)
        view.batch_id = request.batch_id or UNSET
    return view


class TaskQueue:
    """Blocking calls, thread-safe; one per process. `accept`, `cancel` are the gateway's, the rest the worker's.

    The gateway's raise ServiceUnavailable when Redis is away, the worker's redis.RedisError.
    """

    def __init__(self, connection: "redis.Redis", settings: Settings) -> None:
        self.connection = connection
        self.rq = Queue(QUEUE_NAME, connection=connection, serializer=JSONSerializer)
        self._settings = settings

    def accept(
        self, tasks: Sequence[NewTask], acceptance: Acceptance, *, at_front: bool = False, idempotency_key: str = ""
    ) -> Acceptance:
        """Accept tasks, all or none, in one transaction; returns what was accepted.

        With an `idempotency_key` of a task that is still known nothing is accepted again: returns what was accepted
        then.
        Raises IdempotencyConflict when that was another request, Overloaded when too much is waiting already, and
        ServiceUnavailable; nothing was accepted then, as far as this side can know.
        """
        settings = self._settings
        key = f"yolo:idempotency:{idempotency_key}"
        bounds = settings.max_queued_tasks, settings.max_queued_bytes, MEMORY_SHARE
        sizes = [word for task in tasks for word in (task.task_id, len(task.image))]
        with redis_errors():
            commands = self.connection.pipeline()
            for task in tasks:
                self._enqueue(task, commands, at_front)
            if acceptance.batch_id:
                commands.set(batch_key(acceptance.batch_id), msgspec.json.encode(acceptance), ex=self._kept_seconds)
            if idempotency_key:
                commands.set(key, msgspec.json.encode(acceptance), ex=self._kept_seconds)
            keys = (*_BOOK, key, result_key(tasks[0].task_id))
            args = (*bounds, len(tasks), *sizes, *atomic.words(commands))
            outcome, *told = self._run(atomic.ACCEPT, keys, args)
            if outcome in (b"overloaded", b"full"):
                raise self._overloaded(outcome == b"full", *told)
        return _same_request(msgspec.json.decode(told[0], type=Acceptance), acceptance) if told else acceptance

    def cancel(self, task_id: str) -> TaskView | None:
        """Cancel a task that has not begun and return its end; forget one that has ended and return None.

        Raises TaskRunning, TaskNotFound, ServiceUnavailable.
        """
        with redis_errors():
            job = self._job(task_id, self.connection.hgetall(job_key(task_id)))
            view = failure(task_id, Canceled("the task was canceled before it began"), _request_of(job))
            commands = self.connection.pipeline()
            commands.delete(job_key(task_id))
            self._store_end(view, commands, job)
            keys = (*_BOOK, self.rq.key, result_key(task_id), picture_key(task_id))
            outcome = self._run(atomic.CANCEL, keys, (task_id, *atomic.words(commands)))
        if outcome == b"unknown":
            raise TaskNotFound.of("task", task_id)
        if outcome == b"running":
            raise TaskRunning("the task has begun; it can be deleted once it has ended")
        return view if outcome == b"canceled" else None

    def claim(self, seconds: float) -> Claim | None:
        """Take the next task, waiting up to `seconds` for one; 0 does not wait."""
        while (task_id := self._next_id(seconds)) is not None:
            with self.connection.pipeline(transaction=False) as pipe:
                pipe.hgetall(job_key(task_id))
                pipe.get(image_key(task_id))
                pipe.hexists(atomic.OPEN_KEY, task_id)
                raw_job, image, is_open = pipe.execute()
            job = self._job(task_id, raw_job)
            if is_open and job is not None:
                return Claim(job, image, (job.retries_left or 0) < self._settings.task_retries)
            self.forget(task_id)  # canceled, or ended by a worker that was believed dead
        return None

    def begin(self, claim: Claim, worker_name: str, ttl_seconds: int) -> Execution | None:
        """Begin a task, as `worker_name`, for as long as heartbeats follow; None when it has ended in the meantime."""
        commands = self.connection.pipeline()
        execution = Execution.create(claim.job, ttl_seconds, commands, worker_name=worker_name)
        claim.job.prepare_for_execution(worker_name, pipeline=commands)
        commands.lrem(self.rq.intermediate_queue_key, 1, claim.task_id)
        commands.publish(EVENTS_CHANNEL, f"{claim.task_id}:started")
        return execution if self._run(atomic.IF_OPEN, _BOOK, (claim.task_id, *atomic.words(commands))) else None

    def finish(
        self,
        view: TaskView,
        job: Job | None = None,
        execution: Execution | None = None,
        pictures: Mapping[str, bytes] | None = None,
    ) -> bool:
        """Keep the end of a task, tell whoever waits for it, drop its image and, with its `execution`, its job.

        `pictures` are annotated pictures by media type. False when the task had ended before: the first end stays.
        """
        commands = self.connection.pipeline()
        if job is not None and execution is not None:
            commands.delete(job.key, ExecutionRegistry(job.id, self.connection).key)
        self._store_end(view, commands, job)
        with self.connection.pipeline() as pipe:
            if job is not None and execution is not None:
                execution.delete(job, pipe)
            if pictures:
                self._keep_pictures(view.task_id, pictures, pipe)
            pipe.eval(atomic.END, len(_BOOK), *_BOOK, view.task_id, *atomic.words(commands))
            return bool(pipe.execute()[-1])

    def give_back(self, job: Job, execution: Execution) -> None:
        """Put a begun task back to the head of the queue; it costs no try."""
        with self.connection.pipeline() as pipe:
            execution.delete(job, pipe)
            job.set_status(JobStatus.QUEUED, pipeline=pipe)
            self.rq.push_job_id(job.id, pipeline=pipe, at_front=True)
            pipe.execute()

    def forget(self, task_id: str) -> None:
        """Drop what is left of a task that is not open any more."""
        with self.connection.pipeline() as pipe:
            pipe.lrem(self.rq.intermediate_queue_key, 1, task_id)
            pipe.delete(job_key(task_id))
            pipe.execute()

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

    def _keep_pictures(self, task_id: str, pictures: Mapping[str, bytes], pipe: "redis.client.Pipeline") -> None:
        settings, size = self._settings, sum(map(len, pictures.values()))
        keys = (atomic.OPEN_KEY, atomic.PICTURES_KEY, atomic.PICTURES_BYTES_KEY)
        bounds = int(time.time()), settings.result_ttl, settings.max_pictures_bytes
        flat = [word for pair in pictures.items() for word in pair]
        pipe.eval(atomic.KEEP_PICTURES, len(keys), *keys, task_id, picture_key(""), size, *bounds, *flat)

    def _store_end(self, view: TaskView, pipe: "redis.client.Pipeline", job: Job | None) -> None:
        ended_at = time.time()
        view.ended_at = timestamp(ended_at)
        view.expires_at = timestamp(ended_at + self._settings.result_ttl)
        body = msgspec.json.encode(view)
        pipe.set(result_key(view.task_id), body, ex=self._settings.result_ttl)
        if job is not None and (callback_url := _callback_url(job)):
            schedule(pipe, view.task_id, callback_url, body)
        pipe.delete(image_key(view.task_id))
        if view.state != "canceled":  # no work, and so no measure of how fast it goes
            pipe.incr(rate_key(ended_at))
            pipe.expire(rate_key(ended_at), KEPT_SECONDS)
        pipe.publish(EVENTS_CHANNEL, f"{view.task_id}:{view.state}")

    def _next_id(self, seconds: float) -> str | None:
        source, target = self.rq.key, self.rq.intermediate_queue_key
        if seconds:
            moved = self.connection.blmove(source, target, seconds)  # type: ignore[arg-type]  # Redis takes fractions
        else:
            moved = self.connection.lmove(source, target)
        return moved.decode() if isinstance(moved, bytes) else None

    def _job(self, task_id: str, stored: Mapping[bytes | str, bytes | str]) -> Job | None:
        if not stored:
            return None  # RQ would refuse to name a job after whatever a client sent
        job = Job(task_id, connection=self.connection, serializer=JSONSerializer)
        try:
            job.restore(stored)
        except NoSuchJobError:
            return None  # or what is left of one that was deleted while another hand was on it
        return job

    def _run(self, script: str, keys: Sequence[str], args: Sequence[bytes | str | int | float]) -> Any:
        return self.connection.eval(script, len(keys), *keys, *args)

    def _overloaded(self, full: bool, tasks: int, sum_bytes: int) -> Overloaded:
        instant = time.time()
        counters = self.connection.mget(rate_keys(instant))
        seconds = 60 if full else retry_after(tasks, tasks_per_second(counters, instant))
        what = "its memory is taken up by results" if full else f"{tasks} tasks with {sum_bytes} bytes are waiting"
        return Overloaded(f"the service has more to do than it can take on: {what}; try again in {seconds} s", seconds)


def _request_of(job: Job | None) -> TaskRequest | None:
    try:
        return msgspec.convert(job.kwargs, TaskRequest) if job is not None else None
    except (DeserializationError, msgspec.ValidationError):
        return None


def _callback_url(job: Job) -> str:
    try:
        return str(job.kwargs.get("callback_url", ""))
    except DeserializationError:
        return ""


def _same_request(known: Acceptance, new: Acceptance) -> Acceptance:
    if known.fingerprint != new.fingerprint:
        raise IdempotencyConflict("this Idempotency-Key was used for another request; choose a new key")
    return known
