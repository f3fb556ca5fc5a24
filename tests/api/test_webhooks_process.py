"""The process that delivers webhooks: killed, switched off, told to end."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from standardwebhooks import Webhook

from tests.api.deliver import NAME
from tests.api.receiving import BODY, SECRET, Empty, body_of, headers_of, put, until
from tests.support.internet import Site, reply

ROOT = Path(__file__).parents[2]


def test_a_process_that_is_killed_in_the_middle_is_followed_by_one_that_sends_again(
    redis_url: str, connection: "redis.Redis", until_empty: Empty, tmp_path: Path
) -> None:
    hanging = True

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        if hanging:
            await asyncio.sleep(60)
        await reply(200)(request, writer)

    async def run() -> list[bytes]:
        nonlocal hanging
        site = Site(answer, NAME)
        site.authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        async with site.open() as port:
            arguments = [
                sys.executable,
                "-m",
                "tests.api.deliver",
                redis_url,
                str(port),
                str(tmp_path / "authority.pem"),
            ]
            for last in (False, True):
                process = await asyncio.create_subprocess_exec(*arguments, SECRET, cwd=ROOT)
                try:
                    await (until_empty() if last else until(lambda: len(site.requests) == 1, 20))
                finally:
                    hanging = False
                    process.kill()
                    await process.wait()
        return site.requests

    put(connection, "t1")
    first, second = asyncio.run(run())
    assert headers_of(first)["webhook-id"] == headers_of(second)["webhook-id"] == "t1"
    assert body_of(first) == body_of(second) == BODY
    Webhook(SECRET).verify(BODY, headers_of(second))
    assert connection.keys() == []


@pytest.fixture
def deliverer(redis_url: str) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts the real process."""
    started: list[subprocess.Popen[str]] = []

    def start(**environment: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "gateway.webhooks"]
        full = {**os.environ, "REDIS_URL": redis_url, **environment}
        started.append(subprocess.Popen(command, env=full, cwd=ROOT, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_process_refuses_this_machine_and_ends_when_told(
    deliverer: Callable[..., "subprocess.Popen[str]"], connection: "redis.Redis", until_empty: Empty
) -> None:
    put(connection, "t1", url="https://localhost/")
    process = deliverer(CALLBACKS="true", WEBHOOK_SECRET=SECRET, WEBHOOK_DELAYS="0.1")
    asyncio.run(until_empty())
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "webhook t1 given up after 2 tries: localhost does not resolve to public addresses" in log


def test_the_process_does_not_start_where_it_cannot_sign(deliverer: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = deliverer(CALLBACKS="true")
    _, log = process.communicate(timeout=20)
    assert process.returncode == 2
    assert log == "webhooks: CALLBACKS=true: callbacks are signed, set WEBHOOK_SECRET too\n"


def test_the_process_waits_for_its_end_when_webhooks_are_switched_off(
    deliverer: Callable[..., "subprocess.Popen[str]"],
) -> None:
    process = deliverer()
    assert process.stderr is not None
    assert "switched off" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
