"""The service for the client's tests: the gateway on a real socket, Redis and a worker; only Triton is a fake."""

from collections.abc import Iterator

import msgspec
import pytest
import redis

from gateway.settings import Settings
from tests.api.serving import serving, working
from tests.client.hostile import Hostile
from tests.support.fakes import FakeTriton


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, triton_url="127.0.0.1:1", host="127.0.0.1", rate_limit="")


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
def idle(settings: Settings) -> Iterator[str]:
    """The address of a service whose tasks wait: it has no worker."""
    with serving(settings) as url:
        yield url


@pytest.fixture
def service(settings: Settings, triton: FakeTriton) -> Iterator[str]:
    """The address of a service that answers."""
    with serving(msgspec.structs.replace(settings)) as url, working(settings, triton):
        yield url


@pytest.fixture
def hostile(service: str) -> Iterator[Hostile]:
    """What stands before the service, and does to the first requests what it is told."""
    with Hostile(service) as server:
        yield server


@pytest.fixture
def connection(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url) as connection:
        yield connection
