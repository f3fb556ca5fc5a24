"""What a gateway logs while it cannot hear of the ends of tasks."""

import asyncio
from typing import Any

import pytest
import redis

from gateway.queue import results
from gateway.queue.results import Results


class Shared:
    """A Redis whose subscriptions end in turn as told: by an error, or, for None, by one after they had begun."""

    def __init__(self, ends: list[str | None]) -> None:
        self.ends, self.done = ends, asyncio.Event()

    async def subscribe(self, pushed: Any, channel: str, seconds: float) -> None:
        if not self.ends:
            self.done.set()
            await asyncio.Event().wait()
        said = self.ends.pop(0)
        if said is None:
            pushed([b"subscribe", channel.encode(), 1])
        raise redis.ConnectionError(said or "refused")


def test_each_reason_is_logged_once_until_redis_is_there_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It tries twice a second: a Sentinel that names no primary filled the log."""
    monkeypatch.setattr(results, "_RECONNECT_SECONDS", 0)

    async def listen() -> None:
        ends = [*["refused"] * 3, *["no primary"] * 3, None, "refused"]
        shared: Any = Shared(ends)
        connection: Any = None
        task = asyncio.create_task(Results(connection, shared, 2).listen())
        await asyncio.wait_for(shared.done.wait(), 10)
        task.cancel()

    asyncio.run(listen())
    said = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert said == ["refused", "no primary", "refused"]
