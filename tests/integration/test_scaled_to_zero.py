"""The real parts with no worker and no Triton: uploads are accepted, and end once these come."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from local.stack import Stack, commands, log_files, on_free_ports
from tests.support import tiny
from tests.support.pictures import encoded

PICTURE = encoded(64, 48)
SECONDS = 60


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Nothing of it runs yet; its log files are in `tmp_path`."""
    tiny.write(tmp_path / "models", "tiny", tiny.finder())
    environment = on_free_ports("tiny", tmp_path / "models", tmp_path)
    stack = Stack(commands(tmp_path, 1, "redis", "triton", "gateway"), environment, log_files(tmp_path))
    yield stack
    stack.stop()


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx2.Client]:
    """Of a gateway that has a Redis and nothing else."""
    stack.start("redis", "gateway")
    with httpx2.Client(base_url=f"http://127.0.0.1:{stack._environment['PORT']}", timeout=20) as client:
        until(lambda: stack.missing() is not None and client.get("/readyz").status_code == 200, stack)
        yield client


def until(true: Callable[[], bool], stack: Stack) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, stack.tails()
        time.sleep(0.1)


def upload(http: httpx2.Client, query: str = "") -> str:
    answer = http.post(f"/predict{query}", content=PICTURE)
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


@pytest.mark.parametrize("first", ["worker.1", "triton"])
def test_uploads_are_accepted_and_end_when_workers_and_triton_come(
    stack: Stack, http: httpx2.Client, first: str
) -> None:
    kinds = {"worker.1": "worker", "triton": "triton"}
    (later,) = kinds.keys() - {first}
    places = [upload(http), upload(http, "?model=tiny")]
    assert set(http.get("/status").json()["missing"]) == {"worker", "triton"}
    stack.start(first)
    until(lambda: set(stack.missing() or {}) == {kinds[later]}, stack)
    places.append(upload(http))
    time.sleep(2)  # a worker without Triton has taken them by now
    told = http.get("/status").json()["queue"]
    assert (told["open"], told["queued"]) == (3, 1 if first == "worker.1" else 3), "the two that run count as open"
    assert [http.get(place).json()["status"] for place in places] == ["PENDING"] * 3
    assert http.get("/readyz").status_code == 200
    stack.start(later)
    for place in places:
        ended = http.get(place, params={"wait": "60"}, timeout=70).json()
        assert ended["status"] == "SUCCESS", stack.tails()
    until(lambda: stack.missing() == {}, stack)
    assert http.get("/status").json()["queue"] == {"open": 0, "queued": 0, "webhooks": 0}


def test_a_gateway_whose_redis_comes_later_is_alive_and_then_ready(stack: Stack) -> None:
    stack.start("gateway")
    with httpx2.Client(base_url=f"http://127.0.0.1:{stack._environment['PORT']}", timeout=20) as client:
        until(lambda: stack.missing() is not None, stack)
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").json()["missing"] == {"redis": "does not answer"}
        stack.start("redis")
        until(lambda: client.get("/readyz").status_code == 200, stack)
        upload(client)
