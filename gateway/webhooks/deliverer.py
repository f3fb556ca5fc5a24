"""The process that delivers webhooks: `python -m gateway.webhooks`. Workers never wait for a receiver.

Each delivery is a POST of the ended task, signed after Standard Webhooks. It is made at least once: a receiver knows a
second one by its `webhook-id`, which is the task id.
"""

import asyncio
import logging
import random
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import redis.asyncio as aioredis
from redis import RedisError
from standardwebhooks import Webhook

from gateway.errors import UrlNotAllowed
from gateway.outbound.https import Outbound, OutboundError
from gateway.settings import Settings, SettingsError, load
from gateway.telemetry import logs
from gateway.webhooks.queue import Delivery, WebhookQueue

log = logging.getLogger("gateway.webhooks")

_AT_A_TIME = 256  # many, so that slow receivers do not hold up the others
_POLL_SECONDS = 0.5
_RECONNECT_SECONDS = 1.0
_REDIS_SECONDS = 10
_LEASE_MARGIN_SECONDS = 15
_JITTER = 0.2


class NotTaken(Exception):
    """The receiver did not take the delivery; the message says why."""


class Gone(NotTaken):
    """The receiver wants no deliveries any more: status 410."""


class Signer:
    """Signs after Standard Webhooks, with every secret: during a change of secrets receivers may hold either."""

    def __init__(self, secrets: str) -> None:
        self._webhooks = [Webhook(secret) for secret in secrets.split()]

    def headers(self, webhook_id: str, body: bytes, seconds: float) -> dict[str, str]:
        """The three headers of a delivery made at `seconds` since the epoch."""
        sent_at = datetime.fromtimestamp(int(seconds), UTC)
        signatures = [webhook.sign(webhook_id, sent_at, body.decode()) for webhook in self._webhooks]
        return {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(seconds)),
            "webhook-signature": " ".join(signatures),
        }


class Deliverer:
    """Delivers what is due until `stopping` is set."""

    def __init__(
        self,
        queue: WebhookQueue,
        outbound: Outbound,
        signer: Signer,
        *,
        timeout_seconds: float,
        pauses_seconds: Sequence[float],
    ) -> None:
        self._queue = queue
        self._outbound = outbound
        self._signer = signer
        self._timeout_seconds = timeout_seconds
        self._pauses_seconds = pauses_seconds
        self._running: set[asyncio.Task[None]] = set()
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Deliver; once `stopping` is set, let the deliveries under way end."""
        while not self.stopping.is_set():
            pause = _POLL_SECONDS
            try:
                if await self._start_due():
                    continue
            except RedisError as error:
                log.warning("Redis does not answer, trying again: %s", error)
                pause = _RECONNECT_SECONDS
            await self._wait(pause)
        await asyncio.gather(*self._running)

    async def _start_due(self) -> bool:
        """Start what is due, as many as fit; whether there may be more at once."""
        free = _AT_A_TIME - len(self._running)
        if not free:
            return False
        due = await self._queue.claim(free)
        for delivery in due:
            task = asyncio.create_task(self._deliver(delivery))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return len(due) == free

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            pass

    async def _deliver(self, delivery: Delivery) -> None:
        task_id, attempt = delivery.task_id, delivery.attempt
        try:
            pause = await self._attempt(delivery)
            if pause is None:
                await self._queue.end(task_id)
            else:
                await self._queue.put_off(task_id, pause)
        except RedisError as error:
            # Its lease runs out: it is made once more.
            log.warning("webhook %s, try %d: its end is not kept, Redis does not answer: %s", task_id, attempt, error)

    async def _attempt(self, delivery: Delivery) -> float | None:
        """Make one try; the seconds until the next one, None when there is to be none."""
        task_id, attempt = delivery.task_id, delivery.attempt
        try:
            await self._send(delivery)
        except Gone as error:
            log.info("webhook %s, try %d: %s; not sent again", task_id, attempt, error)
            return None
        except NotTaken as error:
            reason: object = error
        except Exception as error:  # a defect: this delivery is put off, the others go on
            log.exception("webhook %s, try %d: a defect of this service", task_id, attempt)
            reason = repr(error)
        else:
            log.info("webhook %s, try %d: delivered", task_id, attempt)
            return None
        if attempt > len(self._pauses_seconds):
            log.warning("webhook %s given up after %d tries: %s", task_id, attempt, reason)
            return None
        pause = self._pauses_seconds[attempt - 1] * random.uniform(1 - _JITTER, 1 + _JITTER)
        log.info("webhook %s, try %d: %s; again in %.1f s", task_id, attempt, reason, pause)
        return pause

    async def _send(self, delivery: Delivery) -> None:
        """Raises NotTaken, Gone."""
        signed = self._signer.headers(delivery.task_id, delivery.body, time.time())
        headers = {"Content-Type": "application/json", **signed}
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._outbound.request("POST", delivery.url, headers, delivery.body) as response,
            ):
                status = response.status
        except (OutboundError, UrlNotAllowed) as error:
            raise NotTaken(str(error)) from error
        except TimeoutError as error:
            raise NotTaken(f"no answer within {self._timeout_seconds:g} s") from error
        if status == 410:
            raise Gone("the receiver answers that it is gone (410)")
        if not 200 <= status < 300:
            raise NotTaken(f"the receiver answers with status {status}")


async def deliver(settings: Settings) -> None:
    """Deliver until SIGTERM or SIGINT; without a secret there is nothing to deliver, and nothing is done."""
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    if settings.webhook_secret is None:
        log.info("webhooks are switched off (WEBHOOK_SECRET)")
        await stopping.wait()
        return
    async with aioredis.Redis.from_url(
        settings.redis_url, socket_timeout=_REDIS_SECONDS, socket_connect_timeout=_REDIS_SECONDS
    ) as connection:
        deliverer = Deliverer(
            WebhookQueue(connection, settings.webhook_timeout + _LEASE_MARGIN_SECONDS),
            Outbound(settings.url_ports),
            Signer(settings.webhook_secret),
            timeout_seconds=settings.webhook_timeout,
            pauses_seconds=settings.webhook_pauses,
        )
        deliverer.stopping = stopping
        await deliverer.run()


def main() -> int:
    try:
        settings = load()
    except SettingsError as error:
        print(f"webhooks: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level, settings.log_format, "webhooks")
    asyncio.run(deliver(settings))
    return 0
