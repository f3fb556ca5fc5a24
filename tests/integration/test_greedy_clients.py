"""One greedy client, against the gateway as a process of its own: others are served, and what it held comes back."""

import io
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx2
import pytest
import redis
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from gateway.redis_names import QUEUE_KEY, picture_key
from gateway.security.task_ids import new_id
from local.ports import free_ports
from tests.support.gateway import Gateway, read_to_end, running_gateway
from tests.support.pictures import encoded
from tests.support.stack import Stack

GREEDY = "127.0.0.2"  # another address, so another client
PICTURE = encoded(64, 48)
WAIT_SECONDS = 60
SOON = 5.0
Connect = Callable[..., socket.socket]


class Held:
    """Connections of clients that do not go on, closed at the end; and what the gateway's metrics say."""

    def __init__(self, gateway: Gateway, metrics_port: int, opened: ExitStack) -> None:
        self.gateway, self._metrics_port, self._opened = gateway, metrics_port, opened

    def open(self, sent: bytes, address: str = GREEDY, receives: int | None = None) -> socket.socket:
        """A connection on which that was sent; one that `receives` few bytes at a time."""
        connection = self._opened.enter_context(socket.socket())
        connection.settimeout(20)
        if receives:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        connection.bind((address, 0))
        connection.connect(("127.0.0.1", self.gateway.port))
        with suppress(ConnectionError):
            connection.sendall(sent)
        return connection

    def metric(self, name: str, **labels: str) -> float:
        page = httpx2.get(f"http://127.0.0.1:{self._metrics_port}/metrics").text
        samples = [each for family in text_string_to_metric_families(page) for each in family.samples]
        return next(each.value for each in samples if each.name == name and each.labels == labels)

    def until(self, name: str, value: float) -> None:
        deadline = time.monotonic() + SOON
        while (found := self.metric(name)) != value:
            assert time.monotonic() < deadline, f"{name} is {found}, not {value}"
            time.sleep(0.05)


@contextmanager
def greedy(redis_url: str, folder: Path, **settings: str) -> Iterator[Held]:
    (port,) = free_ports(1)
    settings = {"METRICS_PORT": str(port), "DRAIN_SECONDS": "0", "STOP_TIMEOUT": "2", **settings}
    with running_gateway(redis_url, folder, **settings) as gateway, ExitStack() as opened:
        yield Held(gateway, port, opened)
    assert "Traceback" not in gateway.log.read_text()


def head(method: str, path: str, length: int | None = None, kind: str = "image/jpeg") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if length is not None:
        lines += [f"Content-Length: {length}", f"Content-Type: {kind}"]
    return "\r\n".join([*lines, "\r\n"]).encode()


def closing(asked: bytes) -> bytes:
    """The same of a client that wants no second answer."""
    return asked.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


def problem(connection: socket.socket) -> tuple[int, str, str]:
    answer = read_to_end(connection)
    assert answer is not None
    assert "\n" not in answer.json["detail"] and answer.headers["retry-after"].isdecimal()
    return answer.status, answer.json["code"], answer.json["detail"]


def form(*pictures: bytes) -> bytes:
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    return b"".join(part + picture + b"\r\n" for picture in pictures) + b"--x--\r\n"


@pytest.mark.parametrize("kind", ["result", "predict", "batch", "camera", "events"])
def test_who_leaves_gives_its_place_back(redis_url: str, tmp_path: Path, kind: str) -> None:
    name = "yolo_gateway_streams" if kind == "events" else "yolo_gateway_waiting"
    bounds = {"MAX_WAITING_PER_CLIENT": "5", "MAX_STREAMS_PER_CLIENT": "5", "VISION_WAIT": str(WAIT_SECONDS)}
    with greedy(redis_url, tmp_path, **bounds) as held:
        place = httpx2.post(f"{held.gateway.url}/predict", content=PICTURE).headers["location"]
        multipart = "multipart/form-data; boundary=x"
        body = form(*[PICTURE] * (2 if kind == "batch" else 1))
        path = "/v1/vision/detection" if kind == "camera" else f"/predict?wait={WAIT_SECONDS}"
        asked = {
            "result": head("GET", f"{place}?wait={WAIT_SECONDS}"),
            "events": head("GET", f"{place}/events"),
        }.get(kind, head("POST", path, len(body), multipart) + body)
        for _ in range(3):
            leaving = [held.open(asked) for _ in range(5)]
            held.until(name, 5)
            for connection in leaving:
                connection.close()
            held.until(name, 0)


