"""Both ends of a webhook: a deliverer at work, and what a receiver answers and reads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio as aioredis

from gateway.outbound import Outbound
from gateway.webhooks import WebhookQueue
from gateway.webhooks_worker import Deliverer, Signer
from tests.internet import Answer, reply

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


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
