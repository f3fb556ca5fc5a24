"""The worker's side of the queue: take a task and begin it, keep its end, give it back. Blocking and thread-safe."""

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

import redis
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from gateway import clock
from gateway.queue import retention, rq_lua, scripts
from gateway.queue.common import end_args, end_commands, end_keys, request_of, rq_queue
from gateway.queue.kept_connection import KeptConnection, Script
from gateway.queue.records import TaskRequest
from gateway.redis_names import (
    EVENTS_CHANNEL,
    HIGH_KEY,
    HIGH_RUN_KEY,
    INTERMEDIATE_KEY,
    OPEN_KEY,
    PICTURES_BYTES_KEY,
    PICTURES_KEY,
    QUEUE_KEY,
    QUEUE_NAME,
    TURNS,
    executions_key,
    image_key,
    job_key,
    picture_key,
)
from gateway.redis_pipelined import Command
from gateway.settings import Settings
from gateway.task import TaskView
from gateway.telemetry import tracing

_FULL_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Claim:
    """A task that this worker has begun; `image` is None when it has expired, `data` is RQ's of the job.

    It stays this worker's for as long as heartbeats of its `execution` follow.
    """

    task_id: str
    data: bytes
    image: bytes | None
    execution: Execution
    was_lost: bool = False  # a worker has died under it, or it met a defect
    former: str = ""  # the execution before this one, where traces are made

    @cached_property
    def request(self) -> TaskRequest:
        """What was asked for. Raises ValueError when no gateway of this version wrote the job."""
        request = request_of(self.data)
        if request is None:
            raise ValueError(f"the job of task {self.task_id} holds no request")
        return request


class _OfWorker(NamedTuple):
    """What a worker's claims always say."""

    claim: Script
    resume: Script

    @classmethod
    def named(cls, worker_name: str, settings: Settings) -> "_OfWorker":
        keys = (OPEN_KEY, QUEUE_KEY, INTERMEDIATE_KEY, HIGH_KEY, HIGH_RUN_KEY, *TURNS, *rq_lua.begin_keys(worker_name))
        image = image_key(""), scripts.SCRIPT_BYTES
        own = rq_lua.worker_args(worker_name, settings.worker_ttl)
        args = (job_key(""), *image, EVENTS_CHANNEL, settings.max_high_in_a_row, *own)
        return cls(Script(scripts.CLAIM, keys, args), Script(scripts.RESUME, keys, args))


class _OfThread(threading.local):
    """What each thread has of its own: a connection, and the id of an execution that it may have begun unheard."""

    connection: KeptConnection | None = None
    in_doubt: str = ""