@pytest.mark.parametrize("known", [False, True], ids=["unknown", "with a key"])
def test_a_task_that_nobody_knows_of_is_canceled_with_its_connection(
    redis_url: str, tmp_path: Path, known: bool
) -> None:
    with greedy(redis_url, tmp_path) as held, redis.Redis.from_url(redis_url) as connection:
        body = form(PICTURE, PICTURE)
        asked = head("POST", f"/predict?wait={WAIT_SECONDS}", len(body), "multipart/form-data; boundary=x")
        if known:
            asked = asked.replace(b"\r\n\r\n", b"\r\nIdempotency-Key: one\r\n\r\n")
        leaving = held.open(asked + body)
        held.until("yolo_gateway_waiting", 1)
        assert connection.llen(QUEUE_KEY) == 2
        leaving.close()
        held.until("yolo_gateway_waiting", 0)
        time.sleep(0.5)
        assert connection.llen(QUEUE_KEY) == (2 if known else 0)


@pytest.mark.parametrize("kind", ["waiting", "streams"])
def test_who_waits_is_bounded_in_all_and_for_each(redis_url: str, tmp_path: Path, kind: str) -> None:
    bounds = {f"MAX_{kind.upper()}_PER_CLIENT": "3", f"MAX_{kind.upper()}": "4"}
    with greedy(redis_url, tmp_path, **bounds) as held:
        place = httpx2.post(f"{held.gateway.url}/predict", content=PICTURE).headers["location"]
        path = f"{place}?wait={WAIT_SECONDS}" if kind == "waiting" else f"{place}/events"
        asked = head("GET", path)
        for _ in range(3):
            held.open(asked)
        held.until(f"yolo_gateway_{kind}", 3)
        status, code, detail = problem(held.open(closing(asked)))
        assert (status, code) == (429, "rate_limited") and detail.startswith("3 ")
        held.open(asked, "127.0.0.1")
        held.until(f"yolo_gateway_{kind}", 4)
        status, code, detail = problem(held.open(closing(asked), "127.0.0.3"))
        assert (status, code) == (503, "overloaded") and detail.startswith("4 ")
        answer = httpx2.post(f"{held.gateway.url}/predict", content=PICTURE)
        assert answer.status_code == 202, "nothing is held against who does not wait"


def test_connections_are_bounded_in_all_and_for_each(redis_url: str, tmp_path: Path) -> None:
    with greedy(redis_url, tmp_path, MAX_CONNECTIONS_PER_ADDRESS="20", MAX_CONNECTIONS="30") as held:
        for _ in range(20):
            held.open(b"")
        held.until("yolo_gateway_connections", 20)
        status, code, detail = problem(held.open(head("GET", "/livez")))
        assert (status, code) == (429, "rate_limited") and "20 connections of this address" in detail
        assert httpx2.get(f"{held.gateway.url}/livez").status_code == 200
        for number in range(10):
            held.open(b"", f"127.0.1.{1 + number}")
        asked = closing(head("GET", "/livez"))
        assert problem(held.open(asked, "127.0.0.1"))[:2] == (503, "overloaded")
        for number in range(200):
            held.open(b"", f"127.0.2.{1 + number}")
        assert held.metric("yolo_gateway_connections") <= 30 + 100, "those beyond are cut off without an answer"
        assert held.metric("yolo_gateway_connections_dropped_total", reason="connections") >= 200


def test_answers_that_nobody_takes_are_bounded(redis_url: str, tmp_path: Path) -> None:
    size, most = 8_600_000, 40_000_000
    with greedy(redis_url, tmp_path, MAX_UNTAKEN_BYTES=str(most), MAX_UNTAKEN_BYTES_PER_CLIENT="20000000") as held:
        task_id = new_id("")
        with redis.Redis.from_url(redis_url) as connection:
            connection.hset(picture_key(task_id), "image/jpeg", bytes(size))
        asked = head("GET", f"/result/{task_id}/image")
        before = memory(held.gateway.process.pid, "VmRSS")
        untaken = [held.open(asked, receives=4096) for _ in range(12)]
        time.sleep(1)
        assert 20_000_000 < held.metric("yolo_gateway_untaken_bytes") <= most
        for number in range(3, 12):
            untaken.append(held.open(asked, f"127.0.0.{number}", receives=4096))
        time.sleep(1)
        assert held.metric("yolo_gateway_untaken_bytes") <= most
        assert held.metric("yolo_gateway_connections_dropped_total", reason="untaken") > 0
        assert memory(held.gateway.process.pid, "VmRSS") - before < most + 12 * size, (
            "Redis' eight connections keep a picture each"
        )
        held_by_greedy = held.metric("yolo_gateway_untaken_bytes")
        answer = httpx2.get(f"{held.gateway.url}/result/{task_id}/image")
        assert (answer.status_code, len(answer.content)) == (200, size)
        assert held_by_greedy > 0
        for connection in untaken:
            connection.close()
        held.until("yolo_gateway_untaken_bytes", 0)


