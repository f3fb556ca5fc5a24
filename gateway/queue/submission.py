"""The gateway's side of the queue: accept tasks, all or none, and cancel them. Every change is one script in Redis, and
what follows it in its transaction.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import redis
import redis.asyncio as aioredis

from gateway import clock
from gateway import redis_names as names
from gateway.errors import Canceled, IdempotencyConflict, Overloaded, TaskNotFound, TaskRunning, TooManyOpenTasks
from gateway.queue import rq_lua, scripts
from gateway.queue.common import (
    FULL_SECONDS,
    end_args,
    end_commands,
    end_keys,
    failure,
    redis_errors,
    request_of,
)
from gateway.queue.records import BatchEntry, TaskRequest
from gateway.queue.redis_server import MEMORY_SHARE
from gateway.queue.replication import Replication
from gateway.queue.throughput import rate_keys, retry_after, tasks_per_second
from gateway.redis_names import (
    HIGH_KEY,
    LEDGER,
    OPEN_KEY,
    PICTURES_BYTES_KEY,
    PICTURES_KEY,
    QUEUE_KEY,
    TURNS,
    WEBHOOKS_KEY,
    batch_key,
    callbacks_key,
    client_key,
    group_key,
    image_key,
    job_key,
    picture_key,
    result_key,
    waiting_key,
)
from gateway.redis_pipelined import Command, PipelinedRedis, Word
from gateway.settings import Settings
from gateway.task import TaskView

_FUNCTION = "gateway.predict"  # a name for RQ's records: workers run no function that a job names
_TASK_OVERHEAD = 2_000  # bytes that Redis takes for the names of one task, RQ's records of it, and around them
_SHARED_BYTES = 500_000  # more would hold up what others ask over the same connection
_REMEMBERED_SECONDS, _MOST_REFUSED = 0.5, 1_000
_DELIVERED_SECONDS = 86_400  # the longest that a delivery waits, tries apart
_DOUBT = ", and with the same Idempotency-Key, if it had one: it may have been accepted"
_T = TypeVar("_T")


class NewTask(NamedTuple):
    """A task to accept: its id, the encoded image, what was asked for."""

    task_id: str
    image: bytes
    request: TaskRequest

    def words(self, group_bytes: int) -> tuple[str | int | bytes, ...]:
        """What ACCEPT takes of it, its image apart; `group_bytes` more count as its own."""
        data = msgspec.json.encode((_FUNCTION, None, (), self.request))
        at_end = self.request.end_bytes
        size = len(data) + len(self.image) + group_bytes + at_end + _TASK_OVERHEAD
        return self.task_id, size, at_end, data

    def filling(self) -> Command:
        """Puts the image into the place that ACCEPT made; what it refused has none."""
        return b"SET", image_key(self.task_id), self.image, b"XX", b"KEEPTTL"


class Acceptance(msgspec.Struct, frozen=True):
    """What was accepted: one task, or a batch of them. `fingerprint` tells two requests with one key apart."""

    entries: list[BatchEntry]
    batch_id: str = ""
    fingerprint: str = ""


class _OfBatch(msgspec.Struct):
    batch_id: str = ""


class Submission:
    """Accepts and cancels; raises ServiceUnavailable when Redis is away."""

    def __init__(self, connection: "aioredis.Redis", shared: PipelinedRedis, settings: Settings) -> None:
        self._redis = connection
        self._settings = settings
        self._accept_script = shared.register_script(scripts.ACCEPT)
        self._replication = Replication(settings.redis_replicas)
        self._refused: dict[str, tuple[float, str, int]] = {}
        self._full_backlogs: dict[str, tuple[float, int]] = {}
        self._unsent = redis.Redis()  # never connected: commands for scripts are collected in pipelines of it

    async def accept(
        self,
        tasks: Sequence[NewTask],
        acceptance: Acceptance,
        *,
        client: str = "",
        high: bool = False,
        idempotency_key: str = "",
    ) -> Acceptance:
        """Accept tasks of a client, all or none, in one transaction; returns what was accepted.

        With an `idempotency_key` of a task that is still known nothing is accepted again: returns what was accepted
        then.
        Raises IdempotencyConflict when that was another request, Overloaded when too much is waiting already,
        TooManyOpenTasks when too much of it is the client's; nothing was accepted then. Raises ServiceUnavailable, and
        it may have been accepted: with the same key it is one task.
        """
        await self._check_refused(client, idempotency_key)
        settings = self._settings
        key = names.idempotency_key(idempotency_key)
        group = self._group(tasks, acceptance, idempotency_key, client)
        group_bytes = sum(len(word) if isinstance(word, bytes) else len(str(word)) for word in group)
        words = [word for task in tasks for word in task.words(group_bytes if task is tasks[-1] else 0)]
        of_client = client_key(client), waiting_key(client), *TURNS
        keys = (*LEDGER, key, result_key(tasks[0].task_id), *of_client, HIGH_KEY, *rq_lua.ENQUEUE_KEYS)
        bounds = settings.max_queued_tasks, settings.max_queued_bytes, MEMORY_SHARE
        own = settings.max_queued_tasks_per_client, settings.max_queued_bytes_per_client, settings.image_ttl
        description = f"predict {tasks[0].request.model}"
        records = rq_lua.enqueue_args(description, settings.result_ttl, settings.task_retries)
        before, behind = (*bounds, batch_key(""), *own), (image_key(""), *records, len(tasks), *words, *group)
        with redis_errors(_DOUBT):
            try:
                outcome, *details = await self._run_accept(keys, (*before, int(not high), *behind), tasks)
            except redis.ResponseError:  # a Redis that takes no writes tells what it knows, and which bound is met
                outcome, *details = await self._run_accept(keys, (*before, "look", *behind))
                if outcome == b"room":
                    raise
            if outcome == b"overloaded":
                raise await self._overloaded(*details)
            if outcome == b"client":
                raise await self._too_many(client, *details)
        if outcome == b"full":
            raise _full(*details)
        return _same_request(msgspec.json.decode(details[0], type=Acceptance), acceptance) if details else acceptance

    async def deliveries(self, client: str) -> tuple[int, int]:
        """How many callbacks wait for their receivers; how many of the client wait so, or for their task.

        Raises ServiceUnavailable.
        """
        keys, most = (callbacks_key(client), OPEN_KEY, WEBHOOKS_KEY), self._settings.max_webhooks_per_client
        until, own = self._full_backlogs.get(client, (0.0, 0))
        with redis_errors():
            waiting = int(await self._redis.zcard(WEBHOOKS_KEY))
            if time.monotonic() >= until:
                own = int(await self._redis.eval(scripts.CALLBACKS, len(keys), *keys, most))
        if own >= most and time.monotonic() >= until:
            _remember(self._full_backlogs, client, (time.monotonic() + _REMEMBERED_SECONDS, own))
        return waiting, own

    async def cancel(self, task_id: str) -> TaskView | None:
        """Cancel a task that has not begun and return its end; forget one that has ended and return None.

        Raises TaskRunning, TaskNotFound, ServiceUnavailable.
        """
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hget(job_key(task_id), "data")
                pipe.get(result_key(task_id))
                stored, ended = await pipe.execute()
            request = request_of(stored) if isinstance(stored, bytes) else None
            batch_id = request.batch_id if request else _batch_of(ended)
            view = failure(task_id, Canceled("the task was canceled before it began"), request)
            commands = (b"DEL", job_key(task_id)), *end_commands(view, request, self._settings.result_ttl)
            own = QUEUE_KEY, picture_key(task_id), job_key(task_id), PICTURES_KEY, PICTURES_BYTES_KEY
            keys = (*end_keys(task_id, batch_id), *own, HIGH_KEY, *TURNS)
            args = (*end_args(task_id, self._settings), msgspec.json.encode(view), *scripts.flat(commands))
            outcome = await self._redis.eval(scripts.CANCEL, len(keys), *keys, *args)
        if outcome == b"unknown":
            raise TaskNotFound.of("task", task_id)
        if outcome == b"running":
            raise TaskRunning("the task has begun; it can be deleted once it has ended")
        return view if outcome == b"canceled" else None

    async def _run_accept(self, keys: Sequence[str], args: Sequence[Word], tasks: Sequence[NewTask] = ()) -> Any:
        """The images follow the script in its transaction: to Lua each would be copied, and hashed from end to end."""
        replicas, as_one = self._settings.redis_replicas, bool(tasks)
        if not replicas and sum(len(task.image) for task in tasks) <= _SHARED_BYTES:
            return await self._accept_script(keys, args, *(task.filling() for task in tasks))
        script, guarded = self._replication.guard(scripts.ACCEPT, args)
        async with self._redis.pipeline(transaction=as_one and not replicas) as pipe:
            self._replication.begin(pipe, as_one)
            pipe.eval(script, len(keys), *keys, *guarded)
            for task in tasks:
                pipe.execute_command(*task.filling())
            self._replication.end(pipe, as_one)
            return self._replication.answer(await pipe.execute(), as_one)

    def _group(self, tasks: Sequence[NewTask], acceptance: Acceptance, digest: str, client: str) -> Sequence[Word]:
        """Commands for what is kept of a batch, of an Idempotency-Key, which refers to the batch or to its one task,
        and of callbacks. Most tasks have nothing of it.
        """
        has_callback = bool(tasks[0].request.callback_url)
        if not acceptance.batch_id and not digest and not has_callback:
            return ()
        pipe = self._unsent.pipeline()
        kept_seconds = self._settings.image_ttl + self._settings.result_ttl
        first, group = tasks[0].task_id, group_key(acceptance.batch_id or tasks[0].task_id)
        if acceptance.batch_id:
            pipe.set(batch_key(acceptance.batch_id), msgspec.json.encode(acceptance), ex=kept_seconds)
        if digest:
            known = msgspec.structs.replace(acceptance, entries=[BatchEntry(0, "", first)])
            pipe.set(names.idempotency_key(digest), msgspec.json.encode(known), ex=kept_seconds)
        if acceptance.batch_id or digest:
            pipe.hset(group, mapping={"open": len(tasks), "kept": len(tasks), **({"key": digest} if digest else {})})
            pipe.expire(group, kept_seconds)
        if has_callback:
            pipe.sadd(callbacks_key(client), *(task.task_id for task in tasks))
            pipe.expire(callbacks_key(client), self._settings.image_ttl + _DELIVERED_SECONDS)
        return scripts.words(pipe)

    async def _check_refused(self, client: str, idempotency_key: str) -> None:
        """A client that was refused a moment ago costs Redis next to nothing: counting what it has open takes 10 ms.

        One that asks for a known task is answered.
        """
        until, detail, seconds = self._refused.get(client, (0.0, "", 0))
        if time.monotonic() >= until:
            return
        with redis_errors():
            known = idempotency_key and await self._redis.exists(names.idempotency_key(idempotency_key))
        if not known:
            raise TooManyOpenTasks(detail, seconds)

    async def _too_many(self, client: str, tasks: int, sum_bytes: int) -> TooManyOpenTasks:
        seconds, settings = await self._half_ended_in(tasks), self._settings
        most = f"{settings.max_queued_tasks_per_client} with {settings.max_queued_bytes_per_client}"
        unfinished = f"{tasks} of your tasks with {sum_bytes} bytes are unfinished"
        detail = f"{unfinished}, and you may have {most}; send more in {seconds} s"
        _remember(self._refused, client, (time.monotonic() + _REMEMBERED_SECONDS, detail, seconds))
        return TooManyOpenTasks(detail, seconds)

    async def _half_ended_in(self, tasks: int) -> int:
        instant = clock.now()
        counters = await self._redis.mget(rate_keys(instant))
        return retry_after(tasks, tasks_per_second(counters, instant))

    async def _overloaded(self, tasks: int, sum_bytes: int) -> Overloaded:
        seconds = await self._half_ended_in(tasks)
        return Overloaded(
            f"the service has more to do than it can take on: {tasks} tasks with {sum_bytes} bytes are waiting; "
            f"try again in {seconds} s",
            seconds,
        )


def _remember(kept: dict[str, _T], client: str, refusal: _T) -> None:
    if len(kept) >= _MOST_REFUSED:
        kept.clear()
    kept[client] = refusal


def _full(used: int, reserved: int, most: int) -> Overloaded:
    return Overloaded(
        f"the memory of Redis is taken up: {used} of {most} bytes are used and {reserved} are kept for the results of "
        f"open tasks; try again in {FULL_SECONDS} s",
        FULL_SECONDS,
    )


def _batch_of(ended: bytes | None) -> str:
    return "" if ended is None else msgspec.json.decode(ended, type=_OfBatch).batch_id


def _same_request(known: Acceptance, new: Acceptance) -> Acceptance:
    if known.fingerprint != new.fingerprint:
        raise IdempotencyConflict("this Idempotency-Key was used for another request; choose a new key")
    return known
