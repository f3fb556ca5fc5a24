"""A deliverer as a process of its own, for tests that kill it: `python -m tests.api.deliver` with four arguments.

They are the URL of Redis, the port of the receiver, the file of its authority and the secret.
"""

import asyncio
import ssl
import sys

import redis.asyncio as aioredis

from gateway.outbound.https import Outbound
from gateway.telemetry import tracing
from gateway.webhooks.deliverer import Deliverer
from gateway.webhooks.queue import WebhookQueue
from gateway.webhooks.signing import Signer
from tests.support.internet import PUBLIC_ADDRESS, Internet

NAME = "receiver.example"
LEASE_SECONDS = 1.0


async def main(redis_url: str, port: str, authority: str, secret: str) -> None:
    names = {name: [[PUBLIC_ADDRESS]] for name in (NAME, PUBLIC_ADDRESS)}
    internet = Internet(names, {PUBLIC_ADDRESS: int(port)})
    tracing.start("yolo-webhooks")
    outbound = Outbound([443], internet, ssl.create_default_context(cafile=authority))
    async with aioredis.Redis.from_url(redis_url) as connection:
        queue = WebhookQueue(connection, LEASE_SECONDS)
        await Deliverer(queue, outbound, Signer(secret), timeout_seconds=30, pauses_seconds=[0.1]).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
