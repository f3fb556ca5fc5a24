"""Clients of several gateways: what one accepts is read at another, at once and once more when all is over."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from reliability.load import Outcome, client, read, upload

_SCORE_DIFFERS, _SIDE_DIFFERS = 0.02, 2.0  # least differences of two answers: batches differ in the last digits
_PATIENCE_SECONDS = 240.0
_TURN_SECONDS = 2.0  # after which the next gateway is asked


class Load:
    """Uploads at a rate through each gateway in turn. `outcome` has what clients saw."""

    def __init__(self, gateways: Sequence[httpx.AsyncClient], images: Sequence[bytes], per_second: float) -> None:
        self._gateways, self._images, self._pause = gateways, images, 1 / per_second
        self.outcome, self.sent = Outcome(), 0
        self.image_of: dict[str, int] = {}  # by task id
        self.accepted_at: dict[str, float] = {}  # seconds since the epoch
        self.ended_at: dict[str, float] = {}
        self.running = set[asyncio.Task[None]]()

    async def send(self, gateway: int | None = None) -> None:
        """One upload through that gateway, or the next, read at the others in turn until it has ended."""
        number = self.sent
        self.sent += 1
        through = number % len(self._gateways) if gateway is None else gateway
        image = number // len(self._gateways) % len(self._images)
        task_id = await upload(self._gateways[through], self._images[image], self.outcome)
        self.image_of[task_id], self.accepted_at[task_id] = image, time.time()
        while task_id in self.outcome.open:
            through = (through + 1) % len(self._gateways)
            await read(self._gateways[through], task_id, self.outcome, time.monotonic() + _TURN_SECONDS)
        self.ended_at[task_id] = time.time()

    def begin(self, number: int = 1) -> None:
        """So many uploads at once."""
        for _ in range(number):
            task = asyncio.create_task(self.send())
            self.running.add(task)
            task.add_done_callback(self.running.discard)

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Uploads until the block is left; then all accepted tasks are waited for."""

        async def forever() -> None:
            while True:
                self.begin()
                await asyncio.sleep(self._pause)

        uploading = asyncio.create_task(forever())
        try:
            yield
        finally:
            uploading.cancel()
            _, late = await asyncio.wait(self.running, timeout=_PATIENCE_SECONDS)
            for task in late:
                task.cancel()

    async def wait_for(self, task_ids: Collection[str], seconds: float) -> bool:
        """Whether these have ended within that time."""
        give_up_at = time.monotonic() + seconds
        while any(task_id not in self.ended_at for task_id in task_ids):
            if time.monotonic() > give_up_at:
                return False
            await asyncio.sleep(0.1)
        return True

    async def overwritten(self, again_from: float) -> int:
        """How many answers of all gateways are not those that were read first.

        What ended later than `again_from`, seconds since the epoch, may have been worked out again: of that only what
        was found counts.
        """
        differ = 0
        for task_id, first in self.outcome.ends.items():
            for gateway in self._gateways:
                again = (await gateway.get(f"/result/{task_id}")).json()
                if self.ended_at[task_id] < again_from:
                    differ += again != first
                else:
                    differ += not same(found(again), found(first))
        return differ

    def wrong(self) -> int:
        """How many tasks have not found what most of the same image have."""
        of_image: dict[int, list[list[Any]]] = {}
        for task_id, end in self.outcome.ends.items():
            of_image.setdefault(self.image_of[task_id], []).append(found(end))
        return sum(
            sum(same(one, other) for other in several) <= len(several) / 2
            for several in of_image.values()
            for one in several
        )


def found(end: dict[str, Any]) -> list[Any]:
    return list(end["result"]["detections"]) if end["status"] == "SUCCESS" else []


def same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two lists of detections are those of one image."""
    return len(one) == len(other) and all(
        a["label"] == b["label"]
        and abs(a["score"] - b["score"]) < _SCORE_DIFFERS
        and all(abs(a["box"][side] - b["box"][side]) < _SIDE_DIFFERS for side in a["box"])
        for a, b in zip(one, other, strict=True)
    )


@asynccontextmanager
async def clients(urls: Sequence[str]) -> AsyncIterator[list[httpx.AsyncClient]]:
    found = [client(url, 256) for url in urls]
    try:
        yield found
    finally:
        for each in found:
            await each.aclose()
