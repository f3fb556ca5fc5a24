"""The gateway over a real Redis and a real RQ worker; only Triton is a fake."""

from collections.abc import Callable, Iterator

import httpx2
import pytest
import redis

from gateway.claims import TaskQueue
from gateway.jobs import Processor
from gateway.pipeline import Pipeline
from gateway.settings import Settings
from gateway.worker import TaskWorker
from tests.api.clients import client_of
from tests.fakes import FakeTriton

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
