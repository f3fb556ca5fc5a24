"""SIGTERM to the gateway: not ready at once, all else as ever for a while, then what runs ends, exit status 0."""

import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from gateway.settings import Settings
from tests.api.serving import working
from tests.support.fakes import FakeTriton
from tests.support.gateway import Gateway, read_to_end, running_gateway
from tests.support.pictures import encoded

PICTURE = encoded(64, 48)
DRAIN_SECONDS, STOP_SECONDS = 3.0, 9.0
UPLOAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(PICTURE)


def bounds(drain: float = DRAIN_SECONDS) -> dict[str, str]:
    return {"DRAIN_SECONDS": str(drain), "STOP_TIMEOUT": str(max(STOP_SECONDS, drain + 1))}


def ended(gateway: Gateway) -> int:
    status = gateway.process.wait(20)
    assert "Traceback" not in gateway.log.read_text()
    return status


def timed(url: str) -> tuple[float, httpx2.Response]:
    begun = time.monotonic()
    answer = httpx2.get(url, timeout=30)
    return time.monotonic() - begun, answer


def test_a_stopping_gateway_says_so_first_and_then_ends(redis_url: str, tmp_path: Path) -> None:
    with running_gateway(redis_url, tmp_path, **bounds()) as gateway, ThreadPoolExecutor() as pool:
        place = gateway.url + httpx2.post(f"{gateway.url}/predict", content=PICTURE).headers["location"]
        polls = [pool.submit(timed, place + end) for end in ("?wait=60", "?wait=60", "/events")]
        with gateway.connect() as upload:
            upload.sendall(UPLOAD + PICTURE[:20])
            time.sleep(0.5)
            gateway.process.send_signal(signal.SIGTERM)
            stopped_at = time.monotonic()
            time.sleep(0.3)
            ready, taken = httpx2.get(f"{gateway.url}/readyz"), httpx2.post(f"{gateway.url}/predict", content=PICTURE)
            assert httpx2.get(place).json()["status"] == "PENDING"
            assert not any(poll.done() for poll in polls), "who waits goes on to wait"
            time.sleep(DRAIN_SECONDS)
            with pytest.raises(httpx2.ConnectError):
                httpx2.get(f"{gateway.url}/livez")
            upload.sendall(PICTURE[20:])  # it began before the signal
            accepted = read_to_end(upload)
        assert ended(gateway) == 0
        assert time.monotonic() - stopped_at < STOP_SECONDS
    assert (ready.status_code, ready.json()["missing"]) == (503, {"gateway": "it stops"})
    assert (taken.status_code, taken.headers["connection"], ready.headers["connection"]) == (202, "close", "close")
    assert accepted is not None and accepted.status == 202
    for seconds, answer in (poll.result() for poll in polls):
        assert DRAIN_SECONDS < seconds < 20 and answer.status_code == 200 and '"PENDING"' in answer.text


def test_a_request_that_does_not_end_holds_the_end_up_no_longer_than_told(redis_url: str, tmp_path: Path) -> None:
    with (
        running_gateway(redis_url, tmp_path, DRAIN_SECONDS="0", STOP_TIMEOUT="2") as gateway,
        gateway.connect() as slow,
    ):
        slow.sendall(UPLOAD)
        time.sleep(0.3)
        begun = time.monotonic()
        gateway.process.terminate()
        cut = read_to_end(slow)
        assert ended(gateway) == 0
        assert 0.5 < time.monotonic() - begun < 5
    assert cut is not None
    assert (cut.status, cut.json["code"], cut.headers["retry-after"]) == (503, "shutting_down", "1")


def test_a_second_signal_ends_the_draining(redis_url: str, tmp_path: Path) -> None:
    with running_gateway(redis_url, tmp_path, **bounds(drain=60)) as gateway:
        begun = time.monotonic()
        gateway.process.terminate()
        time.sleep(0.5)
        assert gateway.process.poll() is None
        gateway.process.send_signal(signal.SIGINT)
        assert ended(gateway) == 0
        assert time.monotonic() - begun < 5


def test_idle_connections_do_not_hold_the_end_up(redis_url: str, tmp_path: Path) -> None:
    with running_gateway(redis_url, tmp_path, **bounds(drain=0)) as gateway:
        with gateway.connect(), gateway.connect() as asked, gateway.connect() as begun:
            asked.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert asked.recv(1)
            begun.sendall(b"GET /livez HTTP/1.1\r\n")
            signalled = time.monotonic()
            gateway.process.terminate()
            assert ended(gateway) == 0
        assert time.monotonic() - signalled < 3


def test_a_request_on_its_way_is_answered(redis_url: str, tmp_path: Path) -> None:
    """The connection is there when the port closes, the request is not yet."""
    with running_gateway(redis_url, tmp_path, **bounds(drain=0.5)) as gateway, gateway.connect() as late:
        gateway.process.terminate()
        with pytest.raises(ConnectionRefusedError):
            for _ in range(500):
                gateway.connect().close()
                time.sleep(0.01)
        late.sendall(UPLOAD + PICTURE)
        assert late.recv(100).startswith(b"HTTP/1.1 202 ")
        assert ended(gateway) == 0


def test_a_rolling_restart_loses_nothing(redis_url: str, tmp_path: Path) -> None:
    """Two gateways behind a balancer that goes by connection errors alone; one is replaced under load."""
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    stop, accepted, unexpected = threading.Event(), [], []

    def load(ports: list[int]) -> None:
        with httpx2.Client(timeout=10) as client:
            turn = 0
            while not stop.wait(0.02):
                turn += 1
                try:
                    answer = client.post(f"http://127.0.0.1:{ports[turn % len(ports)]}/predict", content=PICTURE)
                except httpx2.ConnectError:
                    continue  # the port is closed: the next one
                except httpx2.HTTPError as error:
                    unexpected.append(repr(error))
                    continue
                if answer.status_code == 202:
                    accepted.append(answer.json()["task_id"])
                else:
                    unexpected.append(answer.text)

    with (
        working(Settings(redis_url=redis_url), FakeTriton()),
        running_gateway(redis_url, folders[0], **bounds(drain=0.5)) as first,
        running_gateway(redis_url, folders[1], **bounds(drain=0.5)) as second,
        ThreadPoolExecutor() as pool,
    ):
        clients: list[Future[None]] = [pool.submit(load, [first.port, second.port]) for _ in range(3)]
        time.sleep(1)
        first.process.terminate()
        assert ended(first) == 0
        with running_gateway(redis_url, folders[0], **bounds()) as replacement:
            time.sleep(0.5)
            stop.set()
            for client in clients:
                client.result()
            assert unexpected == []
            assert len(accepted) > 20
            with httpx2.Client(base_url=replacement.url, timeout=30) as client_of_all:
                for task_id in accepted:
                    body = client_of_all.get(f"/result/{task_id}", params={"wait": 20}).json()
                    assert body["status"] == "SUCCESS"
