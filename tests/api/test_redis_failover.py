"""What REDIS_REPLICAS promises: a primary that is killed under load takes no accepted task with it."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from gateway.settings import Settings
from tests.api.clients import client_of
from tests.api.conftest import NO_TRITON
from tests.api.serving import working
from tests.support.fakes import FakeTriton
from tests.support.gateway import Gateway, running_gateway
from tests.support.pictures import encoded
from tests.support.redis_servers import Server, running_redis, running_replica, running_sentinels

SMALL = encoded(64, 48)
LARGE = os.urandom(600_000)  # past the scripts, in a transaction
TASKS, KILL_AFTER, CLIENTS = 2_000, 800, 8
LOAD_SECONDS, ENDED_SECONDS = 240, 120


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    with running_redis(tmp_path) as primary, running_replica(tmp_path, primary) as replica:
        yield primary, replica


def picture(large: bool) -> dict[str, tuple[str, bytes]]:
    return {"image": ("a.jpg", SMALL + LARGE if large else SMALL)}


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_a_202_waits_for_the_replica(servers: tuple[Server, Server], large: bool) -> None:
    primary, replica = servers
    settings = Settings(redis_url=primary.url, triton_url=NO_TRITON, redis_replicas=1)
    key = {"Idempotency-Key": "once"}
    with client_of(settings) as client, primary.connect() as connection:
        assert client.post("/predict", files=picture(large)).status_code == 202
        os.kill(replica.process.pid, signal.SIGSTOP)
        try:
            # What is known already waits as well, also on a connection that has written nothing, and in a full Redis.
            for most_bytes in (0, 0, 1):
                connection.config_set("maxmemory", most_bytes)
                with client_of(settings) as another:
                    answer = another.post("/predict", files=picture(large), headers=key)
                assert answer.status_code == 503 and "same Idempotency-Key" in answer.json()["detail"]
        finally:
            connection.config_set("maxmemory", 0)
            os.kill(replica.process.pid, signal.SIGCONT)
        assert client.post("/predict", files=picture(large), headers=key).status_code == 202
        assert connection.hlen("yolo:open") == 2


def test_without_replicas_nothing_is_accepted(tmp_path: Path) -> None:
    with running_redis(tmp_path) as primary, primary.connect() as connection:
        settings = Settings(redis_url=primary.url, triton_url=NO_TRITON, redis_replicas=1)
        with client_of(settings) as client:
            answer = client.post("/predict", files=picture(False))
            assert answer.status_code == 503 and answer.json()["detail"].endswith("nothing was accepted")
        assert connection.hlen("yolo:open") == 0


class Load:
    """Uploads until so many are accepted; what is refused is sent again as a new task."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._give_up_at = time.monotonic() + LOAD_SECONDS
        self.accepted: list[str] = []
        self.refused = 0
        self.begun = threading.Event()

    def run(self) -> None:
        with httpx2.Client(base_url=self._gateway.url, timeout=30, trust_env=False) as client:
            while len(self.accepted) < TASKS and time.monotonic() < self._give_up_at:
                answer = client.post("/predict", files=picture(False))
                if answer.status_code == 202:
                    self.accepted.append(answer.json()["task_id"])
                else:
                    assert answer.status_code == 503, answer.text
                    self.refused += 1
                    time.sleep(0.2)
                if len(self.accepted) >= KILL_AFTER:
                    self.begun.set()


def lost(gateway: Gateway, task_ids: list[str]) -> list[str]:
    """The tasks that do not succeed."""
    give_up_at = time.monotonic() + ENDED_SECONDS
    with httpx2.Client(base_url=gateway.url, timeout=30, trust_env=False) as client:
        open_tasks = list(task_ids)
        while open_tasks and time.monotonic() < give_up_at:
            answers = [(each, client.get(f"/result/{each}")) for each in open_tasks]
            open_tasks = [each for each, answer in answers if answer.json().get("status") != "SUCCESS"]
            time.sleep(0.5)
        return open_tasks


@pytest.mark.long
def test_a_killed_primary_takes_no_accepted_task_with_it(tmp_path: Path) -> None:
    with running_sentinels(tmp_path, replicas=2, sentinels=3) as sentinels:
        settings = Settings(redis_url=sentinels.url, worker_ttl=5)
        with (
            running_gateway(sentinels.url, tmp_path, REDIS_REPLICAS="1") as gateway,
            working(settings, FakeTriton()),
            ThreadPoolExecutor(CLIENTS) as pool,
        ):
            load = Load(gateway)
            running = [pool.submit(load.run) for _ in range(CLIENTS)]
            assert load.begun.wait(LOAD_SECONDS), gateway.log.read_text()[-4000:]
            sentinels.primary.process.kill()
            for each in running:
                each.result()
            assert len(load.accepted) >= TASKS and sentinels.primary_port() != sentinels.primary.port
            print(f"{len(load.accepted)} accepted, {load.refused} refused")
            assert lost(gateway, load.accepted) == []
