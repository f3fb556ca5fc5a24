"""Each request counted, timed and logged in one line."""

import logging
import re
import time
from collections.abc import Sequence
from urllib.parse import quote

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.telemetry import logs, tracing
from gateway.telemetry.metrics import GatewayMetrics

log = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_TASK_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_POLLED = frozenset({"/livez", "/readyz", "/status"})


class Access:
    """ASGI middleware. Labels are bounded: a path that no route has counts as `none`."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths: dict[object, str] = {route.endpoint: route.path for route in routes if isinstance(route, Route)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun, status = time.perf_counter(), 500  # what is answered to an exception, further out

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.in_flight.inc()
        with tracing.request(scope["method"], scope["path"], scope["headers"]) as span:
            try:
                await self._app(scope, receive, send_noting)
            finally:
                self._metrics.in_flight.dec()
                route = self._paths.get(scope.get("endpoint"), "none")
                self._note(scope, route, status, time.perf_counter() - begun)
                if span is not None:
                    span.finish(route, status)

    def _note(self, scope: Scope, route: str, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        waited = "yes" if scope.get("state", {}).get("waits") or route.endswith("/events") else "no"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.duration.labels(route, waited).observe(seconds)
        task = scope.get("path_params", {}).get("task_id", "")
        if _TASK_ID.fullmatch(task):
            logs.task_id.set(task)
        log.log(
            logging.DEBUG if route in _POLLED else logging.INFO,
            "%s %s",
            method,
            route if route != "none" else quote(scope["path"])[:200],
            extra={"status": status, "ms": round(seconds * 1e3, 1)},
        )
