"""A connection: bounded in bytes, read on behind an early answer; problems for what never reaches the application."""

import asyncio
from typing import Any

import msgspec
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from gateway.errors import GatewayError, HeadersTooLarge, MalformedRequest
from gateway.server.headers import completed, raw
from gateway.server.request_id import HEADER, new_request_id
from gateway.task import problem_of

MOST_HEAD_BYTES = 65_536
MOST_HEADERS = 200  # each takes a microsecond, and a hundred bytes however short it is
_MOST_AHEAD = 20  # requests sent before the answers to those before them: 3 kB each, for 30 bytes
_FIRST_REQUEST_SECONDS = 0.3  # that a stopping process waits for the first request of a connection
# After an answer that came before its request was whole; nginx waits as long. The most that any request may have.
_LINGER_SECONDS, _LINGER_IDLE_SECONDS, _MOST_DROPPED_BYTES = 30, 5, 256 << 20


class _Transport:
    """The transport of a connection that is not closed while its client still sends (`ProblemProtocol.linger`).

    What is written in one turn of the loop goes out at once: uvicorn writes a head and its body apart, and a proxy that
    still sends when the head comes may close before it has read the rest, as those in Go do.
    """

    def __init__(self, transport: asyncio.Transport, protocol: "ProblemProtocol") -> None:
        self._transport, self._protocol = transport, protocol
        self._written = list[bytes]()
        self.last_bytes = 0  # written at once: kept whole until all of it is sent

    def write(self, data: bytes) -> None:
        if not self._written:
            self._protocol.loop.call_soon(self._flush)
        self._written.append(data)

    def _flush(self) -> None:
        if self._written and not self._transport.is_closing():
            self.last_bytes = sum(map(len, self._written))
            self._transport.writelines(self._written)
        self._written = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._protocol.lingering or self._transport.is_closing()

    def close(self) -> None:
        self._flush()
        if self._protocol.answers_early() and not self.is_closing():
            self._protocol.linger(self._transport)
        else:
            self._transport.close()


class ProblemProtocol(HttpToolsProtocol):
    """One connection. The parser itself would read headers without end."""

    lingering = False

    _receiving = False  # a request that has not come whole
    _refused = False
    _reading_head = False
    _head_bytes = _headers = 0
    _running: RequestResponseCycle | None = None
    _lingering_until: asyncio.TimerHandle | None = None
    _dropped_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._out = _Transport(transport, self)
        super().connection_made(self._out)  # type: ignore[arg-type]

    @property
    def untaken_bytes(self) -> int:
        """What an answer holds while its client does not take all of it."""
        return max(self.transport.get_write_buffer_size(), self._out.last_bytes)

    def answers_early(self) -> bool:
        """Whether there is an answer to a request that has not come whole."""
        return self._receiving and (self._refused or (self.cycle is not None and self.cycle.response_started))

    def linger(self, transport: asyncio.Transport) -> None:
        """Say that the answer ends here, and drop what the client still sends, within bounds.

        Closed at once, the connection is reset by the next bytes, and the answer lost with it: nginx makes a 502 of it
        and takes the gateway for down. RFC 9112, 9.6.
        """
        self.lingering, self._dropped_bytes = True, 0
        self.flow.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, transport.close)
        self._linger_on()

    def _linger_on(self) -> None:
        if self._lingering_until is not None:
            self._lingering_until.cancel()
        self._lingering_until = self.loop.call_later(_LINGER_IDLE_SECONDS, self.transport.close)

    def _drop(self, data: bytes) -> None:
        self._dropped_bytes += len(data)
        if self._dropped_bytes > _MOST_DROPPED_BYTES:
            self.transport.close()
        else:
            self._linger_on()

    def shutdown(self) -> None:
        """The process stops. The first request of a connection may be on its way: it gets its 503."""
        if self.cycle is None:
            self.loop.call_later(_FIRST_REQUEST_SECONDS, super().shutdown)
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tell_application()
        if self._lingering_until is not None:
            self._lingering_until.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            return self._drop(data)
        begun = self._reading_head
        super().data_received(data)
        if begun and self._reading_head and not self.transport.is_closing():
            self._head_bytes += len(data)  # a header that has not ended yet, the parser keeps it to itself
            if self._is_too_large:
                self.refuse(_too_large())

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= _MOST_AHEAD:
            self._receiving = True  # the rest is dropped, and the answer arrives
            raise _too_far_ahead()  # as in `_count`
        self._reading_head, self._head_bytes, self._headers, self._receiving = True, 0, 0, True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        self._count(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._reading_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._receiving = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.pipeline:  # uvicorn would read on with each answer
            self.flow.pause_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, _closing_early(cycle, app) if cycle.waiting_for_100_continue else app)

    def send_400_response(self, msg: str) -> None:
        if self._is_too_large:
            self.refuse(_too_large())
        elif len(self.pipeline) >= _MOST_AHEAD:
            self.refuse(_too_far_ahead())
        else:
            self.refuse(MalformedRequest("the request is not HTTP/1.1: look at its first line, headers and chunks"))

    @property
    def _is_too_large(self) -> bool:
        return self._head_bytes > MOST_HEAD_BYTES or self._headers > MOST_HEADERS

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._is_too_large:
            raise _too_large()  # the parser stops, and uvicorn calls send_400_response

    def refuse(self, error: GatewayError) -> None:
        """Answer with the problem, if the answer has not begun, and close."""
        if self.lingering:
            return self.transport.close()
        running = self._running  # others may wait behind it
        if running is None or not running.response_started or running.response_complete:
            identity = new_request_id()
            body = msgspec.json.encode(problem_of(error, identity))
            headers = [
                *self.server_state.default_headers,
                (b"content-type", b"application/problem+json"),
                (b"content-length", str(len(body)).encode()),
                *(raw(name, value) for name, value in error.headers.items()),
                (b"connection", b"close"),
            ]
            lines = [name + b": " + value + b"\r\n" for name, value in completed(headers, [raw(HEADER, identity)])]
            self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body]))
            self._refused = True
        self._tell_application()
        self.transport.close()

    def refuse_connection(self, error: GatewayError) -> None:
        """Answer before anything was asked; what is asked is dropped, within bounds."""
        self._receiving = True
        self.refuse(error)

    @property
    def client_name(self) -> str:
        """Whose request is being answered, as the application has noted it; empty before."""
        scope: Any = self._running.scope if self._running is not None else {}
        name: str = scope.get("state", {}).get("client", "")
        return name

    def _tell_application(self) -> None:
        """Nobody takes its answer any more. uvicorn tells the last request only, not one that others wait behind."""
        for cycle in (self._running, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()


def _closing_early(cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
    """A client that waits for 100 and is answered otherwise need not send its body: what follows cannot be told."""

    async def closing(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start" and cycle.waiting_for_100_continue:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await app(scope, receive, sending)

    return closing


def _too_far_ahead() -> MalformedRequest:
    return MalformedRequest(f"more than {_MOST_AHEAD} requests came before their answers; wait for these in between")


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(
        f"the request line and the headers have more than {MOST_HEAD_BYTES} bytes, or these are more than "
        f"{MOST_HEADERS}; send fewer"
    )