class TaskQueue:
    """One per process, over a shared connection; each thread has one of its own besides. Raises redis.RedisError."""

    def __init__(self, connection: "redis.Redis", settings: Settings) -> None:
        self.connection = connection
        self.rq = rq_queue(connection)
        self._settings = settings
        self._thread = _OfThread()
        self._end = Script(scripts.END)
        self._workers: dict[str, _OfWorker] = {}

    def claim(self, seconds: float, worker_name: str) -> Claim | None:
        """Take the next task and begin it as `worker_name`; waits up to `seconds` for one, 0 does not wait."""
        if found := self.resume(worker_name):
            return found
        if not seconds:
            return self._begun(self._kept().ask(self._claiming(worker_name))[0], worker_name)
        # Redis runs what comes behind a command that blocks as soon as that has its reply.
        waiting = b"BLMOVE", QUEUE_KEY, INTERMEDIATE_KEY, b"LEFT", b"RIGHT", seconds
        moved, taken = self._kept().ask(waiting, self._claiming(worker_name, has_waited=True))
        claim = self._begun(taken, worker_name)
        if claim is None and isinstance(moved, redis.OutOfMemoryError):
            time.sleep(min(seconds, _FULL_PAUSE_SECONDS))  # a full Redis allows to ask again and again
        elif claim is None and isinstance(moved, redis.RedisError):
            raise moved
        return claim

    def resume(self, worker_name: str) -> Claim | None:
        """What this thread's last claim has begun, if its answer was lost. A claim comes after it by itself."""
        if not (execution_id := self._thread.in_doubt):
            return None
        command = self._worker(worker_name).resume.command(args=(*rq_lua.begin_args(execution_id), 0))
        return self._begun(self._kept().ask(command)[0], worker_name)

    def finish(
        self,
        view: TaskView,
        request: TaskRequest | None = None,
        execution: Execution | None = None,
        pictures: Mapping[str, bytes] | None = None,
    ) -> bool:
        """Keep the end of a task, tell whoever waits for it, drop its image and, with its `execution`, its job.

        `pictures` are annotated pictures by media type. False when the task had ended before: the first end stays.
        """
        command = self._ending(view, request, execution)
        if not pictures:
            return bool(_answer(self._kept().ask(command)[0]))
        with self.connection.pipeline() as pipe:
            self._keep_pictures(view.task_id, pictures, pipe)
            pipe.execute_command("EVAL", scripts.END, *command[2:])  # type: ignore[no-untyped-call]
            return bool(pipe.execute()[-1])

    def finish_and_claim(self, view: TaskView, request: TaskRequest, execution: Execution) -> tuple[bool, Claim | None]:
        """The same, and what `claim` gives without waiting: both at once, so that Redis writes its file once.

        For a thread that would claim next. May be repeated like `finish`: then it claims only if nothing is in doubt.
        """
        ending = self._ending(view, request, execution)
        if self._thread.in_doubt:
            return bool(_answer(self._kept().ask(ending)[0])), None
        ended, taken = self._kept().ask(ending, self._claiming(execution.worker_name))
        is_first = bool(_answer(ended))  # raises: then it is still in doubt what was claimed
        return is_first, self._begun(taken, execution.worker_name)

    def fail(
        self, execution: Execution, view: TaskView, request: TaskRequest | None, dead_by: float = float("1e18")
    ) -> Literal["retry", "ended", "left"]:
        """Have the task of an execution that died or met a defect tried again, or end as `view` after its last try.

        `left` when the execution is not in RQ's books any more, or lives longer than `dead_by`, seconds since the
        epoch: then nothing was done, since the task may run elsewhere.
        """
        task_id, job = view.task_id, self._job(view.task_id)
        always, retry = self.connection.pipeline(), self.connection.pipeline()
        execution.delete(job, always)
        job.set_status(JobStatus.QUEUED, pipeline=retry)
        retry.hincrby(job.key, "retries_left", -1)
        _note_former(retry, job.key, execution)
        self.rq.push_job_id(task_id, pipeline=retry, at_front=True)
        records = b"DEL", job.key, executions_key(task_id)
        end = records, *end_commands(view, request, self._settings.result_ttl)
        first, second = scripts.words(always), scripts.words(retry)
        own = end_args(task_id, self._settings)
        last = len(own) + 4 + len(first), len(own) + 4 + len(first) + len(second)
        keys = (*end_keys(task_id, request.batch_id if request else ""), self.rq.started_job_registry.key, job.key)
        args = (*own, execution.composite_key, dead_by, *last, *first, *second, *scripts.flat(end))
        outcome: bytes = self.connection.eval(scripts.FAIL, len(keys), *keys, *args)
        return cast(Literal["retry", "ended", "left"], outcome.decode())

    def give_back(self, claim: Claim, at_front: bool = True) -> None:
        """Put a begun task back to the head of the queue, or to its end; it costs no try."""
        job, commands = self._job(claim.task_id), self.connection.pipeline()
        claim.execution.delete(job, commands)
        _note_former(commands, job.key, claim.execution)
        job.set_status(JobStatus.QUEUED, pipeline=commands)
        self.rq.push_job_id(job.id, pipeline=commands, at_front=at_front)
        args = (claim.execution.composite_key, *scripts.words(commands))
        self.connection.eval(scripts.GIVE_BACK, 1, self.rq.started_job_registry.key, *args)

    def _kept(self) -> KeptConnection:
        mine = self._thread
        if mine.connection is None:
            mine.connection = KeptConnection(self.connection.connection_pool)
        return mine.connection

    def _worker(self, name: str) -> _OfWorker:
        known = self._workers.get(name)
        if known is None:
            known = self._workers[name] = _OfWorker.named(name, self._settings)
        return known

    def _claiming(self, worker_name: str, has_waited: bool = False) -> Command:
        """The command; until its answer is there it is in doubt whether an execution has begun."""
        self._thread.in_doubt = execution_id = os.urandom(16).hex()
        return self._worker(worker_name).claim.command(args=(*rq_lua.begin_args(execution_id), int(has_waited)))

    def _begun(self, taken: Any, worker_name: str) -> Claim | None:
        """What has begun, by the answer of Redis."""
        if _answer(taken) is None:
            self._thread.in_doubt = ""
            return None
        task_id, data, retries_left, image, former = taken
        mine = Execution(self._thread.in_doubt, task_id.decode(), self.connection, worker_name)
        if image is None:
            image = _answer(self._kept().ask((b"GET", image_key(mine.job_id)))[0])
        self._thread.in_doubt = ""
        was_lost = int(retries_left or 0) < self._settings.task_retries
        return Claim(mine.job_id, data, image, mine, was_lost, (former or b"").decode())

    def _ending(self, view: TaskView, request: TaskRequest | None, execution: Execution | None) -> Command:
        own, worker_name = (execution.id, execution.worker_name) if execution else ("", "")
        records = rq_lua.finish_keys(view.task_id, own, worker_name)
        keys = (*end_keys(view.task_id, request.batch_id if request else ""), *records)
        commands = end_commands(view, request, self._settings.result_ttl)
        return self._end.command(keys, (*end_args(view.task_id, self._settings), own, *scripts.flat(commands)))

    def _job(self, task_id: str) -> Job:
        """RQ's handle of a job, nothing read."""
        job = Job(task_id, connection=self.connection, serializer=JSONSerializer)
        job.origin = QUEUE_NAME
        return job

    def _keep_pictures(self, task_id: str, pictures: Mapping[str, bytes], pipe: "redis.client.Pipeline") -> None:
        settings, size = self._settings, sum(map(len, pictures.values()))
        keys = (OPEN_KEY, PICTURES_KEY, PICTURES_BYTES_KEY)
        bounds = int(clock.now()), settings.result_ttl, settings.max_pictures_bytes
        flat = [word for pair in pictures.items() for word in pair]
        pipe.eval(retention.KEEP_PICTURES, len(keys), *keys, task_id, picture_key(""), size, *bounds, *flat)


def _answer(reply: Any) -> Any:
    """Raises what Redis has refused."""
    if isinstance(reply, redis.RedisError):
        raise reply
    return reply


def _note_former(pipe: "redis.client.Pipeline", key: str, execution: Execution) -> None:
    """For the link between the spans of two executions."""
    if tracing.spans is not None:
        pipe.hset(key, "former", execution.id)
