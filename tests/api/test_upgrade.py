"""Gateways and workers of two versions on one Redis: workers first on the way up, last on the way down."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import httpx2
import pytest
import redis

from gateway.queue.records import FORMAT
from gateway.queue.task_queue import TaskQueue
from gateway.queue.workers import KNOWN_FORMAT
from gateway.redis_names import OPEN_BYTES_KEY, OPEN_KEY, TURNS
from gateway.settings import Settings
from gateway.worker.loop import TaskWorker
from tests.api.clients import client_of
from tests.api.submit import submit
from tests.support.pictures import encoded

ROOT = Path(__file__).parents[2]
BEFORE = "1530fbc68f9bacf8edaaa0d2cf2a14ab6aa71a16"  # the last version whose tasks have no format
PICTURE = encoded(64, 48)

SUBMIT = """
from gateway.settings import Settings
from tests.api.submit import submit
from tests.support.pictures import encoded
print(*(submit(Settings(redis_url={url!r}), encoded(64, 48)) for _ in range(5)))
"""
WORK = """
import redis
from gateway.queue.task_queue import TaskQueue
from gateway.settings import Settings
from gateway.worker.loop import TaskWorker
from gateway.worker.pipeline import Pipeline
from gateway.worker.processor import Processor
from tests.support.fakes import FakeTriton
settings = Settings(redis_url={url!r})
queue = TaskQueue(redis.Redis.from_url(settings.redis_url), settings)
TaskWorker(queue, Processor(Pipeline(FakeTriton(), settings), settings), settings).run(burst=True)
"""

ALIVE = """
import redis
from gateway.queue.task_queue import TaskQueue
from gateway.settings import Settings
from gateway.worker.loop import TaskWorker
from gateway.worker.pipeline import Pipeline
from gateway.worker.processor import Processor
from tests.support.fakes import FakeTriton
settings = Settings(redis_url={url!r})
queue = TaskQueue(redis.Redis.from_url(settings.redis_url), settings)
worker = TaskWorker(queue, Processor(Pipeline(FakeTriton(), settings), settings), settings)
worker.register_birth()
print(worker.key)
"""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Runs a program on the version before."""
    packed = subprocess.run(["git", "archive", BEFORE, "gateway", "tests"], cwd=ROOT, capture_output=True)
    if packed.returncode:
        pytest.skip("the version before is not in this checkout's history")
    place = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(place, filter="data")

    def run(program: str) -> str:
        settings = {**os.environ, "PYTHONPATH": str(place)}
        done = subprocess.run([sys.executable, "-c", program], cwd=place, env=settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def ends(client: httpx2.Client, ids: list[str]) -> list[str]:
    return [client.get(f"/result/{task_id}").json()["status"] for task_id in ids]


def nothing_is_left(connection: "redis.Redis") -> bool:
    return connection.exists(OPEN_KEY, *TURNS) == 0 and int(connection.get(OPEN_BYTES_KEY) or 0) == 0


def test_new_workers_run_what_gateways_of_before_have_accepted(
    before: Callable[[str], str],
    redis_url: str,
    client: httpx2.Client,
    work: Callable[[], None],
    connection: "redis.Redis",
) -> None:
    ids = before(SUBMIT.format(url=redis_url)).split()
    work()
    assert ends(client, ids) == ["SUCCESS"] * 5 and nothing_is_left(connection)


def test_workers_of_before_run_what_new_gateways_have_accepted(
    before: Callable[[str], str], redis_url: str, settings: Settings, client: httpx2.Client, connection: "redis.Redis"
) -> None:
    ids = [submit(settings, PICTURE) for _ in range(5)]
    before(WORK.format(url=redis_url))
    assert ends(client, ids) == ["SUCCESS"] * 5
    ids = [submit(settings, PICTURE) for _ in range(5)]  # an empty ledger forgets what workers of before have left
    TaskQueue(connection, settings).claim(0, "worker")
    before(WORK.format(url=redis_url))
    assert ends(client, ids[1:]) == ["SUCCESS"] * 4


def test_workers_of_before_are_told_of_as_long_as_they_live(
    before: Callable[[str], str],
    redis_url: str,
    settings: Settings,
    worker: TaskWorker,
    connection: "redis.Redis",
    caplog: pytest.LogCaptureFixture,
) -> None:
    (key,) = before(ALIVE.format(url=redis_url)).split()
    worker.register_birth()  # type: ignore[no-untyped-call]
    connection.expire(key, 60)

    def warned() -> str:
        with client_of(settings) as client:
            return str(client.get("/status").json().get("warnings", {}).get("worker_version"))

    said = warned()
    assert said.startswith("1 of 2 workers are of an older version: they do not say which format of tasks they know")
    assert f"this gateway writes {FORMAT}" in said and caplog.messages.count(said) == 1
    connection.hset(key, KNOWN_FORMAT, FORMAT - 1)
    assert f"they know tasks up to format {FORMAT - 1}, this gateway writes {FORMAT}" in warned()
    connection.delete(key)
    assert warned() == "None"
    connection.hset(worker.key, KNOWN_FORMAT, FORMAT + 1)
    assert warned() == "None", "newer workers know what gateways of before write"


def test_tasks_of_a_newer_version_are_given_back(
    settings: Settings,
    worker: TaskWorker,
    client: httpx2.Client,
    connection: "redis.Redis",
    queue: TaskQueue,
    caplog: pytest.LogCaptureFixture,
) -> None:
    newer = submit(settings, PICTURE, format=FORMAT + 1)
    other = submit(settings, PICTURE, format=FORMAT)
    for _ in range(3):
        claim = queue.claim(0, worker.name)
        assert claim is not None
        worker.processor.stopping.set()  # or it would wait for others to have it
        worker._run(claim)
    assert ends(client, [newer, other]) == ["PENDING", "SUCCESS"]
    assert client.get(f"/result/{newer}").json()["state"] == "queued"
    assert len([each for each in caplog.messages if "that a newer gateway has written" in each]) == 1