def test_a_client_that_takes_nothing_gets_no_more(redis_url: str, tmp_path: Path) -> None:
    with greedy(redis_url, tmp_path, MAX_UNTAKEN_BYTES_PER_CLIENT="5000000") as held:
        task_id = new_id("")
        with redis.Redis.from_url(redis_url) as connection:
            connection.hset(picture_key(task_id), "image/jpeg", bytes(8_600_000))
        asked = head("GET", f"/result/{task_id}/image")
        held.open(asked, receives=4096)
        time.sleep(1)
        refused = held.open(closing(asked))
        assert problem(refused)[:2] == (429, "rate_limited")
        assert httpx2.get(f"{held.gateway.url}/result/{task_id}/image").status_code == 200


def test_stalled_uploads_make_room_for_others(redis_url: str, tmp_path: Path) -> None:
    with greedy(redis_url, tmp_path) as held:
        stalled = form(*[PICTURE + bytes(9_900_000)] * 5)[:-1000]
        sent = closing(head("POST", "/predict", len(stalled) + 1000, "multipart/form-data; boundary=x")) + stalled
        ended = [held.open(sent, address) for address in (GREEDY, "127.0.0.3")]
        held.until("yolo_gateway_uploading_bytes", 2 * len(stalled))
        for _ in range(5):
            picture = PICTURE + bytes(9_000_000)
            assert httpx2.post(f"{held.gateway.url}/predict", content=picture).status_code == 202
        assert held.metric("yolo_gateway_uploading_bytes") == len(stalled), "one of both has made room"
        answers = []
        for connection in ended:
            connection.settimeout(1)
            with suppress(TimeoutError):
                answers.append(problem(connection))
        assert [answer[:2] for answer in answers] == [(503, "overloaded")]


def test_uploads_of_one_client_are_bounded(redis_url: str, tmp_path: Path) -> None:
    with greedy(redis_url, tmp_path) as held:
        stalled = form(*[PICTURE + bytes(9_900_000)] * 5)[:-1000]
        sent = closing(head("POST", "/predict", len(stalled) + 1000, "multipart/form-data; boundary=x")) + stalled
        held.open(sent)
        held.until("yolo_gateway_uploading_bytes", len(stalled))
        status, code, detail = problem(held.open(sent))
        assert (status, code) == (429, "rate_limited") and "its share" in detail
        picture = PICTURE + bytes(9_000_000)
        assert httpx2.post(f"{held.gateway.url}/predict", content=picture).status_code == 202


def test_almost_boundaries_hold_nobody_up(redis_url: str, tmp_path: Path) -> None:
    with greedy(redis_url, tmp_path) as held:
        body = form(b"\xff\xd8\xff" + b"--xx" * 2_400_000, *[b"--xx" * 2_400_000] * 4)
        begun = time.monotonic()
        sent = head("POST", "/predict", len(body), "multipart/form-data; boundary=x")
        connection = held.open(closing(sent) + body)
        assert httpx2.get(f"{held.gateway.url}/livez").status_code == 200
        assert time.monotonic() - begun < SOON
        answer = read_to_end(connection)
        assert answer is not None and (answer.status, answer.json["code"]) == (400, "bad_multipart")


def test_gifs_of_50_megapixels_do_not_fill_a_worker(stack: Stack) -> None:
    workers = [pid for pid in children() if b"gateway.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    if not workers:
        pytest.skip("the workers are on another machine")
    stream, frame = io.BytesIO(), Image.new("L", (8192, 6100))
    second = Image.new("L", frame.size, 7)
    frame.save(stream, "GIF", save_all=True, append_images=[second], disposal=2, transparency=0)
    gif = stream.getvalue()
    assert len(gif) < 100_000
    with httpx2.Client(base_url=stack.base_url, timeout=100) as client:
        places = [client.post("/predict", content=gif).headers["location"] for _ in range(8)]
        honest = client.post("/predict?wait=60", content=PICTURE).json()
        views = [client.get(f"{place}?wait=60").json() for place in places]
    assert {view["status"] for view in (honest, *views)} == {"SUCCESS"}
    for pid in workers:
        assert memory(pid, "VmHWM") < 900_000_000, "two at once would need 1.2 GB"


def children() -> list[int]:
    """Processes started by this one, or by one of these."""
    found, parents = [os.getpid()], {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def memory(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024
