"""The web process: `python -m gateway.web`."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from tritonclient.grpc.aio import InferenceServerClient

from gateway.allocator import give_back_large_blocks
from gateway.errors import GatewayError
from gateway.outbound.https import Outbound
from gateway.outbound.images import Fetcher
from gateway.queue.results import Results
from gateway.queue.state import reader
from gateway.queue.submission import Submission
from gateway.security.api_keys import check_exposure, load_keys
from gateway.security.rate_limit import Limiter
from gateway.server.access_log import Access
from gateway.server.headers import AnswerHeaders, cross_origin
from gateway.server.protocol import server
from gateway.server.request_id import RequestId
from gateway.settings import Settings, SettingsError, load
from gateway.telemetry import exporter, logs
from gateway.telemetry.metrics import GatewayMetrics, QueueCollector
from gateway.triton.catalogue import Models
from gateway.triton.spec import CHANNEL_ARGUMENTS
from gateway.web import responses
from gateway.web.admission import Admission
from gateway.web.readiness import Readiness, watch
from gateway.web.routes import routes

# Requests share a few connections, however many wait.
_POOL: dict[str, Any] = {"max_connections": 8, "timeout": 10, "socket_timeout": 5, "socket_connect_timeout": 5}


def create_app(settings: Settings, outbound: Outbound | None = None) -> Starlette:
    """The ASGI application; connections live as long as its lifespan. `outbound` is the way to other hosts.

    Raises SettingsError.
    """
    metrics, keys, stopping = GatewayMetrics(), load_keys(settings), asyncio.Event()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.settings = settings
        app.state.outbound = outbound or Outbound(settings.url_ports)
        app.state.fetcher = Fetcher(settings, app.state.outbound)
        app.state.admission = Admission(settings.max_uploading_bytes)
        async with connected(app, settings):
            yield

    handlers = {
        GatewayError: responses.gateway_error,
        HTTPException: responses.http_error,
        ClientDisconnect: responses.client_gone,
        Exception: responses.internal_error,
    }
    table = routes()
    middleware = [Middleware(RequestId), Middleware(AnswerHeaders, stopping), Middleware(Access, metrics, table)]
    if settings.origins:
        middleware.append(cross_origin(settings.origins))
    app = Starlette(routes=table, lifespan=lifespan, exception_handlers=handlers, middleware=middleware)
    app.router.redirect_slashes = False  # a path that is not there is a 404, not a redirect to one that is
    app.state.metrics = metrics
    app.state.keys = keys
    app.state.stopping = stopping
    return app


@contextlib.asynccontextmanager
async def connected(app: Starlette, settings: Settings) -> AsyncIterator[None]:
    """What needs Redis or Triton, and what runs in the background over them."""
    once_more = Retry(NoBackoff(), 1, (redis.ConnectionError,))  # a restart of Redis cuts connections
    pool = aioredis.BlockingConnectionPool.from_url(settings.redis_url, retry=once_more, **_POOL)
    connection = aioredis.Redis.from_pool(pool)
    subscribing = aioredis.Redis.from_url(settings.redis_url, socket_connect_timeout=5, health_check_interval=15)
    triton = InferenceServerClient(settings.triton_url, channel_args=CHANNEL_ARGUMENTS)
    app.state.limiter = Limiter(connection)
    app.state.submission = Submission(connection, settings)
    app.state.results = Results(connection, settings.task_retries)
    app.state.models = Models(triton, settings.triton_key)
    app.state.readiness = Readiness(connection, triton, settings)
    background = [
        asyncio.create_task(app.state.results.listen(subscribing)),
        asyncio.create_task(watch(app.state.readiness, app.state.metrics)),
    ]
    try:
        yield
    finally:
        for task in background:
            await end(task)
        await subscribing.aclose()
        await connection.aclose()
        await triton.close()


async def end(task: "asyncio.Task[None]") -> None:
    """Cancel until it is heard: redis-py loses a cancellation that comes while it connects."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.2)
    if not task.cancelled():
        task.result()


def serve_metrics(settings: Settings, metrics: GatewayMetrics) -> None:
    """Metrics of this process and of the queue, apart from the public port."""
    if settings.metrics_port:
        connection = redis.Redis.from_url(settings.redis_url, socket_timeout=5, socket_connect_timeout=5)
        metrics.registry.register(QueueCollector(reader(connection, settings.worker_ttl)))
        exporter.serve(settings.metrics_host, settings.metrics_port, metrics.registry, "METRICS_PORT")


def main() -> int:
    try:
        settings = load()
        check_exposure(settings)
        app = create_app(settings)
    except SettingsError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level, settings.log_format, "gateway")
    give_back_large_blocks(1)
    serve_metrics(settings, app.state.metrics)
    web = server(app, settings)
    web.run()
    return 0 if web.started else 1
