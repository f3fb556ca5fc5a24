"""Hosts whose clocks are wrong: ages are judged by Redis'."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
import redis

from gateway import clock
from gateway.clock import Clock, steady
from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import BETWEEN_KEY, EVENTS_CHANNEL, job_key
from gateway.worker.loop import TaskWorker

ROOT = Path(__file__).parents[2]
Start = Callable[..., "tuple[subprocess.Popen[bytes], Path]"]


@pytest.fixture
def skewed(redis_url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a worker whose host's clock is `ahead` seconds ahead."""
    started: list[subprocess.Popen[bytes]] = []

    def start(ahead: float, task_seconds: float = 0) -> "tuple[subprocess.Popen[bytes], Path]":
        log = tmp_path / f"worker.{len(started)}.log"
        command = [sys.executable, "-m", "tests.api.skewed", redis_url, str(ahead), str(task_seconds)]
        with log.open("wb") as file:
            started.append(subprocess.Popen(command, cwd=ROOT, stderr=file))
        return started[-1], log

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def starts(connection: "redis.Redis") -> Iterator[Callable[[], int]]:
    """How often a task has begun so far."""
    with connection.pubsub(ignore_subscribe_messages=True) as events:  # type: ignore[no-untyped-call]
        events.subscribe(EVENTS_CHANNEL)
        seen: list[bytes] = []

        def count() -> int:
            while (message := events.get_message(timeout=0.1)) is not None:
                seen.append(message["data"])
            return sum(each.endswith(b":started") for each in seen)

        count()
        yield count


def until(true: Callable[[], object], seconds: float = 30) -> None:
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at, "it did not come to pass in time"
        time.sleep(0.05)


@pytest.mark.parametrize("ahead", [20, -20])
def test_a_worker_whose_clock_is_wrong_leaves_living_tasks_alone(
    skewed: Start,
    client: httpx2.Client,
    task_id: str,
    connection: "redis.Redis",
    starts: Callable[[], int],
    ahead: float,
) -> None:
    _, right_log = skewed(0, task_seconds=8)
    until(lambda: connection.hget(job_key(task_id), "status") == b"started")
    _, wrong_log = skewed(ahead)
    until(lambda: client.get(f"/result/{task_id}").json()["status"] != "PENDING", 60)
    assert client.get(f"/result/{task_id}").json()["status"] == "SUCCESS"
    assert starts() == 1, "it was put back while it ran"
    how = "ahead of" if ahead > 0 else "behind"
    until(lambda: f"the host's clock is 20.0 s {how} Redis'" in wrong_log.read_text(), 10)
    assert "clock" not in right_log.read_text()


def test_tasks_of_a_worker_whose_clock_is_wrong_live_on(
    skewed: Start, client: httpx2.Client, task_id: str, connection: "redis.Redis", starts: Callable[[], int]
) -> None:
    skewed(-20, task_seconds=8)
    until(lambda: connection.hget(job_key(task_id), "status") == b"started")
    skewed(0)
    until(lambda: client.get(f"/result/{task_id}").json()["status"] != "PENDING", 60)
    assert client.get(f"/result/{task_id}").json()["status"] == "SUCCESS"
    assert starts() == 1, "it was put back while it ran"


def test_status_says_whose_clock_is_wrong(skewed: Start, client: httpx2.Client) -> None:
    skewed(20)
    until(lambda: "worker_clock" in client.get("/status").json().get("warnings", {}))
    warnings = client.get("/status").json()["warnings"]
    assert {name: line for name, line in warnings.items() if "clock" in name} == {
        "worker_clock": "1 of 1 workers do no maintenance: the host's clock is 20.0 s ahead of Redis'; set both by NTP"
    }


def test_a_worker_whose_clock_is_wrong_does_no_maintenance(
    worker: TaskWorker, queue: TaskQueue, connection: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker._maintenance, "server_is_up_for", lambda seconds: True)
    connection.rpush(queue.rq.intermediate_queue_key, "t1")
    monkeypatch.setattr(clock, "is_settled", lambda seconds: False)
    worker._maintain()
    assert not connection.exists(BETWEEN_KEY)
    monkeypatch.undo()
    monkeypatch.setattr(worker._maintenance, "server_is_up_for", lambda seconds: True)
    worker._maintain()
    assert connection.exists(BETWEEN_KEY)


def test_the_clock_follows_redis_whatever_the_host_says() -> None:
    told = Clock(host=lambda: 1_020.0)
    assert (told.now(), told.problem()) == (1_020.0, None), "nothing else is known"
    told.learn((1_000, 500_000), steady())
    assert told.now() == pytest.approx(1_000.5, abs=0.2)
    assert told.host_ahead() == pytest.approx(19.5, abs=0.2)
    assert not told.is_settled(0)


def test_a_slow_answer_does_not_set_the_clock_again() -> None:
    told = Clock(host=lambda: 1_000.0)
    told.learn((1_000, 0), steady())
    told.learn((5_000, 0), steady() - 3)
    assert told.now() == pytest.approx(1_000, abs=0.2)


def test_after_a_jump_of_redis_clock_nobody_is_taken_for_dead_for_a_while() -> None:
    told = Clock(host=lambda: 1_020.0)
    told.learn((1_000, 0), steady())
    told.learn((1_020, 0), steady())
    assert told.problem() is None
    assert told.is_settled(0) and not told.is_settled(15)
