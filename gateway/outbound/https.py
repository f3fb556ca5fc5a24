"""HTTPS requests to hosts that clients name, to public addresses only.

A name is resolved once, every answer is looked at, and the connection goes to one of those very addresses: a name
server that answers otherwise a moment later changes nothing. The certificate is checked against the name. httpcore
follows no redirects, reads no proxies from the environment and unpacks nothing.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any, Protocol

import httpcore
import httpx

from gateway.errors import UrlNotAllowed
from gateway.outbound.addresses import is_public, parse_url
from gateway.outbound.turns import Turns

_RESOLVED_AT_A_TIME, _RESOLVED_OF_A_CLIENT = 64, 8  # the system's resolver cannot be stopped: it takes its time
_RESOLVE_SECONDS = 5.0
_MOST_ADDRESSES = 4
_CONNECT_SECONDS = 5.0  # for one address; the whole request is the caller's to bound
_BROKEN = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, ssl.SSLError, ConnectionError)
_USER_AGENT = "yolov5-triton-gateway"


class OutboundError(Exception):
    """The other side could not be reached, or broke off; the message names no address."""


class NameServerSlow(OutboundError):
    """The name server has not answered in time: it may a moment later."""


class Network(Protocol):
    """The way out: names to addresses, addresses to connections. The one seam for tests."""

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of `host`; empty when it has none."""

    async def connect_tcp(self, host: str, port: int, timeout: float | None) -> httpcore.AsyncNetworkStream:
        """Connect to `host`, an address. Raises httpcore's errors."""


class SystemNetwork:
    """The network of this machine."""

    def __init__(self) -> None:
        self._backend = httpcore.AnyIOBackend()

    async def resolve(self, host: str, port: int) -> list[str]:
        """In a thread of its own that keeps no process from ending: how long it takes is up to the name server."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def settle(answer: list[Any]) -> None:
            if not found.done():
                found.set_result(answer)

        def ask() -> None:
            try:
                answer: list[Any] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                answer = []
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, answer)

        threading.Thread(target=ask, name="resolve", daemon=True).start()
        return [str(address[0]) for *_, address in await found]

    async def connect_tcp(self, host: str, port: int, timeout: float | None) -> httpcore.AsyncNetworkStream:
        return await self._backend.connect_tcp(host, port, timeout)


class Outbound:
    """Sends requests to public hosts; `ports` are those that a URL may name."""

    def __init__(
        self, ports: Iterable[int], network: Network | None = None, certificates: ssl.SSLContext | None = None
    ) -> None:
        self._ports = frozenset(ports)
        self._network = network or SystemNetwork()
        self._certificates = certificates
        self._turns = Turns(_RESOLVED_AT_A_TIME, _RESOLVED_OF_A_CLIENT)
        self._resolving: set[asyncio.Task[list[str]]] = set()

    async def check(self, text: str, client: str = "") -> None:
        """Whether `text` is a URL that may be asked for at this moment. Raises UrlNotAllowed, NameServerSlow.

        Names are resolved for a few of one `client` at a time, so that dead ones hold up nobody else.
        """
        await self._resolve(parse_url(text, self._ports), client)

    @asynccontextmanager
    async def request(
        self, method: str, text: str, headers: Mapping[str, str], content: bytes | None = None, client: str = ""
    ) -> AsyncIterator[httpcore.Response]:
        """Ask for a `client`, and give the response with its body unread; the connection ends with the block.

        Raises UrlNotAllowed, OutboundError; reading the body in the block raises OutboundError too.
        """
        url = parse_url(text, self._ports)
        pinned = _Pinned(self._network, await self._resolve(url, client))
        sent = {
            "Host": url.netloc.decode("ascii"),
            "User-Agent": _USER_AGENT,
            "Accept-Encoding": "identity",
            "Connection": "close",
            **headers,
        }
        target = httpcore.URL(scheme=b"https", host=url.raw_host, port=url.port, target=url.raw_path)
        timeouts = {"connect": _CONNECT_SECONDS}
        if self._certificates is None:  # some megabytes, which a process that asks nobody does without
            self._certificates = httpx.create_ssl_context(trust_env=False)
        pool = httpcore.AsyncConnectionPool(ssl_context=self._certificates, network_backend=pinned)
        try:
            async with (
                pool,
                pool.stream(
                    method, target, headers=list(sent.items()), content=content, extensions={"timeout": timeouts}
                ) as response,
            ):
                yield response
        except _BROKEN as error:
            raise OutboundError(f"{url.host}: {_reason(error)}") from error

    async def _resolve(self, url: httpx.URL, client: str) -> list[str]:
        host = url.raw_host.decode("ascii")
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                await self._turns.take(client)
                asking = asyncio.ensure_future(self._network.resolve(host, url.port or 443))
                asking.add_done_callback(lambda _: self._turns.free(client))
                self._resolving.add(asking)
                asking.add_done_callback(self._resolving.discard)
                addresses = await asyncio.shield(asking)
        except TimeoutError as error:
            raise NameServerSlow(f"{host}: the name server does not answer in time; try again later") from error
        # One message for both: whether a name exists inside a private network is nobody's business.
        if not addresses or not all(is_public(ip_address(address)) for address in addresses):
            raise UrlNotAllowed(f"{host} does not resolve to public addresses")
        return addresses[:_MOST_ADDRESSES]


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to the given addresses, whatever the name of the host; they are tried in turn."""

    def __init__(self, network: Network, addresses: list[str]) -> None:
        self._network = network
        self._addresses = addresses

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        for address in self._addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, port, timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(self._addresses[-1], port, timeout)


def _reason(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpcore.TimeoutException):
        return "it does not answer in time"
    if isinstance(error, httpcore.ConnectError):
        return "no TLS connection comes about"
    return "it breaks off the exchange"
