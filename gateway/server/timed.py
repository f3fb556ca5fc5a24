"""A connection bounded in time, and the server that gives each client one."""

import asyncio
import resource
from collections.abc import Callable
from typing import ClassVar

import uvicorn
from starlette.applications import Starlette

from gateway.errors import RequestTimeout, ShuttingDown
from gateway.server.limits import Limits
from gateway.server.protocol import ProblemProtocol
from gateway.server.shutdown import Server, Stop
from gateway.settings import Settings


def server(app: Starlette, settings: Settings) -> uvicorn.Server:
    """The server of the web process; not running yet."""
    _allow_files(settings.max_connections + _OTHER_FILES)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=_timed(settings, app.state.limits),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=settings.trusted_proxies is not None,
        forwarded_allow_ips=settings.trusted_proxies,
    )

    def drain() -> None:
        app.state.services.stopping.set()

    def release() -> None:
        app.state.services.results.release()

    def cut() -> None:
        for connection in list(web.server_state.connections):
            if isinstance(connection, ProblemProtocol):
                connection.refuse(ShuttingDown(_CUT))

    stop = Stop(drain, settings.drain_seconds, release, cut, settings.stop_timeout)
    web = Server(config, stop)
    return web


_CUT = "this process stops, and the request did not end in time; send it again, with the Idempotency-Key that it had"
_OTHER_FILES = 200  # sockets to Redis and Triton, refused connections, logs


class TimedProtocol(ProblemProtocol):
    """One connection. uvicorn itself would wait for headers and bodies without end, and for answers to be taken."""

    limits: ClassVar[Limits]
    header_seconds: ClassVar[float]
    body_seconds: ClassVar[float]
    least_body_bytes: ClassVar[float]  # in that time

    _body_bytes = 0  # since the clock was set
    _read_until: float | None = None  # and what is done then
    _otherwise: Callable[[], None]
    _reading: asyncio.TimerHandle | None = None  # rings then or before, and stays where there is no such time
    _writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if refusal := self.limits.enter(self._address):
            if self.limits.are_far_exceeded:
                self.drop()
            else:
                self.refuse_connection(refusal)
        else:
            self._read_within(self.header_seconds, self._no_headers)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._read_until = None
        self.resume_writing()
        self.limits.leave(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.lingering:
            return
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._read_until is None and not self.transport.is_closing():
            self._read_within(self.header_seconds, self._no_headers)  # empty lines count for the next request

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._read_until is None:
            self._read_within(self.header_seconds, self._no_headers)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._read_within(self.body_seconds, self._slow_body)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._read_until = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self.limits.hold(self, self.client_name or f"address:{self._address}", self.untaken_bytes)
        self._writing = self.loop.call_later(self.body_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.limits.free(self)
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def drop(self) -> None:
        self.transport.abort()

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _read_within(self, seconds: float, otherwise: Callable[[], None]) -> None:
        """Set the clock. A timer for each time it is set would cost each request three."""
        self._body_bytes = 0
        self._read_until, self._otherwise = self.loop.time() + seconds, otherwise
        if self._reading is not None and self._reading.when() > self._read_until:
            self._reading.cancel()
            self._reading = None
        if self._reading is None:
            self._reading = self.loop.call_at(self._read_until, self._ring)

    def _ring(self) -> None:
        self._reading = None
        if self._read_until is None:
            return
        if self.loop.time() < self._read_until:
            self._reading = self.loop.call_at(self._read_until, self._ring)
        else:
            self._read_until = None
            self._otherwise()

    def _no_headers(self) -> None:
        if self._reading_head:
            self.refuse(RequestTimeout(f"the headers did not come within {self.header_seconds:g} s"))
        else:
            self.transport.close()  # nothing was asked, nothing is answered

    def _slow_body(self) -> None:
        """A slow client may take its time while its upload flows; one that hardly sends holds memory for nothing."""
        if self.pipeline:  # it is not read before the request ahead of it has its answer
            self._read_within(self.body_seconds, self._slow_body)
        elif self.cycle.response_complete:
            self.transport.close()
        elif self._body_bytes >= self.least_body_bytes or self.flow.read_paused:
            self._read_within(self.body_seconds, self._slow_body)
        else:
            self.refuse(
                RequestTimeout(
                    f"of the body {self._body_bytes} bytes came within {self.body_seconds:g} s, "
                    f"at least {self.least_body_bytes:g} are wanted"
                )
            )


def _allow_files(wanted: int) -> None:
    """A connection is an open file; the system's usual bound for a process is 1,024, which it may raise itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _timed(settings: Settings, shared: Limits) -> type[TimedProtocol]:
    class Protocol(TimedProtocol):
        limits = shared
        header_seconds = settings.header_timeout
        body_seconds = settings.body_timeout
        least_body_bytes = settings.body_timeout * settings.min_upload_rate

    return Protocol
