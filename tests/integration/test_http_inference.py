"""Inference over HTTP, between a worker's client and a real Triton: as good as over gRPC, and gRPC where it fails."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from gateway.triton import http_inference
from gateway.triton.client import TritonBusy, TritonClient, TritonUnavailable
from gateway.triton.connection import control_headers, memory_headers
from gateway.triton.http_inference import HttpFailed, HttpInference
from gateway.triton.shared_memory import FOLDER, Region, SharedMemory, prefix
from gateway.triton.spec import OUTPUT
from local.ports import free_ports
from local.triton import Keys
from tests.support import tiny
from tests.support.stack import Triton, running_triton

KEYS = Keys(control="0123456789abcdef", memory="fedcba9876543210")
SHAPE, SIZE = (64, 96, 3), 3 * 640**2
SECONDS = 60  # longest wait for what is to happen soon


def failing() -> onnx.ModelProto:
    """Cannot be run with any image."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], [1, 7, 6])
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["pixels", "shape"], ["detections"]),
    ]
    return tiny.model("failing", nodes, [shape])


def rowless() -> onnx.ModelProto:
    """Finds nothing at all, not even candidates."""
    nodes = [
        helper.make_node("Shape", ["images"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "rows"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["detections"]),
    ]
    return tiny.model("rowless", nodes, [helper.make_tensor("rows", TensorProto.INT64, [2], [0, 6])], rows="rows")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in ("tiny", "short_queue", "unloaded"):
        tiny.write(folder, name)
    tiny.write(folder, "failing", failing())
    tiny.write(folder, "rowless", rowless())
    changes = {
        "short_queue": ("dynamic_batching { }", "dynamic_batching { default_queue_policy { max_queue_size: 1 } }"),
        "rowless": ("dims: [ 1000, 6 ]", "dims: [ -1, 6 ]"),
    }
    for name, (old, new) in changes.items():
        config = folder / name / "config.pbtxt"
        config.write_text(config.read_text().replace(old, new).replace("count: 2", "count: 1"))
    return folder


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(repository, tmp_path_factory.mktemp("triton"), KEYS) as server:
        with InferenceServerClient(server.url) as admin:
            admin.unload_model("unloaded", headers=control_headers(KEYS.control))
        yield server


@pytest.fixture
def admin(server: Triton) -> Iterator[InferenceServerClient]:
    """Nothing is left in /dev/shm when the test is over."""
    with InferenceServerClient(server.url) as client:
        yield client
        client.unregister_system_shared_memory(headers=memory_headers(KEYS.memory))
    assert names(server) == set()


@pytest.fixture
def client(server: Triton, admin: InferenceServerClient) -> Iterator[TritonClient]:
    client = TritonClient(server.url, 10, KEYS.memory, server.http_address)
    yield client
    client.close()


def names(server: Triton) -> set[str]:
    """The regions that there are."""
    return {path.name for path in FOLDER.glob(f"{prefix(server.url)}*")}


def connections(server: Triton) -> int:
    """How many this process has open to Triton's HTTP port."""
    port = int(server.http_address.rpartition(":")[2])
    found = psutil.Process().net_connections("tcp")
    return sum(each.raddr[1] == port for each in found if each.raddr and each.status == psutil.CONN_ESTABLISHED)


def answer(client: TritonClient, value: int, shape: tuple[int, ...] = SHAPE) -> float:
    """What `tiny` says of a picture of one colour: its value."""
    return float(client.infer(client.spec("tiny"), np.full(shape, value, np.uint8)).rows[-1, -1])


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_images_are_asked_for_over_http(server: Triton, client: TritonClient) -> None:
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(lambda value: answer(client, value), range(100))) == list(range(100))
    assert 1 <= connections(server) <= 3
    wait_until(lambda: connections(server) == 0, "those that have nothing to do are closed")
    assert answer(client, 7) == 7


def test_without_shared_memory_all_goes_over_grpc(server: Triton) -> None:
    client = TritonClient(server.url, 10, None, server.http_address)
    assert answer(client, 7) == 7
    assert connections(server) == 0
    client.close()


def test_an_answer_without_rows(server: Triton, admin: InferenceServerClient) -> None:
    memory, http = SharedMemory(admin, server.url, KEYS.memory), HttpInference(server.http_address)
    with memory.lent(SIZE) as region:
        assert region is not None
        found = http.infer(region, SHAPE, "rowless", "", time.monotonic() + 10)
    assert found.version == "1" and found.rows.shape == (0, 6) and found.rows.dtype == np.float32
    http.close()
    memory.close()


def test_rows_are_those_of_grpc_and_a_copy(server: Triton, client: TritonClient) -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    other = TritonClient(server.url, 10)
    found, expected = (each.infer(each.spec("tiny"), image) for each in (client, other))
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert found.spec == expected.spec
    before = found.rows.copy()
    assert answer(client, 1, (480, 640, 3)) == 1
    np.testing.assert_array_equal(found.rows, before)
    other.close()


