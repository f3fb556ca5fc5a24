"""uvicorn for this service: bounded headers, and problem details for what never reaches the application."""

import uuid

import msgspec
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.detections import problem_of
from gateway.errors import HeadersTooLarge, MalformedRequest, RequestError
from gateway.requestid import HEADER
from gateway.settings import Settings
from gateway.shutdown import Server

MOST_HEAD_BYTES = 65_536


def server(app: Starlette, settings: Settings) -> uvicorn.Server:
    """The server of the web process; not running yet."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=ProblemProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=settings.trusted_proxies is not None,
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=max(1, round(settings.stop_timeout - settings.drain_seconds)),
    )

    def drain() -> None:
        app.state.stopping.set()
        app.state.results.release()

    return Server(config, drain, settings.drain_seconds)


class ProblemProtocol(HttpToolsProtocol):
    """One connection. The parser itself would read headers without end."""

    _reading_head = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        begun = self._reading_head
        super().data_received(data)
        if begun and self._reading_head and not self.transport.is_closing():
            self._head_bytes += len(data)  # a header that has not ended yet, the parser keeps it to itself
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse(_too_large())

    def on_message_begin(self) -> None:
        self._reading_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._reading_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if self._head_bytes > MOST_HEAD_BYTES:
            self._refuse(_too_large())
        else:
            self._refuse(MalformedRequest("the request is not HTTP/1.1: look at its first line, headers and chunks"))

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MOST_HEAD_BYTES:
            raise _too_large()  # the parser stops, and uvicorn calls send_400_response

    def _refuse(self, error: RequestError) -> None:
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            identity = uuid.uuid4().hex
            body = msgspec.json.encode(problem_of(error, identity))
            headers = [
                *self.server_state.default_headers,
                (b"content-type", b"application/problem+json"),
                (b"content-length", str(len(body)).encode()),
                (HEADER.lower().encode(), identity.encode()),
                (b"connection", b"close"),
            ]
            lines = [name + b": " + value + b"\r\n" for name, value in headers]
            self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body]))
        self.transport.close()


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"the request line and the headers have more than {MOST_HEAD_BYTES} bytes; send fewer")
