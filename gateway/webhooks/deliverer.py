"""The process that delivers webhooks: `python -m gateway.webhooks`. Workers never wait for a receiver.

Each delivery is a POST of the ended task, signed after Standard Webhooks. It is made at least once: a receiver knows a
second one by its `webhook-id`, which is the task id.
"""

import asyncio
import contextlib
import logging
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from redis import RedisError

from gateway import clock
from gateway.errors import UrlNotAllowed
from gateway.outbound.https import Outbound, OutboundError
from gateway.redis_connections import connect_async
from gateway.settings import Settings, SettingsError, check_callbacks, load
from gateway.telemetry import logs, tracing
from gateway.webhooks.queue import ASIDE_SECONDS, Delivery, WebhookQueue
from gateway.webhooks.signing import Signer

log = logging.getLogger("gateway.webhooks")

ALIVE = Path(tempfile.gettempdir()) / "yolo-webhooks-alive"  # `docker/healthcheck.sh` looks at its age
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
        most_of_host: int = 16,
        alive: Path | None = None,
    ) -> None:
        """`alive` is a file that is touched while all is well."""
        self._queue = queue
        self._outbound = outbound
        self._signer = signer
        self._timeout_seconds = timeout_seconds
        self._pauses_seconds = pauses_seconds
        self._most_of_host = most_of_host
        self._alive = alive
        self._running: set[asyncio.Task[None]] = set()
        self._under_way = Counter[str]()  # by host
        self._ended = asyncio.Event()
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Deliver; once `stopping` is set, let the deliveries under way end."""
        said = ""
        while not self.stopping.is_set():
            pause = _POLL_SECONDS
            try:
                again, said = await self._start_due(), ""
                self._note_alive()
                if again:
                    continue
            except RedisError as error:
                if said != (said := str(error)):  # not once a second
                    log.warning("Redis does not answer, trying again: %s", error)
                pause = _RECONNECT_SECONDS
            await self._wait(pause)
        await asyncio.gather(*self._running)

    async def _start_due(self) -> bool:
        """Start what is due, as many as fit; whether there may be more at once."""
        free = _AT_A_TIME - len(self._running)
        if not free:
            return False
        due = await self._queue.claim(free, self._most_of_host, self._under_way)
        for delivery in due:
            task = asyncio.create_task(self._deliver(delivery))
            self._running.add(task)
            self._under_way[delivery.host] += 1
            task.add_done_callback(partial(self._note_end, delivery.host))
        return len(due) == free

    def _note_alive(self) -> None:
        if self._alive is not None:
            with contextlib.suppress(OSError):
                self._alive.touch()

    def _note_end(self, host: str, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._under_way[host] == self._most_of_host:  # more of it may have waited
            self._ended.set()
        self._under_way[host] -= 1
        if not self._under_way[host]:
            del self._under_way[host]

    async def _wait(self, seconds: float) -> None:
        """Until that long has passed, or there may be more to do, or to stop."""
        changes = [asyncio.ensure_future(event.wait()) for event in (self.stopping, self._ended)]
        await asyncio.wait(changes, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for change in changes:
            change.cancel()
        if self._ended.is_set():
            self._ended.clear()
            await asyncio.sleep(ASIDE_SECONDS)  # then what was moved aside is due

    async def _deliver(self, delivery: Delivery) -> None:
        task_id, attempt = delivery.task_id, delivery.attempt
        try:
            with tracing.delivery(task_id, delivery.host, attempt, delivery.trace):
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
            tracing.failed("gone")
            log.info("webhook %s, try %d: %s; not sent again", task_id, attempt, error)
            return None
        except NotTaken as error:
            tracing.failed("not_taken")
            reason: object = error
        except Exception as error:  # a defect: this delivery is put off, the others go on
            tracing.failed(type(error).__name__)
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
        signed = self._signer.headers(delivery.task_id, delivery.body, clock.now(), delivery.owner)
        headers = {"Content-Type": "application/json", **signed, **(tracing.carrier() or {})}
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._outbound.request(
                    "POST", delivery.url, headers, delivery.body, delivery.owner or delivery.host
                ) as response,
            ):
                status = response.status
                tracing.note(http__response__status_code=status)
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
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                ALIVE.touch()
                await asyncio.wait_for(stopping.wait(), _REDIS_SECONDS)
        return
    async with connect_async(
        settings.redis_url, socket_timeout=_REDIS_SECONDS, socket_connect_timeout=_REDIS_SECONDS
    ) as connection:
        deliverer = Deliverer(
            WebhookQueue(connection, settings.webhook_timeout + _LEASE_MARGIN_SECONDS),
            Outbound(settings.url_ports),
            Signer(settings.webhook_secret),
            timeout_seconds=settings.webhook_timeout,
            pauses_seconds=settings.webhook_pauses,
            most_of_host=settings.max_webhooks_per_host,
            alive=ALIVE,
        )
        deliverer.stopping = stopping
        await deliverer.run()


def main() -> int:
    try:
        settings = load()
        check_callbacks(settings)
        tracing.start("yolo-webhooks")
    except SettingsError as error:
        print(f"webhooks: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level, settings.log_format, "webhooks")
    try:
        asyncio.run(deliver(settings))
    finally:
        tracing.stop()
    return 0
