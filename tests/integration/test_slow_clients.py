"""Clients that are slow, stop in the middle or leave: they hold nothing up and leave nothing behind."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx2
import pytest
import redis

from gateway.server.headers import SECURITY_HEADERS
from tests.support.gateway import HEAD, Gateway, read_to_end, running_gateway
from tests.support.pictures import encoded

HEADER_SECONDS, BODY_SECONDS = 1.0, 2.0
LATEST_SECONDS = 5.0  # later than any bound, by what a loaded machine may add
CLOSE = b"\r\nConnection: close\r\n\r\n"
KEEP_ALIVE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def gateway(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    bounds = {"HEADER_TIMEOUT": str(HEADER_SECONDS), "BODY_TIMEOUT": str(BODY_SECONDS), "DRAIN_SECONDS": "0"}
    with running_gateway(redis_server, tmp_path_factory.mktemp("gateway"), **bounds) as gateway:
        yield gateway
        assert "Traceback" not in gateway.log.read_text()


def trickle(connection: socket.socket, data: bytes, stop: threading.Event) -> None:
    """Send a byte every tenth of a second until the other side closes."""
    with suppress(OSError):
        for byte in data:
            connection.sendall(bytes([byte]))
            if stop.wait(0.1):
                return


def test_an_early_answer_comes_as_one(gateway: Gateway) -> None:
    """A proxy that still sends may close once it has the head, and read no further."""
    for _ in range(20):
        with gateway.connect() as connection:
            connection.sendall(b"PUT /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n")
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 405 ") and b"method_not_allowed" in body


@pytest.mark.parametrize(
    ("sent", "trickled", "seconds", "what"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\n", b"", HEADER_SECONDS, "headers"),
        (b"G", b"", HEADER_SECONDS, "headers"),
        (b"GET /livez HTTP/1.1\r\nX-Slow: ", b"a" * 1000, HEADER_SECONDS, "headers"),
        (KEEP_ALIVE + b"GET /livez HTTP/1.1\r\n", b"", HEADER_SECONDS, "headers"),
        (HEAD, b"", BODY_SECONDS, "body"),
        (HEAD + b"\xff\xd8\xff" * 1000, b"\0" * 1000, BODY_SECONDS, "body"),
        (
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            b"",
            BODY_SECONDS,
            "body",
        ),
    ],
    ids=["half", "one byte", "trickling", "second request", "no body", "trickling body", "open chunks"],
)
def test_what_does_not_come_in_time_is_told(
    gateway: Gateway, sent: bytes, trickled: bytes, seconds: float, what: str
) -> None:
    stop = threading.Event()
    with gateway.connect() as connection:
        connection.sendall(sent)
        begun = time.monotonic()
        slow = threading.Thread(target=trickle, args=(connection, trickled, stop))
        slow.start()
        answer = read_to_end(connection)
        took = time.monotonic() - begun
        stop.set()
        slow.join()
    assert answer is not None
    assert (answer.status, answer.json["code"]) == (408, "request_timeout")
    assert what in answer.json["detail"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["connection"] == "close"
    assert all(answer.headers[name.lower()] == value for name, value in SECURITY_HEADERS.items())
    assert seconds - 0.3 < took < LATEST_SECONDS


def test_a_slow_upload_that_flows_may_take_its_time(gateway: Gateway) -> None:
    """As curl --limit-rate sends it: 40 kB/s, for more than twice BODY_TIMEOUT."""
    picture = encoded(64, 48) + bytes(200_000)
    with gateway.connect() as connection:
        begun = time.monotonic()
        connection.sendall(HEAD.replace(b"100000", str(len(picture)).encode()).replace(b"\r\n\r\n", CLOSE))
        for start in range(0, len(picture), 4_000):
            connection.sendall(picture[start : start + 4_000])
            time.sleep(0.1)
        answer = read_to_end(connection)
    assert time.monotonic() - begun > 2 * BODY_SECONDS
    assert answer is not None and answer.status == 202


@pytest.mark.parametrize(
    "sent", [b"", b"\r\n", KEEP_ALIVE, KEEP_ALIVE + b"\r\n"], ids=["nothing", "empty line", "asked", "both"]
)
def test_who_asks_nothing_is_left_without_a_word(gateway: Gateway, sent: bytes) -> None:
    with gateway.connect() as connection:
        connection.sendall(sent)
        answer = read_to_end(connection)
    assert answer is None if KEEP_ALIVE not in sent else answer is not None and answer.status == 200


def test_what_follows_a_refusal_is_bounded_too(gateway: Gateway) -> None:
    """The answer comes before the body; the rest of the body has no longer than any other."""
    with gateway.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000000\r\n\r\n")
        begun, stop = time.monotonic(), threading.Event()
        slow = threading.Thread(target=trickle, args=(connection, b"a" * 1000, stop))
        slow.start()
        answer = read_to_end(connection)
        took = time.monotonic() - begun
        stop.set()
        slow.join()
    assert answer is not None and answer.status == 413
    assert took < LATEST_SECONDS


def test_who_does_not_take_the_answer_is_cut(gateway: Gateway) -> None:
    asked = 400
    with gateway.connect() as connection:
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * asked)
        time.sleep(BODY_SECONDS + 1)
        received = 0
        with suppress(ConnectionError):
            while data := connection.recv(1_000_000):
                received += len(data)
    one = len(httpx2.get(f"{gateway.url}/openapi.json").content)
    assert received < one * asked


def test_who_leaves_with_more_requests_asked_leaves_no_traceback(gateway: Gateway) -> None:
    waiting = httpx2.post(f"{gateway.url}/predict", content=encoded(64, 48)).headers["location"]
    asked = f"GET {waiting}?wait=1 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 3
    for _ in range(5):
        with gateway.connect() as connection:
            connection.sendall(asked)
            time.sleep(0.1)
    time.sleep(1.2)
    assert "Traceback" not in gateway.log.read_text()


def test_slow_clients_hold_nobody_up(gateway: Gateway) -> None:
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(gateway.connect()).sendall(HEAD)
        begun = time.monotonic()
        assert httpx2.post(f"{gateway.url}/predict", content=encoded(64, 48)).status_code == 202
        assert time.monotonic() - begun < BODY_SECONDS


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_who_leaves_in_the_middle_leaves_nothing_behind(gateway: Gateway, redis_url: str, reset: bool) -> None:
    boundary = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n"
    multipart = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n" + boundary
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n\xff\xd8\xff'
    beginnings = (HEAD, HEAD + encoded(64, 48)[:1000], HEAD + b"a" * 99_999, multipart, multipart + part)
    for sent in beginnings * 4:
        with gateway.connect() as connection:
            connection.sendall(sent)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(0.5)
    with redis.Redis.from_url(redis_url) as connection_to_redis:
        assert not connection_to_redis.keys("yolo:image:*") and not connection_to_redis.keys("rq:job:*")
    assert httpx2.post(f"{gateway.url}/predict", content=encoded(64, 48)).status_code == 202
    assert "Traceback" not in gateway.log.read_text()


def test_a_fast_client_is_not_bothered(gateway: Gateway) -> None:
    image = encoded(1200, 900, ".bmp")
    with httpx2.Client(base_url=gateway.url) as client:
        for _ in range(5):
            assert client.post("/predict", content=image).status_code == 202
            time.sleep(HEADER_SECONDS / 2)


def test_a_long_poll_outlives_the_bounds(gateway: Gateway) -> None:
    """They are for what the client sends; how long it waits for its answer is its own choice."""
    with httpx2.Client(base_url=gateway.url, timeout=20) as client:
        place = client.post("/predict", content=encoded(64, 48)).headers["location"]
        seconds = BODY_SECONDS + HEADER_SECONDS
        assert client.get(place, params={"wait": seconds}).json()["status"] == "PENDING"