ERRORS = {
    "no such model": ("nowhere", "", SHAPE),
    "no such version": ("tiny", "7", SHAPE),
    "unloaded": ("unloaded", "", SHAPE),
    "another shape": ("tiny", "", (64, 96, 4)),
    "more than the region has": ("tiny", "", (6400, 9600, 3)),
    "cannot be run": ("failing", "", SHAPE),
}


@pytest.mark.parametrize("asked", ERRORS.values(), ids=ERRORS)
def test_an_error_is_that_of_grpc(
    server: Triton, admin: InferenceServerClient, asked: tuple[str, str, tuple[int, ...]]
) -> None:
    model, version, shape = asked
    memory, http = SharedMemory(admin, server.url, KEYS.memory), HttpInference(server.http_address)
    with memory.lent(SIZE) as region:
        assert region is not None
        with pytest.raises(InferenceServerException) as expected:
            admin.infer(model, [region.tensor(shape)], version, outputs=[InferRequestedOutput(OUTPUT)])
        with pytest.raises(InferenceServerException) as found:
            http.infer(region, shape, model, version, time.monotonic() + 10)
    assert (found.value.status(), found.value.message()) == (expected.value.status(), expected.value.message())
    http.close()
    memory.close()


def test_an_unknown_region_is_refused(server: Triton, tmp_path: Path) -> None:
    region, http = Region(tmp_path / "yolo_images_unknown", SIZE), HttpInference(server.http_address)
    with pytest.raises(InferenceServerException, match="Unable to find shared memory region") as refusal:
        http.infer(region, SHAPE, "tiny", "", time.monotonic() + 10)
    assert refusal.value.status() == "StatusCode.NOT_FOUND"
    http.close()
    region.remove()


def test_a_full_queue_is_told_as_such(client: TritonClient) -> None:
    spec, image = client.spec("short_queue"), np.zeros((1280, 1280, 3), np.uint8)

    def asked(_: int) -> str:
        try:
            client.infer(spec, image)
        except TritonBusy as error:
            return str(error)
        return "answered"

    with ThreadPoolExecutor(16) as pool:
        answers = set(pool.map(asked, range(96)))
    assert "answered" in answers and any("Exceeds maximum queue size" in each for each in answers)


def test_requests_that_were_given_up_leave_triton_well(
    server: Triton, admin: InferenceServerClient, client: TritonClient
) -> None:
    memory, http = SharedMemory(admin, server.url, KEYS.memory, most_dropped=1000), HttpInference(server.http_address)
    shape, given_up = (1280, 1280, 3), list[Exception]()

    def give_up(_: int) -> None:
        try:
            with memory.lent(1280 * 1280 * 3) as region:
                if region is not None:
                    http.infer(region, shape, "tiny", "", time.monotonic() + 0.002)
        except InferenceServerException as error:
            assert error.status() == "StatusCode.DEADLINE_EXCEEDED"
            given_up.append(error)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(give_up, range(100)))
    assert given_up
    assert [answer(client, value) for value in range(20)] == list(range(20))
    http.close()

    def let_go() -> bool:
        memory.close()
        return not memory._dropped

    wait_until(let_go, "Triton lets go of what it has read")


def test_a_frozen_triton_is_away_and_comes_back(server: Triton, admin: InferenceServerClient) -> None:
    client = TritonClient(server.url, 2, KEYS.memory, server.http_address)
    assert answer(client, 1) == 1
    regions = names(server)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        with pytest.raises(TritonUnavailable, match="Deadline Exceeded"):
            answer(client, 2)
        assert 2 <= time.monotonic() - begun < 20
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert [answer(client, value) for value in (3, 4, 5)] == [3, 4, 5]
    assert not regions & names(server), "Triton may still read the image that was given up"
    client.close()


