"""An Internet for tests: names, public addresses, and real TLS servers that stand behind them on this machine."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpcore
import trustme

from gateway.outbound.https import Outbound

PUBLIC_ADDRESS = "93.184.215.14"

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Internet:
    """A Network whose names and addresses are given; connections to an address go to a port of this machine."""

    names: dict[str, list[list[str]]] = field(default_factory=dict)  # one list of addresses for each time it is asked
    ports: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    connected: list[tuple[str, int]] = field(default_factory=list)

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self.names.get(host, [[]])
        return answers[min(self.asked.count(host), len(answers)) - 1]

    async def connect_tcp(self, host: str, port: int, timeout: float | None) -> httpcore.AsyncNetworkStream:
        self.connected.append((host, port))
        if host not in self.ports:
            raise httpcore.ConnectError("no such host")
        return await httpcore.AnyIOBackend().connect_tcp("127.0.0.1", self.ports[host], timeout)


class Site:
    """A TLS server: its authority, certificate and answer, and what it was asked."""

    def __init__(self, answer: Answer, *names: str) -> None:
        self.authority = trustme.CA()
        self.requests: list[bytes] = []
        self.server_names: list[str | None] = []
        self._answer = answer
        self._certificate = self.authority.issue_cert(*names)

    @property
    def trusting(self) -> ssl.SSLContext:
        """A context that trusts this site's authority and no other."""
        return ssl.create_default_context(cadata=self.authority.cert_pem.bytes().decode())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        """Serve on a free port of this machine."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._certificate.configure_cert(context)
        context.sni_callback = lambda _, name, __: self.server_names.append(name)
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head.lower())
            self.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
            await self._answer(self.requests[-1], writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client went away
        finally:
            writer.close()


@asynccontextmanager
async def reachable(site: Site, name: str, ports: tuple[int, ...] = (443,)) -> AsyncIterator[tuple[Internet, Outbound]]:
    """The site under `name` at a public address, and an Outbound that trusts its authority."""
    async with site.open() as port:
        internet = Internet({name: [[PUBLIC_ADDRESS]]}, {PUBLIC_ADDRESS: port})
        yield internet, Outbound(ports, internet, site.trusting)


def reply(status: int = 200, body: bytes = b"", *headers: str) -> Answer:
    """Answers each request the same."""

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return answer
