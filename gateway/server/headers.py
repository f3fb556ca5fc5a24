"""The headers that every answer has, whatever answers."""

from collections.abc import Collection, Iterable
from typing import cast

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

Raw = tuple[bytes, bytes]

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


def raw(name: str, value: str) -> Raw:
    """A header as ASGI has it."""
    return name.lower().encode("latin-1"), value.encode("latin-1")


_DEFAULTS = tuple(raw(name, value) for name, value in SECURITY_HEADERS.items())


def completed(headers: Iterable[Raw], wanted: Iterable[Raw]) -> list[Raw]:
    """The headers, with those `wanted` in place of others of the same names, and with the security headers."""
    replaced = {name for name, _ in wanted}
    found = [header for header in headers if header[0] not in replaced]
    names = {name for name, _ in found}
    return [*found, *wanted, *(header for header in _DEFAULTS if header[0] not in names)]


def cross_origin(origins: Collection[str]) -> Middleware:
    """Lets the web pages of these origins use the service from a browser (CORS)."""
    return Middleware(
        CORSMiddleware,
        allow_origins=sorted(origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Prefer", "X-API-Key", "X-Request-ID"],
        expose_headers=["Location", "RateLimit", "RateLimit-Policy", "Retry-After", "Server-Timing", "X-Request-ID"],
    )
