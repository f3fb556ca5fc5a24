"""Inference over HTTP/1.1 at a Triton on the same host: of an image in shared memory it takes 0.4 of gRPC's CPU.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md

All else is asked over gRPC, and so is an image for which this way fails. A connection is closed after a second: Triton
waits for open ones when it stops.
"""

import logging
import math
import socket
import struct
import threading
import time
from typing import NamedTuple
from urllib.parse import quote

import httptools
import msgspec
import numpy as np
import numpy.typing as npt
from tritonclient.utils import InferenceServerException

from gateway.telemetry import tracing
from gateway.triton.shared_memory import Region
from gateway.triton.spec import INPUT, OUTPUT

log = logging.getLogger(__name__)

_OPEN_SECONDS = 1.0  # how long a connection is used, and how long it is kept with nothing to do
_CONNECT_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 60.0
_BUFFER_BYTES = 1 << 16
_MOST_REQUESTS = 64  # kept for a region
# `HttpCodeFromError` of Triton's src/http_server.cc, and gRPC's names of the same errors.
_STATUSES = {
    400: "StatusCode.INVALID_ARGUMENT",
    404: "StatusCode.NOT_FOUND",
    500: "StatusCode.INTERNAL",
    501: "StatusCode.UNIMPLEMENTED",
    503: "StatusCode.UNAVAILABLE",
}


class HttpFailed(Exception):
    """No answer to make use of; gRPC is to be asked. Triton may still read the image."""


class Answer(NamedTuple):
    """What a model has answered: its version, and the rows of the one image, float32 (K, 6)."""

    version: str
    rows: npt.NDArray[np.float32]


class _Output(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]


class _Header(msgspec.Struct):
    model_version: str
    outputs: list[_Output]


class _Error(msgspec.Struct):
    error: str


_headers, _errors = msgspec.json.Decoder(_Header), msgspec.json.Decoder(_Error)


