"""What the handlers of the web process work with, made once for the life of the application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from redis.asyncio.retry import Retry
from starlette.requests import Request

from gateway.outbound.https import Outbound
from gateway.outbound.images import Fetcher
from gateway.queue.results import Results
from gateway.queue.submission import Submission
from gateway.redis_connections import ONCE_MORE, connect_async
from gateway.redis_pipelined import PipelinedRedis
from gateway.security.api_keys import Keyring
from gateway.security.rate_limit import Limiter
from gateway.server.limits import Limits
from gateway.settings import Settings
from gateway.telemetry.metrics import GatewayMetrics
from gateway.triton.catalogue import Models
from gateway.triton.several import Tritons
from gateway.triton.several import connect as connect_triton
from gateway.web.admission import Admission
from gateway.web.places import Places
from gateway.web.readiness import Readiness, watch

# What is asked seldom, or in transactions, takes one of a few connections; all else shares one.
_POOL: dict[str, Any] = {"max_connections": 8, "timeout": 10, "socket_timeout": 5, "socket_connect_timeout": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """`stopping` is set once this process is to end; `hosts` and `origins` are those of the settings."""

    settings: Settings
    hosts: frozenset[str]
    origins: frozenset[str]
    metrics: GatewayMetrics
    keys: Keyring
    stopping: asyncio.Event
    limits: Limits
    outbound: Outbound
    fetcher: Fetcher
    admission: Admission
    waiting: Places
    streams: Places
    limiter: Limiter
    submission: Submission
    results: Results
    models: Models
    readiness: Readiness


def services_of(request: Request) -> Services:
    services: Services = request.scope["state"]["services"]
    return services


@contextlib.asynccontextmanager
async def connected(
    settings: Settings,
    metrics: GatewayMetrics,
    keys: Keyring,
    stopping: asyncio.Event,
    limits: Limits,
    outbound: Outbound | None = None,
) -> AsyncIterator[Services]:
    """The services, with what runs in the background for them; `outbound` is the way to other hosts."""
    connection = connect_async(settings.redis_url, retry=Retry(*ONCE_MORE), **_POOL)  # a restart of Redis cuts them
    shared = PipelinedRedis(connection)
    triton = connect_triton(settings.triton_url)
    outbound = outbound or Outbound(settings.url_ports)
    services = Services(
        settings=settings,
        hosts=settings.hosts,
        origins=settings.origins,
        metrics=metrics,
        keys=keys,
        stopping=stopping,
        limits=limits,
        outbound=outbound,
        fetcher=Fetcher(settings, outbound),
        admission=Admission(settings.max_uploading_bytes, settings.max_uploading_bytes_per_client),
        waiting=Places("waiting requests", settings.max_waiting, settings.max_waiting_per_client),
        streams=Places("event streams", settings.max_streams, settings.max_streams_per_client),
        limiter=Limiter(shared),
        submission=Submission(connection, shared, settings),
        results=Results(connection, shared, settings.task_retries),
        models=Models(triton, settings.triton_key),
        readiness=Readiness(connection, triton, settings),
    )
    metrics.waiting.set_function(lambda: len(services.waiting))
    metrics.streams.set_function(lambda: len(services.streams))
    metrics.uploading.set_function(lambda: services.admission.held_bytes)
    background = [
        asyncio.create_task(services.results.listen()),
        asyncio.create_task(watch(services.readiness, metrics)),
    ]
    if isinstance(triton, Tritons):
        triton.changed = metrics.set_tritons
        background.append(asyncio.create_task(triton.keep_resolved()))
    try:
        yield services
    finally:
        for task in background:
            await end(task)
        await shared.aclose()
        await connection.aclose()
        await triton.close()


async def end(task: "asyncio.Task[None]") -> None:
    """Cancel until it is heard: redis-py loses a cancellation that comes while it connects."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.2)
    if not task.cancelled():
        task.result()
