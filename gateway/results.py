"""The gateway's reading side: tasks as clients see them, and one Redis subscription for all who wait."""

import asyncio
import logging
from collections import defaultdict

import msgspec
import redis.asyncio as aioredis
from redis import RedisError

from gateway.detections import TaskView
from gateway.errors import TaskNotFound, WorkerLost
from gateway.queue import FINISHED_CHANNEL, failure, job_key, redis_errors, result_key

log = logging.getLogger(__name__)

_LOST = {b"failed", b"stopped", b"canceled"}
_RECONNECT_SECONDS = 0.5


class Results:
    """Reads tasks without polling: `listen` must run as a background task for `wait` to return early."""

    def __init__(self, connection: "aioredis.Redis") -> None:
        self._redis = connection
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    async def read(self, task_id: str) -> bytes:
        """The task as JSON of a TaskView. Raises TaskNotFound, ServiceUnavailable."""
        _, view = await self._read(task_id)
        return view

    async def wait(self, task_id: str, seconds: float) -> bytes:
        """The task as soon as it has ended, at the latest after `seconds`. Raises as `read` does."""
        woken = asyncio.Event()
        self._waiting[task_id].add(woken)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    ended, view = await self._read(task_id)
                    if ended:
                        return view
                    await woken.wait()
                    woken.clear()
        except TimeoutError:
            return await self.read(task_id)
        finally:
            self._waiting[task_id].discard(woken)
            if not self._waiting[task_id]:
                del self._waiting[task_id]

    async def listen(self) -> None:
        """Wake those who wait when their task ends; runs until cancelled, through Redis restarts."""
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(FINISHED_CHANNEL)
                    self._wake(list(self._waiting))  # what ended while nobody listened
                    async for message in subscription.listen():
                        self._wake([message["data"].decode()])
            except RedisError as error:
                log.warning("Redis subscription lost, trying again: %s", error)
            await asyncio.sleep(_RECONNECT_SECONDS)

    def _wake(self, task_ids: list[str]) -> None:
        for task_id in task_ids:
            for event in self._waiting.get(task_id, ()):
                event.set()

    async def _read(self, task_id: str) -> tuple[bool, bytes]:
        # One transaction: at any instant a task has its result or its job.
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.get(result_key(task_id))
                pipe.hget(job_key(task_id), "status")
                stored, status = await pipe.execute()
        if stored is not None:
            return True, stored
        if status is None:
            raise TaskNotFound(f"no task {task_id}; it was never accepted, or its result has expired")
        if status in _LOST:
            lost = WorkerLost("the worker died under this task, again after each new try; send the image again")
            return True, msgspec.json.encode(failure(task_id, lost))
        return False, msgspec.json.encode(TaskView(task_id, "PENDING"))
