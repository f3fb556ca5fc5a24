"""Several stacks on one Redis: what REDIS_PREFIX keeps apart, what a database of its own does.

Redis itself keeps watch: each stack's user may touch no key and no channel but those of its prefix.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from tests.api.processes import receiving, until, worker
from tests.api.receiving import SECRET
from tests.support.gateway import running_gateway
from tests.support.internet import PUBLIC_ADDRESS
from tests.support.pictures import encoded
from tests.support.redis_servers import Server, running_redis

PICTURE = encoded(64, 48)
CALLBACK = f"https://{PUBLIC_ADDRESS}/ended"
RATE = 30


@dataclass(frozen=True)
class Stack:
    """Gateway, worker and deliverer; `delivered` is what its receiver got. `worker` starts another worker."""

    name: str
    http: httpx2.Client
    working: "subprocess.Popen[bytes]"
    delivered: list[bytes]
    worker: Callable[[], "subprocess.Popen[bytes]"]

    def predict(self, **options: Any) -> httpx2.Response:
        given = {"params": options.pop("params", {}), "headers": options.pop("headers", {})}
        return self.http.post("/predict", **given, **(options or {"content": PICTURE}))

    def task(self, **options: Any) -> str:
        return str(self.predict(**options).json()["task_id"])

    def status(self) -> Any:
        return self.http.get("/status").json()

    def is_idle(self) -> bool:
        return bool(self.status()["queue"] == {"open": 0, "queued": 0, "webhooks": 0})

    def finished(self, task_id: str) -> str:
        return str(self.http.get(f"/result/{task_id}", params={"wait": 60}).json()["status"])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_redis(tmp_path) as server:
        yield server


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    with ExitStack() as exits:

        def started(name: str, database: int = 0, user: str = "", **settings: str) -> Stack:
            folder, url = tmp_path / name, f"redis://{user}127.0.0.1:{server.port}/{database}"
            folder.mkdir()
            own = {"WORKER_TTL": "2", "CALLBACKS": "true", "WEBHOOK_SECRET": SECRET, **settings}
            gateway = exits.enter_context(running_gateway(url, folder, **own))

            def more() -> "subprocess.Popen[bytes]":
                log = folder / f"worker{len(list(folder.iterdir()))}.log"
                return exits.enter_context(worker(url, log, own, seconds=0.2))

            http = exits.enter_context(httpx2.Client(base_url=gateway.url, timeout=90))
            return Stack(name, http, more(), exits.enter_context(receiving(url, folder, own)), more)

        yield started


def confined(server: Server, name: str) -> str:
    """A user that may touch what begins with `name` and a colon, and nothing else."""
    with server.connect() as control:
        control.acl_setuser(name, True, passwords=["+hush"], categories=["+@all"], keys=[f"{name}:*"], reset=True)
        control.execute_command("ACL", "SETUSER", name, "resetchannels", f"&{name}:*")
    return f"{name}:hush@"


@pytest.fixture
def pair(server: Server, start: Callable[..., Stack]) -> list[Stack]:
    """Two stacks with a prefix each, in one database."""
    return [start(name, user=confined(server, name), REDIS_PREFIX=name) for name in ("shop", "yard-2.eu")]


@pytest.fixture
def databases(start: Callable[..., Stack]) -> list[Stack]:
    """Two stacks without a prefix, each in its own database."""
    return [start(f"database{number}", database=number) for number in range(2)]


def use(stack: Stack) -> list[str]:
    """Each thing that a client can do; the tasks that are left."""
    http = stack.http
    until(lambda: stack.status().get("workers") == {"alive": 1, "busy": 0})
    assert stack.predict(params={"wait": 60}).json()["status"] == "SUCCESS"
    again = [stack.task(headers={"Idempotency-Key": "same"}) for _ in range(2)]
    assert again[0] == again[1]
    large = PICTURE + bytes(600_000)  # past the scripts
    tasks = [again[0], stack.task(params={"priority": "high"}), stack.task(content=large)]
    with http.stream("GET", f"/result/{tasks[1]}/events") as answer:
        assert "succeeded" in "".join(answer.iter_text())
    parts = [("image", (f"{number}.png", PICTURE)) for number in range(4)]
    batch = stack.predict(files=parts, params={"wait": 60}, headers={"Idempotency-Key": "four"})
    assert batch.json()["succeeded"] == 4
    annotated = stack.task(params={"annotate": "1"})
    assert stack.finished(annotated) == "SUCCESS"
    assert http.get(f"/result/{annotated}/image").status_code == 200
    called = stack.task(params={"callback_url": CALLBACK})
    assert {stack.finished(each) for each in tasks} == {"SUCCESS"}
    until(lambda: len(stack.delivered) == 1 and stack.status()["queue"]["webhooks"] == 0)
    assert called.encode() in stack.delivered[0]
    waiting = [stack.task() for _ in range(12)]
    assert http.delete(f"/result/{waiting[-1]}").status_code == 200, "it has not begun"
    assert http.delete(f"/result/{tasks[0]}").status_code == 204
    assert {stack.finished(each) for each in waiting[:-1]} == {"SUCCESS"}
    return [*tasks[1:], annotated, called, *waiting]


def lose_a_worker(stack: Stack) -> subprocess.Popen[bytes]:
    """A worker dies under a task, which another one runs."""
    task_id = stack.task()
    until(lambda: stack.http.get(f"/result/{task_id}").json()["state"] == "started")
    stack.working.kill()
    another = stack.worker()
    assert stack.finished(task_id) == "SUCCESS"
    return another


def strangers(first: Stack, second: Stack, tasks: dict[str, list[str]]) -> None:
    """Neither knows anything of the other."""
    for stack, other in ((first, second), (second, first)):
        assert {stack.http.get(f"/result/{each}").status_code for each in tasks[other.name]} == {404}
        assert {stack.http.get(f"/result/{each}").status_code for each in tasks[stack.name]} == {200}
        assert len(stack.delivered) == 1
        until(stack.is_idle)


def use_both(stacks: list[Stack]) -> dict[str, list[str]]:
    with ThreadPoolExecutor() as pool:
        return dict(zip((each.name for each in stacks), pool.map(use, stacks), strict=True))


def test_two_prefixes_in_one_database_share_nothing(pair: list[Stack], server: Server) -> None:
    first, second = pair
    strangers(first, second, use_both(pair))
    last = lose_a_worker(first)
    last.terminate()
    last.wait(60)
    until(lambda: first.status()["workers"]["alive"] == 0)
    assert second.status()["workers"]["alive"] == 1
    waiting = first.task()
    assert second.predict(params={"wait": 60}).json()["status"] == "SUCCESS"
    until(lambda: first.status()["queue"]["queued"] == 1 and second.status()["queue"]["open"] == 0)
    first.worker()
    assert first.finished(waiting) == "SUCCESS"
    tool = [sys.executable, "-m", "rq.cli", "info", "--raw", "--url", server.url]
    shown = subprocess.run(tool, env={**os.environ, "RQ_KEY_PREFIX": "shop:rq"}, capture_output=True, text=True)
    assert "queue predict 0" in shown.stdout and shown.stdout.count("\nworker ") == 1, shown
    with server.connect() as control:
        assert [key for key in control.scan_iter() if not key.startswith(("shop:", "yard-2.eu:"))] == []
        assert control.acl_log() == [], "they tried what is not theirs"


def test_a_full_redis_and_a_confined_user_go_together(server: Server, start: Callable[..., Stack]) -> None:
    stack = start("shop", user=confined(server, "shop"), REDIS_PREFIX="shop")
    with server.connect() as control:
        until(lambda: stack.status().get("workers") == {"alive": 1, "busy": 0})
        waiting = [stack.task() for _ in range(10)]
        control.config_set("maxmemory", control.info("memory")["used_memory"] // 2)
        assert stack.predict().json()["code"] == "overloaded"
        assert {stack.finished(each) for each in waiting} == {"SUCCESS"}
        (key,) = control.smembers("shop:rq:workers:predict")
        beat = control.hget(key, "last_heartbeat")
        until(lambda: control.hget(key, "last_heartbeat") != beat)
        assert control.acl_log() == []


def test_a_rate_is_of_one_stack(server: Server, start: Callable[..., Stack]) -> None:
    stacks = [start(name, REDIS_PREFIX=name, RATE_LIMIT="5/hour") for name in ("a", "b")]
    for stack in stacks:
        assert [stack.http.get("/batches/none").status_code for _ in range(6)] == [404] * 5 + [429]
    with server.connect() as control:
        assert not [key for key in control.scan_iter() if not key.startswith(("a:", "b:"))]


def test_two_databases_share_nothing_but_events(databases: list[Stack], server: Server) -> None:
    """Redis' channels know no databases: each hears of the other's tasks, and leaves them."""
    first, second = databases
    strangers(first, second, use_both(databases))
    with redis.Redis(port=server.port, db=7) as elsewhere, elsewhere.pubsub() as listening:
        listening.subscribe("yolo:events")
        heard: list[Any] = []
        thread = threading.Thread(target=lambda: heard.append(_message(listening)))
        thread.start()
        task_id = first.task(params={"wait": 60})
        thread.join(60)
    assert heard[0].startswith(task_id.encode())


def _message(listening: Any) -> bytes:
    return next(bytes(each["data"]) for each in listening.listen() if each["type"] == "message")
