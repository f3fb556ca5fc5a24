"""The worker itself: its threads, its heartbeat, how it stops; over a real Redis."""

import threading
import time
from collections.abc import Callable
from typing import ClassVar

import httpx2
import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import redis

from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import job_key
from gateway.settings import Settings
from gateway.triton.client import Inference
from gateway.triton.shared_memory import Canvas
from gateway.triton.spec import ModelSpec
from gateway.vision import decode
from gateway.worker.loop import TaskWorker, connect
from gateway.worker.pipeline import Pipeline
from gateway.worker.processor import Processor
from tests.api.clients import status
from tests.api.processes import until
from tests.api.submit import submit
from tests.support.fakes import FakeTriton
from tests.support.pictures import encoded


class CrowdedTriton(FakeTriton):
    """Takes its time, and notes with each answer how many images it has at once."""

    def __init__(self, seconds: float = 0.2, outages: int = 0) -> None:
        super().__init__(outages=outages)
        self.together: list[int] = []
        self._seconds, self._lock, self._now = seconds, threading.Lock(), 0

    def infer(
        self, spec: ModelSpec, image: npt.NDArray[np.uint8], version: str = "", canvas: Canvas | None = None
    ) -> Inference:
        answer = super().infer(spec, image, version)
        with self._lock:
            self._now += 1
        time.sleep(self._seconds)
        with self._lock:
            self.together.append(self._now)
            self._now -= 1
        return answer


def test_nobody_is_taken_for_dead_by_a_worker_that_was_late_itself(
    settings: Settings, queue: TaskQueue, connection: "redis.Redis"
) -> None:
    class Late(TaskWorker):
        told: ClassVar[list[str]] = []

        def _keep_fresh(self) -> None:
            if self.told.count("beat") == 1:
                time.sleep(1.1)  # Redis hung
            super()._keep_fresh()
            self.told.append("beat")

        def _maintain(self) -> None:
            self.told.append("maintenance")

    quick = msgspec.structs.replace(settings, worker_ttl=2)
    worker = Late(queue, Processor(Pipeline(FakeTriton(), quick), quick), quick)
    thread = threading.Thread(target=worker.run)
    thread.start()
    time.sleep(3.5)
    worker.stop()
    thread.join()
    assert worker.told[:5] == ["beat", "maintenance", "beat", "beat", "maintenance"]


def test_a_worker_does_not_wait_for_long_for_a_redis_that_hangs(settings: Settings) -> None:
    with connect(settings) as connection:
        TaskWorker(TaskQueue(connection, settings), Processor(Pipeline(FakeTriton(), settings), settings), settings)
        assert connection.connection_pool.connection_kwargs["socket_timeout"] < settings.worker_ttl


class TestAlone:
    @pytest.fixture
    def triton(self) -> CrowdedTriton:
        return CrowdedTriton()

    def test_a_task_that_was_lost_before_runs_with_no_other(
        self,
        queue: TaskQueue,
        settings: Settings,
        triton: CrowdedTriton,
        connection: "redis.Redis",
        client: httpx2.Client,
        submitted: Callable[[], str],
    ) -> None:
        ids = [submitted() for _ in range(7)]
        connection.hset(job_key(ids[3]), "retries_left", 1)
        three = msgspec.structs.replace(settings, worker_tasks=3)
        TaskWorker(queue, Processor(Pipeline(triton, three), three), three).run(burst=True)
        assert [status(client, task_id) for task_id in ids] == ["SUCCESS"] * 7
        assert triton.together[3] == 1
        assert max(triton.together) > 1, "the others do share the worker"


def test_a_try_is_timed_and_waiting_for_triton_is_not(settings: Settings, queue: TaskQueue, task_id: str) -> None:
    triton = CrowdedTriton(seconds=0.6, outages=1)
    processor = Processor(Pipeline(triton, settings), settings)
    claim = queue.claim(0, "worker")
    assert claim is not None and processor.longest_try() < 0.01
    running = threading.Thread(target=processor.process, args=[claim])
    running.start()
    time.sleep(0.4)
    assert 0.2 < processor.longest_try() < 0.6, "the first try, of before the outage, does not count"
    running.join()
    assert processor.longest_try() < 0.01


class TestStopping:
    @pytest.fixture
    def triton(self) -> FakeTriton:
        return FakeTriton(outages=1_000_000)

    def test_a_stopping_worker_gives_back_what_waits_for_triton(
        self, worker: TaskWorker, queue: TaskQueue, task_id: str, connection: "redis.Redis"
    ) -> None:
        running = threading.Thread(target=worker.run)
        running.start()
        deadline = time.monotonic() + 5
        while not worker.executions and time.monotonic() < deadline:
            time.sleep(0.02)
        worker.stop()
        running.join(timeout=10)
        assert not running.is_alive()
        assert connection.zcard(queue.rq.started_job_registry.key) == 0
        claim = queue.claim(0, "worker")
        assert claim is not None and claim.task_id == task_id


def test_large_pictures_hold_up_nobody(
    settings: Settings,
    queue: TaskQueue,
    connection: "redis.Redis",
    client: httpx2.Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two of them are decoded, and their places are others'; the third keeps its own."""
    small, large = encoded(64, 48), encoded(640, 480)
    decoded, goes_on = decode.decode_with_warnings, threading.Event()

    def slow(data: bytes, reduced: int) -> decode.Decoded:
        if data == large:
            assert goes_on.wait(30)
        return decoded(data, reduced)

    monkeypatch.setattr("gateway.worker.pipeline.decode_with_warnings", slow)
    own = msgspec.structs.replace(settings, worker_tasks=2, max_decoding_bytes=4_000_000)
    worker = TaskWorker(queue, Processor(Pipeline(FakeTriton(), own), own), own)
    first = [submit(settings, large) for _ in range(3)]
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        until(lambda: len(worker.executions) == 3)
        others = [submit(settings, small) for _ in range(5)]
        until(lambda: [status(client, task_id) for task_id in others] == ["SUCCESS"] * 5)
        assert {status(client, task_id) for task_id in first} == {"PENDING"} and len(worker.executions) == 3
        last = [submit(settings, large), submit(settings, small)]
        until(lambda: len(worker.executions) == 4)
        time.sleep(0.3)
        assert status(client, last[1]) == "PENDING", "no more than the places that there are"
        goes_on.set()
        until(lambda: [status(client, task_id) for task_id in first + last] == ["SUCCESS"] * 5)
    finally:
        goes_on.set()
        worker.stop()
        thread.join()


def test_a_large_picture_that_runs_alone_waits_for_nobody_in_vain(
    settings: Settings,
    queue: TaskQueue,
    connection: "redis.Redis",
    client: httpx2.Client,
) -> None:
    own = msgspec.structs.replace(settings, worker_tasks=1, max_decoding_bytes=1)  # each picture is a large one
    ids = [submit(settings, encoded(64, 48)) for _ in range(6)]
    connection.hset(job_key(ids[2]), "retries_left", 1)
    TaskWorker(queue, Processor(Pipeline(CrowdedTriton(), own), own), own).run(burst=True)
    assert [status(client, task_id) for task_id in ids] == ["SUCCESS"] * 6
