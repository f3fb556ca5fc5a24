"""Clients that do not give up: every upload is tried until it is accepted, every task is read until it has ended."""

import asyncio
import itertools
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from local.wheel import ROOT

_RETRY_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 5.0


@dataclass
class Outcome:
    """What clients saw: accepted task ids, answers by status (0: no answer), the ends of the tasks by id."""

    accepted: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    without_retry_after: int = 0
    ends: dict[str, dict[str, Any]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def count(self, status: str) -> int:
        return sum(end["status"] == status for end in self.ends.values())

    @property
    def open(self) -> list[str]:
        """Accepted, and neither ended nor unknown."""
        return [task_id for task_id in self.accepted if task_id not in self.ends and task_id not in self.unknown]

    def codes(self) -> Counter[str]:
        return Counter(end["error"]["code"] for end in self.ends.values() if end["status"] == "FAILURE")


def photographs(shared: Path | None) -> list[bytes]:
    """Images to send: photographs where there are some, else drawings that the project carries."""
    found = sorted((shared / "images").glob("*.jpg")) if shared else []
    found = found or sorted((ROOT / "demo" / "shapes" / "images").glob("*.jpg"))
    return [path.read_bytes() for path in found]


def client(url: str, connections: int = 64) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(40, pool=None), limits=limits, trust_env=False)


async def upload_all(
    http: httpx.AsyncClient,
    images: Sequence[bytes],
    number: int,
    per_second: float,
    outcome: Outcome,
    done: Callable[[], bool] = lambda: False,
) -> None:
    """Upload `number` images, started at that rate, each until it is accepted or all is `done`."""
    begun, running = time.monotonic(), []
    for index, image in zip(range(number), itertools.cycle(images), strict=False):
        await asyncio.sleep(max(0.0, begun + index / per_second - time.monotonic()))
        if done():
            break
        running.append(asyncio.create_task(upload(http, image, outcome)))
    await asyncio.gather(*running)


async def upload(http: httpx.AsyncClient, image: bytes, outcome: Outcome) -> str:
    """The id of its task, once it is accepted."""
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    while True:
        try:
            answer = await http.post("/predict", content=image, headers=headers)
        except httpx.TransportError:
            outcome.statuses[0] += 1
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        outcome.statuses[answer.status_code] += 1
        if answer.status_code in (200, 202):  # 200: the answer to an earlier try was lost, and its task has ended
            outcome.accepted.append(str(answer.json()["task_id"]))
            return outcome.accepted[-1]
        if "retry-after" not in answer.headers:
            outcome.without_retry_after += 1
        await asyncio.sleep(min(float(answer.headers.get("retry-after", 1)), _LONGEST_RETRY_SECONDS))


async def read_all(http: httpx.AsyncClient, outcome: Outcome, seconds: float, readers: int = 16) -> None:
    """Read each accepted task until it has ended, for that long altogether."""
    give_up_at = time.monotonic() + seconds
    ids = iter(outcome.open)
    await asyncio.gather(*(_read(http, ids, outcome, give_up_at) for _ in range(readers)))


async def _read(http: httpx.AsyncClient, ids: Iterator[str], outcome: Outcome, give_up_at: float) -> None:
    for task_id in ids:
        await read(http, task_id, outcome, give_up_at)


async def read(http: httpx.AsyncClient, task_id: str, outcome: Outcome, give_up_at: float) -> None:
    """Until it has ended, or is unknown, or that time of `time.monotonic` has come."""
    while time.monotonic() < give_up_at:
        try:
            answer = await http.get(f"/result/{task_id}", params={"wait": 10})
        except httpx.TransportError:
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        if answer.status_code == 404:
            outcome.unknown.append(task_id)
            return
        if answer.status_code == 200 and answer.json()["status"] != "PENDING":
            outcome.ends[task_id] = answer.json()
            return
        if answer.status_code != 200:
            await asyncio.sleep(_RETRY_SECONDS)