class HttpInference:
    """The kept connections of one worker process to Triton's `address`, host:port; thread-safe."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address, self._place = address, (host.strip("[]"), int(port))
        self._free: list[_Connection] = []
        self._change = threading.Condition()
        self._closer: threading.Thread | None = None
        self._is_closed = False
        self._next_try = self._pause_seconds = 0.0
        self._is_reported = False

    def is_worth_a_try(self) -> bool:
        return time.monotonic() >= self._next_try

    def infer(self, region: Region, shape: tuple[int, ...], model: str, version: str, deadline: float) -> Answer:
        """The answer to the image of this shape in the region. `deadline` is an instant of `time.monotonic`.

        Raises HttpFailed, and InferenceServerException with the status and the words that gRPC has for the same.
        """
        request = self._request(region, shape, model, version)
        connection = self._taken(deadline)
        try:
            connection.ask(request, deadline)
            if connection.status != 200:
                raise _refusal(connection.status, connection.body)
            answer = _answer(connection.body, connection.header_bytes)
        except BaseException:  # whatever ends the request, its answer must not be taken for the next one's
            connection.close()
            raise
        self._give_back(connection)
        if self._pause_seconds:
            self._note_success()
        return answer

    def give_up_for_now(self, why: Exception) -> None:
        """gRPC has an answer where this has none: try again after a pause, each longer than the one before."""
        with self._change:
            if not self.is_worth_a_try():
                return  # another thread has met the same
            repeated = self._pause_seconds > 0
            self._pause_seconds = min(max(2 * self._pause_seconds, 1.0), _LONGEST_PAUSE_SECONDS)
            self._next_try = time.monotonic() + self._pause_seconds
            is_news, self._is_reported = repeated and not self._is_reported, repeated or self._is_reported
        if is_news:
            log.warning("Triton is asked over gRPC only: at TRITON_HTTP_URL=%s it %s", self._address, why)

    def close(self) -> None:
        with self._change:
            self._is_closed = True
            self._change.notify_all()
            free, self._free = self._free, []
        for connection in free:
            connection.close()

    def _request(self, region: Region, shape: tuple[int, ...], model: str, version: str) -> bytes:
        key = model, version, shape
        parts = region.requests.get(key)
        if parts is None:
            if len(region.requests) >= _MOST_REQUESTS:
                region.requests.clear()
            parts = region.requests[key] = self._written(region.name, shape, model, version)
        context = tracing.sampled()
        if context is None:
            return parts[0] + parts[1]
        return parts[0] + "".join(f"{name}: {value}\r\n" for name, value in context.items()).encode() + parts[1]

    def _written(self, region: str, shape: tuple[int, ...], model: str, version: str) -> tuple[bytes, bytes]:
        """The request until behind its first headers, and from its last one on."""
        size = math.prod(shape)
        memory = {"shared_memory_region": region, "shared_memory_byte_size": size}
        tensor = {"name": INPUT, "datatype": "UINT8", "shape": [1, *shape], "parameters": memory}
        output = {"name": OUTPUT, "parameters": {"binary_data": True}}
        body = msgspec.json.encode({"inputs": [tensor], "outputs": [output]})
        path = f"/v2/models/{quote(model, safe='')}{f'/versions/{version}' if version else ''}/infer"
        first = f"POST {path} HTTP/1.1\r\nHost: {self._address}\r\n"
        return first.encode(), f"Content-Length: {len(body)}\r\n\r\n".encode() + body

    def _taken(self, deadline: float) -> "_Connection":
        with self._change:
            if self._free:
                return self._free.pop()
        try:
            return _Connection(self._place, min(max(deadline - time.monotonic(), 1e-3), _CONNECT_SECONDS))
        except OSError as error:
            raise HttpFailed(f"does not answer: {error.strerror or error}") from error

    def _give_back(self, connection: "_Connection") -> None:
        connection.used_at = time.monotonic()
        with self._change:
            is_kept = not self._is_closed and connection.may_be_kept()
            if is_kept:
                self._free.append(connection)
                if self._closer is None:
                    self._closer = threading.Thread(target=self._close_idle, name="triton-http", daemon=True)
                    self._closer.start()
                self._change.notify()
        if not is_kept:
            connection.close()

    def _close_idle(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._free or self._is_closed)
                if self._is_closed:
                    return
            time.sleep(_OPEN_SECONDS)
            with self._change:
                idle = [each for each in self._free if each.is_idle()]
                self._free = [each for each in self._free if each not in idle]
            for connection in idle:
                connection.close()

    def _note_success(self) -> None:
        with self._change:
            was_reported, self._is_reported = self._is_reported, False
            self._pause_seconds = 0.0
        if was_reported:
            log.info("Triton answers at TRITON_HTTP_URL=%s", self._address)


class _Connection:
    """A connection, and what it was answered last: `status`, `header_bytes` (of JSON, before the rows) and `body`.

    Raises OSError. Its socket blocks, with time limits of the system's: Python's own cost a poll before each call.
    """

    def __init__(self, place: tuple[str, int], seconds: float) -> None:
        self._socket = socket.create_connection(place, seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(None)
        self._parser = httptools.HttpResponseParser(self)
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._opened_at = self.used_at = time.monotonic()

    def ask(self, request: bytes, deadline: float) -> None:
        """Raises HttpFailed, and InferenceServerException when the time is over."""
        self.header_bytes, self._parts, self._is_answered = -1, list[bytes](), False
        try:
            self._limit(socket.SO_SNDTIMEO, max(deadline - time.monotonic(), 1e-3))
            self._socket.sendall(request)
            while not self._is_answered:
                self._limit(socket.SO_RCVTIMEO, max(deadline - time.monotonic(), 1e-3))
                count = self._socket.recv_into(self._buffer)
                if not count:
                    raise HttpFailed("closes the connection")
                self._parser.feed_data(self._buffer[:count])
        except BlockingIOError as error:
            raise InferenceServerException("Deadline Exceeded", "StatusCode.DEADLINE_EXCEEDED") from error
        except OSError as error:
            raise HttpFailed(f"breaks the connection: {error.strerror}") from error
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise HttpFailed(f"gives no HTTP answer: {error}") from error
        self.status, self.body = self._parser.get_status_code(), b"".join(self._parts)

    def may_be_kept(self) -> bool:
        return self.used_at - self._opened_at < _OPEN_SECONDS and self._stays_open

    def is_idle(self) -> bool:
        return time.monotonic() - self.used_at > _OPEN_SECONDS

    def close(self) -> None:
        self._socket.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"inference-header-content-length":
            self.header_bytes = int(value)

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)

    def on_message_complete(self) -> None:
        self._is_answered, self._stays_open = True, self._parser.should_keep_alive()

    def _limit(self, which: int, seconds: float) -> None:
        whole = int(seconds)
        self._socket.setsockopt(socket.SOL_SOCKET, which, struct.pack("ll", whole, int((seconds - whole) * 1e6)))


def _answer(body: bytes, header_bytes: int) -> Answer:
    """Raises HttpFailed. Where there are no rows, Triton tells no length: all is JSON."""
    end = header_bytes if header_bytes >= 0 else len(body)
    try:
        header = _headers.decode(body[:end])
        (output,) = header.outputs
        if (output.name, output.datatype) != (OUTPUT, "FP32"):
            raise ValueError(f"{output.name} of {output.datatype}")
        rows = np.frombuffer(body, np.float32, offset=end) if end < len(body) else np.empty(0, np.float32)
        return Answer(header.model_version, rows.reshape(output.shape)[0])
    except (msgspec.DecodeError, ValueError) as error:
        raise HttpFailed(f"gives another answer than was asked for: {error}") from error


def _refusal(status: int, body: bytes) -> InferenceServerException:
    try:
        words = _errors.decode(body).error
    except msgspec.DecodeError:
        words = f"HTTP status {status}"
    return InferenceServerException(words, _STATUSES.get(status, "StatusCode.UNKNOWN"))
