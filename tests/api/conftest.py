"""The gateway over a real Redis and a real RQ worker; only Triton is a fake."""

from collections.abc import Callable, Iterator

import httpx2
import pytest
import redis

from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import WEBHOOKS_KEY
from gateway.settings import Settings
from gateway.worker.loop import TaskWorker
from gateway.worker.pipeline import Pipeline
from gateway.worker.processor import Processor
from tests.api.clients import client_of
from tests.api.receiving import Empty, until
from tests.api.submit import submit
from tests.support.fakes import FakeTriton
from tests.support.pictures import encoded

NO_TRITON = "127.0.0.1:1"


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, triton_url=NO_TRITON, max_image_bytes=500_000, max_image_side=2_000)


@pytest.fixture
def client(settings: Settings) -> Iterator[httpx2.Client]:
    """Holds every answer against /openapi.json."""
    with client_of(settings) as client:
        yield client


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
def connection(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture
def work(settings: Settings, triton: FakeTriton, connection: "redis.Redis") -> Callable[[], None]:
    """Runs a worker until the queue is empty."""

    def run() -> None:
        processor = Processor(Pipeline(triton, settings), settings)
        TaskWorker(TaskQueue(connection, settings), processor, settings).run(burst=True)

    return run


@pytest.fixture
def queue(settings: Settings, connection: "redis.Redis") -> TaskQueue:
    return TaskQueue(connection, settings)


@pytest.fixture
def worker(settings: Settings, queue: TaskQueue, triton: FakeTriton) -> TaskWorker:
    return TaskWorker(queue, Processor(Pipeline(triton, settings), settings), settings)


@pytest.fixture
def submitted(settings: Settings) -> Callable[[], str]:
    """Has a task accepted, and gives its id."""
    return lambda: submit(settings, encoded(64, 48))


@pytest.fixture
def task_id(submitted: Callable[[], str]) -> str:
    return submitted()


@pytest.fixture
def until_empty(connection: "redis.Redis") -> Empty:
    """Waits until nothing is left to deliver."""
    return lambda: until(lambda: not connection.exists(WEBHOOKS_KEY), 20)
