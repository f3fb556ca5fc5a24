"""What uvicorn would say in its own words."""

import contextlib
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from gateway.server.protocol import MOST_HEAD_BYTES
from gateway.settings import Settings
from tests.api.serving import serving


@pytest.fixture
def address(settings: Settings) -> Iterator[tuple[str, int]]:
    with serving(settings) as url:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        yield parts.hostname, parts.port


def answer_to(address: tuple[str, int], *chunks: bytes) -> tuple[bytes, dict[str, str], bytes]:
    """Status line, headers and body of all that comes back until the connection closes."""
    with socket.create_connection(address, timeout=10) as connection:
        with contextlib.suppress(ConnectionError):
            for chunk in chunks:
                connection.sendall(chunk)
        received = b""
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                received += data
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    return status.encode(), {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbroken header\r\n\r\n",
        b"GET no-slash HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /ü HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["noise", "version", "header", "target", "not ASCII", "length", "chunk", "TLS"],
)
def test_what_is_not_http_is_told_as_a_problem(address: tuple[str, int], request_bytes: bytes) -> None:
    status, headers, body = answer_to(address, request_bytes)
    assert status == b"HTTP/1.1 400 Bad Request"
    assert headers["content-type"] == "application/problem+json"
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (400, "malformed_request")
    assert problem["request_id"] == headers["x-request-id"] != ""


@pytest.mark.parametrize(
    "chunks",
    [
        [b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * MOST_HEAD_BYTES + b"\r\n\r\n"],
        [b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-One: 1\r\n" * 10_000 + b"\r\n"],
        [b"GET /livez HTTP/1.1\r\nHost: x\r\n", *[b"a:b\r\n" * 100] * 3],
        [b"GET /" + b"a" * MOST_HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n"],
        [b"GET /livez HTTP/1.1\r\nX-Endless: ", *[b"a" * 10_000] * 100],
    ],
    ids=["long header", "many headers", "many short headers", "long address", "endless header"],
)
def test_headers_are_bounded(address: tuple[str, int], chunks: list[bytes]) -> None:
    status, headers, body = answer_to(address, *chunks)
    assert status.startswith(b"HTTP/1.1 431 ")
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["code"] == "headers_too_large"


def test_a_large_body_behind_small_headers_is_read(address: tuple[str, int]) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 300000\r\n\r\n"
    status, _, body = answer_to(address, head + b"a" * 300_000)
    assert (status, json.loads(body)["code"]) == (b"HTTP/1.1 415 Unsupported Media Type", "unsupported_image")


@pytest.mark.parametrize(("ahead", "answered"), [(15, 15), (2_000, 0)])
def test_requests_sent_ahead_of_their_answers_are_bounded(address: tuple[str, int], ahead: int, answered: int) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    last = request.replace(b"Host: x", b"Host: x\r\nConnection: close")
    status, _, body = answer_to(address, request * (ahead - 1) + last)
    if answered:
        assert (status + body).count(b"HTTP/1.1 200 OK") == answered
    else:
        assert status == b"HTTP/1.1 400 Bad Request" and b"requests came before their answers" in body


def test_many_requests_on_one_connection_are_read_as_they_are_answered(address: tuple[str, int]) -> None:
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(address, timeout=10) as connection:
        for _ in range(5):
            connection.sendall(request * 15)
            received = b""
            while received.count(b'{"status":"alive"}') < 15:
                data = connection.recv(65536)
                assert data, received
                received += data


def test_a_websocket_is_answered_as_http(address: tuple[str, int]) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    status, _, body = answer_to(address, head)
    assert (status, json.loads(body)) == (b"HTTP/1.1 200 OK", {"status": "alive"})


def test_a_slash_too_many_is_a_404(address: tuple[str, int]) -> None:
    status, _, body = answer_to(address, b"GET /livez/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (status, json.loads(body)["code"]) == (b"HTTP/1.1 404 Not Found", "not_found")
