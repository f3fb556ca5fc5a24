"""Around each request: its id, the headers that every answer has, and its line in the log."""

import asyncio
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.server.access_log import AccessLog
from gateway.server.headers import answer_headers, completed, raw
from gateway.server.request_id import HEADER, request_id, request_id_of
from gateway.telemetry import tracing

_CLOSE = raw("Connection", "close")


class Envelope:
    """ASGI middleware. Once `stopping` is set it has clients leave their connections.

    One layer, not one for each of these: each layer is two more calls for every message.
    """

    def __init__(self, app: ASGIApp, stopping: asyncio.Event, log: AccessLog) -> None:
        self._app, self._stopping, self._log = app, stopping, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun, status = time.perf_counter(), 500  # what is answered to an exception, further out
        identity = request_id_of(scope["headers"])
        request_id.set(identity)
        own = answer_headers(scope)

        async def send_whole(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                wanted = [raw(HEADER, identity), *(raw(name, value) for name, value in own.items())]
                if self._stopping.is_set():
                    wanted.append(_CLOSE)
                message["headers"] = completed(message["headers"], wanted)
            await send(message)

        self._log.in_flight += 1
        with tracing.request(scope["method"], scope["path"], scope["headers"]) as span:
            try:
                await self._app(scope, receive, send_whole)
            finally:
                self._log.in_flight -= 1
                route = self._log.route(scope)
                self._log.note(scope, route, status, time.perf_counter() - begun)
                if span is not None:
                    span.finish(route, status)
