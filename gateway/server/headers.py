"""The headers that every answer has, whatever answers."""

import asyncio
from collections.abc import Collection
from typing import cast

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A page that needs more sets a policy of its own.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_KEY = "answer_headers"


def answer_headers(scope: Scope) -> dict[str, str]:
    """Headers that the answer to this request will have, error or not."""
    return cast("dict[str, str]", scope.setdefault("state", {}).setdefault(_KEY, {}))


class AnswerHeaders:
    """ASGI middleware that adds both kinds; once `stopping` is set it also has clients leave their connections."""

    def __init__(self, app: ASGIApp, stopping: asyncio.Event) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        wanted = answer_headers(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.update(wanted)
                if self._stopping.is_set():
                    headers["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_with_headers)


def cross_origin(origins: Collection[str]) -> Middleware:
    """Lets the web pages of these origins use the service from a browser (CORS)."""
    return Middleware(
        CORSMiddleware,
        allow_origins=sorted(origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Prefer", "X-API-Key", "X-Request-ID"],
        expose_headers=["Location", "RateLimit", "RateLimit-Policy", "Retry-After", "Server-Timing", "X-Request-ID"],
    )
