"""The web process: `python -m gateway.web`."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator

import redis
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from gateway.allocator import give_back_large_blocks
from gateway.errors import GatewayError
from gateway.outbound.https import Outbound
from gateway.queue.state import reader
from gateway.redis_connections import connect
from gateway.security.api_keys import load_keys
from gateway.security.exposure import check_exposure
from gateway.security.rate_limit import client_of
from gateway.server.access_log import AccessLog
from gateway.server.envelope import Envelope
from gateway.server.headers import cross_origin
from gateway.server.limits import Limits
from gateway.server.timed import server
from gateway.settings import Settings, SettingsError, load
from gateway.telemetry import exporter, logs, tracing
from gateway.telemetry.metrics import GatewayMetrics, QueueCollector
from gateway.web import responses
from gateway.web.routes import routes
from gateway.web.services import Services, connected


def create_app(
    settings: Settings, outbound: Outbound | None = None, metrics: GatewayMetrics | None = None
) -> Starlette:
    """The ASGI application; its services live as long as its lifespan. `outbound` is the way to other hosts.

    Raises SettingsError.
    """
    keys, stopping, counted = load_keys(settings), asyncio.Event(), metrics or GatewayMetrics()
    limits = Limits(settings, counted, client_of)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Services]]:
        async with connected(settings, counted, keys, stopping, limits, outbound) as services:
            app.state.services = services
            yield {"services": services}

    handlers = {
        GatewayError: responses.gateway_error,
        HTTPException: responses.http_error,
        ClientDisconnect: responses.client_gone,
        Exception: responses.internal_error,
    }
    table = routes(settings.page)
    middleware = [Middleware(Envelope, stopping, AccessLog(counted, table))]
    if settings.origins:
        middleware.append(cross_origin(settings.origins))
    app = Starlette(routes=table, lifespan=lifespan, exception_handlers=handlers, middleware=middleware)
    app.state.limits = limits
    app.router.redirect_slashes = False  # a path that is not there is a 404, not a redirect to one that is
    return app


def serve_metrics(settings: Settings, metrics: GatewayMetrics) -> None:
    """Metrics of this process and of the queue, apart from the public port."""
    if settings.metrics_port:
        connection = connect(settings.redis_url, redis.Redis, socket_timeout=5, socket_connect_timeout=5)
        metrics.registry.register(QueueCollector(reader(connection, settings.worker_ttl)))
        exporter.serve(settings.metrics_host, settings.metrics_port, metrics.registry, "METRICS_PORT")


def inherited(file: int) -> list[socket.socket] | None:
    """The socket that LISTEN_FD names; None without. Raises SettingsError."""
    if file < 0:
        return None
    try:
        return [socket.socket(fileno=file)]
    except OSError as error:
        raise SettingsError(f"LISTEN_FD={file}: it is no socket that was passed on ({error.strerror})") from error


def main() -> int:
    try:
        settings = load()
        check_exposure(settings)
        metrics = GatewayMetrics()
        app = create_app(settings, metrics=metrics)
        tracing.start("yolo-gateway")
    except SettingsError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level, settings.log_format, "gateway")
    give_back_large_blocks(1)
    serve_metrics(settings, metrics)
    try:
        sockets = inherited(settings.listen_fd)
    except SettingsError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    web = server(app, settings)
    web.run(sockets)
    tracing.stop()
    return 0 if web.started else 1
