"""The gateway's reading side: tasks as clients see them, and one Redis subscription for all who wait."""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
import redis.asyncio as aioredis
from redis import RedisError

from gateway import clock
from gateway.errors import NoPicture, TaskNotFound, WorkerLost
from gateway.queue import client_turns
from gateway.queue.common import LOST, failure, redis_errors
from gateway.queue.submission import Acceptance
from gateway.queue.throughput import rate_keys, tasks_per_second
from gateway.queue.waiting import Waiting, Watch
from gateway.redis_names import (
    EVENTS_CHANNEL,
    HIGH_KEY,
    QUEUE_KEY,
    TURNS,
    batch_key,
    job_key,
    picture_key,
    result_key,
)
from gateway.redis_pipelined import PipelinedRedis
from gateway.task import State, Status, TaskView

log = logging.getLogger(__name__)

_RECONNECT_SECONDS = 0.5
_CHECK_SECONDS = 5.0  # a host that has vanished is noticed by its silence
_PLACE_SECONDS = 2.0


class _StatusOnly(msgspec.Struct):
    status: Status


class _Standing(msgspec.Struct):
    """What a stream of events tells the changes of."""

    state: State
    position: int | None = None


class Results:
    """Reads tasks without polling: `listen` must run as a background task for the waits to return early."""

    def __init__(self, connection: "aioredis.Redis", shared: PipelinedRedis, task_retries: int) -> None:
        self._redis, self._shared = connection, shared
        self._task_retries = task_retries
        self._waiting: Waiting = defaultdict(set)
        self._released = False
        self._lost = ""  # why there is no subscription, as it was logged

    def release(self) -> None:
        """Let all who wait have their tasks as they stand, and nobody wait from now on."""
        self._released = True
        for task_id in list(self._waiting):
            self._wake(task_id, None)

    def watch(self) -> Watch:
        """A watch on tasks that are yet to be accepted; to be entered."""
        return Watch(self._waiting)

    async def read(self, task_id: str) -> bytes:
        """The task as JSON of a TaskView. Raises TaskNotFound, ServiceUnavailable."""
        ended, view = await self._read(task_id)
        return view if ended else await self.with_outlook(view)

    async def wait(self, task_id: str, seconds: float, watch: "Watch | None" = None) -> tuple[bool, bytes]:
        """Whether the task has ended, and the task, at the latest after `seconds`. Raises as `read` does.

        A `watch` that was on the task before it was accepted saves looking first.
        """
        clock = asyncio.get_running_loop()
        give_up_at = clock.time() + seconds
        with self.watch() as own:
            look = watch is None or task_id not in watch
            if watch is None or look:
                watch = own.on(task_id)
            while True:
                if look or self._released:
                    # Never cancelled by the clock: redis-py loses a cancellation that comes while it connects.
                    ended, view = await self._read(task_id)
                    if ended or self._released or clock.time() >= give_up_at:
                        return ended, view
                if (end := await watch.end(give_up_at)) is not None:
                    return True, end
                look = True

    async def wait_all(self, task_ids: Sequence[str], seconds: float) -> None:
        """Return when all tasks have ended, at the latest after `seconds`."""
        await asyncio.gather(*(self.wait(task_id, seconds) for task_id in task_ids))

    async def follow(self, task_id: str) -> AsyncGenerator[bytes]:
        """The task now, and at each change of its state or of its place in the queue, until it has ended.

        Raises as `read` does.
        """
        with self.watch() as watch:
            watch.on(task_id)
            last = None
            while True:
                ended, view = await self._read(task_id)
                shown = view if ended else await self.with_outlook(view)
                if (now := msgspec.json.decode(shown, type=_Standing)) != last:
                    last = now
                    yield shown
                if ended or self._released:
                    return
                with contextlib.suppress(TimeoutError):  # no change of one's own comes with a place
                    async with asyncio.timeout(None if now.position is None else _PLACE_SECONDS):
                        await watch.change()

    async def batch(self, batch_id: str) -> Acceptance:
        """What was accepted as a batch. Raises TaskNotFound, ServiceUnavailable."""
        with redis_errors():
            stored = await self._redis.get(batch_key(batch_id))
        if stored is None:
            raise TaskNotFound.of("batch", batch_id)
        return msgspec.json.decode(stored, type=Acceptance)

    async def ends(self, task_ids: Sequence[str]) -> dict[str, Status]:
        """The status of each task; one that is no longer known counts as failed. Raises ServiceUnavailable."""
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:  # as in `_read`
                for task_id in task_ids:
                    pipe.hget(job_key(task_id), "status")
                    pipe.get(result_key(task_id))
                found = await pipe.execute()
        statuses: dict[str, Status] = {}
        for task_id, status, stored in zip(task_ids, found[::2], found[1::2], strict=True):
            if stored is not None:
                statuses[task_id] = msgspec.json.decode(stored, type=_StatusOnly).status
            else:
                statuses[task_id] = "FAILURE" if status is None or status in LOST else "PENDING"
        return statuses

    async def picture(self, task_id: str, media_type: str) -> bytes:
        """The annotated picture. Raises NoPicture, TaskNotFound, ServiceUnavailable."""
        with redis_errors():
            picture = await self._redis.hget(picture_key(task_id), media_type)
        if not isinstance(picture, bytes):
            await self._read(task_id)
            raise NoPicture(
                "the task has no picture: ask for it with annotate=true, read it soon after the task has ended"
            )
        return picture

    async def listen(self) -> None:
        """Wake those who wait as their tasks change; runs until cancelled, through Redis restarts."""
        while True:
            try:
                await self._shared.subscribe(self._heard, EVENTS_CHANNEL, _CHECK_SECONDS)
            except RedisError as error:
                if str(error) != self._lost:  # each reason once, not at every try
                    log.warning("Redis subscription lost, trying again: %s", error)
                self._lost = str(error)
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _heard(self, message: list[Any]) -> None:
        if message[0] == b"message":
            task_id, _, change = message[2].partition(b":")
            self._wake(task_id.decode(), change.partition(b":")[2])
        else:  # subscribed
            self._lost = ""
            for task_id in list(self._waiting):
                self._wake(task_id, None)  # it may have ended while nobody listened

    def _wake(self, task_id: str, change: bytes | None) -> None:
        for watch in self._waiting.get(task_id, ()):
            watch.put(change)

    async def _read(self, task_id: str) -> tuple[bool, bytes]:
        # At any instant a task has its job or its result: asked in this order it is found though it ends in between. No
        # transaction, since a Redis that is full refuses whatever is queued in one.
        with redis_errors():
            (status, retries_left, created_at, started_at), stored = await self._shared.run_all(
                ("HMGET", job_key(task_id), "status", "retries_left", "created_at", "started_at"),
                ("GET", result_key(task_id)),
            )
        if stored is not None:
            return True, stored
        if status is None:
            raise TaskNotFound.of("task", task_id)
        if status in LOST:
            lost = WorkerLost("the worker died under this task, again after each new try; send the image again")
            return True, msgspec.json.encode(failure(task_id, lost))
        retried = retries_left is not None and int(retries_left) < self._task_retries
        state: State = "started" if status == b"started" else "retrying" if retried else "queued"
        view = TaskView(task_id=task_id, status="PENDING", state=state, created_at=_milliseconds(created_at))
        if state == "started" and started_at:
            view.started_at = _milliseconds(started_at)
        return False, msgspec.json.encode(view)

    async def with_outlook(self, pending: bytes) -> bytes:
        """Add the place in the queue, and from the rate of the last minute when the task will have ended."""
        view = msgspec.json.decode(pending, type=TaskView)
        if view.state == "started":
            return pending
        instant = clock.now()
        with redis_errors():
            position, buckets = await self._shared.run_all(
                ("EVAL", client_turns.POSITION, 4, QUEUE_KEY, HIGH_KEY, *TURNS, view.task_id),
                ("MGET", *rate_keys(instant)),
            )
        if position is None:
            return pending
        view.position = position
        per_second = tasks_per_second(buckets, instant)
        if per_second:
            view.ready_in_seconds = round((position + 1) / per_second, 1)
        return msgspec.json.encode(view)


def _milliseconds(redis_time: bytes) -> str:
    """RQ's time, to the millisecond as ours."""
    return redis_time.decode()[:23] + "Z"
