"""Both ends of a webhook: a deliverer at work, and what a receiver answers and reads."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import redis
import redis.asyncio as aioredis

from gateway.outbound.https import Outbound
from gateway.webhooks.deliverer import Deliverer
from gateway.webhooks.queue import WebhookQueue, schedule
from gateway.webhooks.signing import Signer
from tests.api.deliver import NAME
from tests.support.internet import Answer, reply

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URL = f"https://{NAME}/ended?token=1"
BODY = b'{"task_id":"t1","status":"SUCCESS","result":{"detections":[{"label":"caf\xc3\xa9"}]}}'

Empty = Callable[[], Coroutine[Any, Any, None]]


def headers_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def body_of(request: bytes) -> bytes:
    return request.partition(b"\r\n\r\n")[2]


def answers(*statuses: int) -> Answer:
    """Answers with these statuses, one after the other; the last one stays."""
    left = list(statuses)

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        await reply(left.pop(0) if len(left) > 1 else left[0])(request, writer)

    return answer


@asynccontextmanager
async def delivering(
    redis_url: str,
    outbound: Outbound,
    *,
    secrets: str = SECRET,
    timeout: float = 5,
    pauses: tuple[float, ...] = (0.05, 0.05),
) -> AsyncIterator[None]:
    """A deliverer at work."""
    async with aioredis.Redis.from_url(redis_url) as connection:
        queue = WebhookQueue(connection, lease_seconds=timeout + 5)
        deliverer = Deliverer(queue, outbound, Signer(secrets), timeout_seconds=timeout, pauses_seconds=pauses)
        running = asyncio.create_task(deliverer.run())
        try:
            yield
        finally:
            deliverer.stopping.set()
            await running


def put(connection: "redis.Redis", *task_ids: str, url: str = URL) -> None:
    with connection.pipeline() as pipe:
        for task_id in task_ids:
            put_into(pipe, task_id, url)
        pipe.execute()


def put_into(pipe: "redis.client.Pipeline", task_id: str, url: str = URL, owner: str = "") -> None:
    for command in schedule(task_id, url, BODY, owner):
        pipe.execute_command(*command)  # type: ignore[no-untyped-call]


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "it did not come to pass in time"
        await asyncio.sleep(0.02)
