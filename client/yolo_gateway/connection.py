"""HTTP by httpx, for both clients: settings, time-outs, and what httpx raises as what our flows know."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from yolo_gateway.deadline import Deadline
from yolo_gateway.errors import InvalidInput
from yolo_gateway.messages import Broken, Request

SERVER, KEY = "YOLO_GATEWAY_SERVER", "YOLO_GATEWAY_KEY"
DEFAULT_SERVER = "http://127.0.0.1:5000"
CONNECT_SECONDS, IDLE_SECONDS = 10.0, 30.0
_KEPT_SECONDS = 3.0  # the service closes connections that were idle for five
MOST_BYTES = 100_000_000  # of an answer, or of an image that is fetched


class Address:
    """The server and the key of a client; the key is in no text that it gives."""

    def __init__(self, server: str | None, key: str | None) -> None:
        self.server = (server or os.environ.get(SERVER) or DEFAULT_SERVER).rstrip("/")
        self._key = os.environ.get(KEY, "") if key is None else key
        try:
            url = httpx.URL(self.server)
        except httpx.InvalidURL as error:
            raise InvalidInput(f"server {self.server!r}: {error}; give such as {DEFAULT_SERVER}") from error
        if url.userinfo or url.query or url.fragment:
            raise InvalidInput(f"the server's address has more than host and path; give the key as key, or in {KEY}")
        if url.scheme not in ("http", "https") or not url.host or any(each.isspace() for each in self.server):
            raise InvalidInput(f"server {self.server!r} is no address; give such as {DEFAULT_SERVER}")
        if url.port is not None and not 0 < url.port < 65536:
            raise InvalidInput(f"server {self.server!r}: {url.port} is no port; give one from 1 to 65535")
        if not self._key.isascii() or any(each.isspace() for each in self._key):
            raise InvalidInput("the key has characters that no key has; give it as `keys new` printed it")

    def options(self, connections: int) -> dict[str, Any]:
        """For httpx' clients. Redirects are not followed: the key is for this server alone."""
        headers = {"User-Agent": "yolo-gateway-python", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        limits = httpx.Limits(
            max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_KEPT_SECONDS
        )
        return {"base_url": self.server, "headers": headers, "limits": limits, "follow_redirects": False}


@contextmanager
def from_environment() -> Iterator[None]:
    """Translates what httpx raises at proxies and certificates that it cannot use. Raises InvalidInput."""
    try:
        yield
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        raise InvalidInput(
            f"the proxy or the certificates that the environment names cannot be used: {error}; "
            "see HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
        ) from error


def timeouts(request: Request, deadline: Deadline) -> httpx.Timeout:
    """No step takes longer than the call has left, nor than a service that lives would take."""
    left = max(deadline.left, 0.001)
    idle = min(left, IDLE_SECONDS)
    return httpx.Timeout(
        idle, connect=min(left, CONNECT_SECONDS), read=min(left, request.wait_seconds + IDLE_SECONDS), pool=left
    )


def is_foreign(request: Request) -> bool:
    return not request.path.startswith("/")


def check(received: int, deadline: Deadline) -> None:
    """Between the parts of an answer. Raises Broken when it is too large, or trickles beyond the deadline."""
    if received > MOST_BYTES:
        raise Broken(f"the answer is larger than {MOST_BYTES} bytes")
    if not deadline.left:
        raise Broken("the answer did not end in time")


@contextmanager
def broken_errors() -> Iterator[None]:
    """Translates what httpx raises."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise Broken(f"no answer in time ({type(error).__name__})") from error
    except httpx.UnsupportedProtocol as error:
        raise InvalidInput(str(error)) from error
    except (httpx.HTTPError, OSError) as error:
        raise Broken(str(error) or type(error).__name__) from error