def test_a_killed_triton_is_away_and_its_successor_is_asked_over_http(
    tiny_repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    grpc_port, http_port = free_ports(2)
    with running_triton(tiny_repository, tmp_path / "first", KEYS, (), grpc_port, http_port) as first:
        client = TritonClient(first.url, 10, KEYS.memory, first.http_address)
        assert answer(client, 1) == 1
        os.kill(first.pid, signal.SIGKILL)
        with pytest.raises(TritonUnavailable, match="does not answer"):
            answer(client, 2)
    with running_triton(tiny_repository, tmp_path / "second", KEYS, (), grpc_port, http_port) as second:
        wait_until(lambda: client.outage() == "", "gRPC connects again")
        assert [answer(client, value) for value in range(10)] == list(range(10))
        wait_until(lambda: answer(client, 3) == 3 and connections(second) > 0, "HTTP is tried again")
        client.close()
        assert names(second) == set()
    assert "TRITON_HTTP_URL" not in caplog.text, "an outage of Triton is none of HTTP"


def test_a_triton_that_stops_waits_for_no_connection(tiny_repository: Path, tmp_path: Path) -> None:
    with running_triton(tiny_repository, tmp_path, KEYS) as server:
        client, stopping = TritonClient(server.url, 10, KEYS.memory, server.http_address), threading.Event()
        idle = TritonClient(server.url, 10, KEYS.memory, server.http_address)
        assert answer(idle, 1) == 1

        def load() -> list[float]:
            answers = []
            with suppress(TritonUnavailable):
                while not stopping.is_set():
                    answers.append(answer(client, 1))
            return answers

        with ThreadPoolExecutor(2) as threads:
            loads = [threads.submit(load) for _ in range(2)]
            wait_until(lambda: connections(server) >= 2, "the load begins")
            os.kill(server.pid, signal.SIGTERM)
            wait_until(lambda: client.outage() != "", "it ends")
            stopping.set()
        assert all(set(each.result()) == {1} for each in loads)
        client.close()
        idle.close()
    waits = [
        int(line.partition("Timeout ")[2].partition(":")[0])
        for line in server.log.read_text().splitlines()
        if "HTTP service connections" in line
    ]
    assert min(waits, default=10) > 2, "of the ten seconds that it gives to what is open"


def say(connection: socket.socket, status: bytes, body: bytes) -> None:
    connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))


def refuse(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    say(connection, b"403 Forbidden", b'{"error":"it is forbidden"}')


def hang_up(connection: socket.socket) -> None:
    connection.recv(1 << 16)


def cut(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")


def mumble(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"\x16\x03\x01 is no HTTP")


def mislead(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    say(connection, b"200 OK", b'{"status": "I am no Triton"}')


@contextmanager
def listening(port: int, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """Something at that port of 127.0.0.1 which `talk`s to each who connects."""
    with socket.create_server(("127.0.0.1", port)) as door:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = door.accept()
                    with connection:
                        talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        door.shutdown(socket.SHUT_RDWR)
    thread.join(SECONDS)


TALKS = {
    "refuses": (refuse, "it is forbidden"),
    "hangs up": (hang_up, "closes the connection"),
    "is cut": (cut, "closes the connection"),
    "is no HTTP": (mumble, "gives no HTTP answer"),
    "is another service": (mislead, "gives another answer than was asked for"),
}


@pytest.mark.parametrize(("talk", "words"), TALKS.values(), ids=TALKS)
def test_what_fails_over_http_is_answered_over_grpc(
    server: Triton,
    admin: InferenceServerClient,
    talk: Callable[[socket.socket], None],
    words: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_inference, "_LONGEST_PAUSE_SECONDS", 0.2)
    (port,) = free_ports(1)
    client = TritonClient(server.url, 10, KEYS.memory, f"127.0.0.1:{port}")
    with listening(port, talk), caplog.at_level(logging.INFO):
        for value in range(6):
            before = names(server)
            assert answer(client, value) == value
            assert value == 0 or not before & names(server), "Triton may still read what HTTP was asked for"
            time.sleep(0.3)
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert f"TRITON_HTTP_URL=127.0.0.1:{port}" in warning and words in warning
    client.close()


def test_http_is_used_again_once_it_answers(
    server: Triton, admin: InferenceServerClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_inference, "_LONGEST_PAUSE_SECONDS", 0.2)
    (port,) = free_ports(1)
    client = TritonClient(server.url, 10, KEYS.memory, f"127.0.0.1:{port}")

    def relay(connection: socket.socket) -> None:
        host, _, theirs = server.http_address.rpartition(":")
        with socket.create_connection((host, int(theirs))) as triton:
            while request := connection.recv(1 << 16):
                triton.sendall(request)
                time.sleep(0.2)
                connection.sendall(triton.recv(1 << 20))

    with caplog.at_level(logging.INFO):
        for value in range(4):
            assert answer(client, value) == value
            time.sleep(0.3)
        with listening(port, relay):
            for value in range(4):
                assert answer(client, value) == value
            assert connections(server) == 1
            client.close()
    messages = [record.message for record in caplog.records if "TRITON_HTTP_URL" in record.message]
    assert [message.split(":")[0] for message in messages] == [
        "Triton is asked over gRPC only",
        "Triton answers at TRITON_HTTP_URL=127.0.0.1",
    ]


def test_what_nobody_answers_has_failed(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    region, http = Region(tmp_path / "yolo_images_nobody", 100), HttpInference(f"127.0.0.1:{port}")
    with pytest.raises(HttpFailed, match="does not answer: Connection refused"):
        http.infer(region, (1, 1, 3), "tiny", "", time.monotonic() + 10)
    region.remove()
