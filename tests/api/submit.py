"""Tasks accepted as the gateway accepts them, without a request."""

import asyncio
import time
import uuid
from typing import Any

import redis.asyncio as aioredis

from gateway.queue.records import BatchEntry, TaskRequest
from gateway.queue.submission import Acceptance, NewTask, Submission
from gateway.queue.task_queue import TaskQueue
from gateway.redis_pipelined import PipelinedRedis
from gateway.settings import Settings


def submit(
    settings: Settings, image: bytes, task_id: str = "", *, high: bool = False, client: str = "", **wanted: Any
) -> str:
    """The id of a new task, with what is `wanted` of it. Raises as `Submission.accept` does."""
    task_id = task_id or uuid.uuid4().hex

    async def accepted() -> None:
        async with aioredis.Redis.from_url(settings.redis_url) as connection:
            task = NewTask(task_id, image, TaskRequest(model="fake", accepted_at=time.time(), **wanted))
            acceptance = Acceptance([BatchEntry(0, "", task_id)])
            shared = PipelinedRedis(connection)
            try:
                await Submission(connection, shared, settings).accept([task], acceptance, high=high, client=client)
            finally:
                await shared.aclose()

    asyncio.run(accepted())
    return task_id


def order(queue: TaskQueue, names: dict[str, str], most: int = 1_000) -> str:
    """The names of the tasks, given by id, as they are claimed."""
    claimed: list[str] = []
    while len(claimed) < most and (claim := queue.claim(0, "worker")):
        claimed.append(names[claim.task_id])
    return " ".join(claimed)
