"""Ten times more than can be done: what is taken ends, the rest learns when to come back, nothing overflows."""

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from gateway.redis_names import OPEN_BYTES_KEY, OPEN_KEY
from gateway.settings import Settings, load
from reliability.load import Outcome, client, read_all, upload_all
from reliability.promises import Promise
from reliability.service import Service

_LEAST, _MOST = 1, 120  # seconds, of Retry-After
_TIMES = 10


class Plan(NamedTuple):
    """Seconds in which the capacity is measured, seconds of the overload, connections, seconds until the last end.

    `settings` are bounds that are reached also where little can be done.
    """

    measured_seconds: float = 15
    seconds: float = 60
    connections: int = 64
    patience_seconds: float = 1500
    settings: Mapping[str, str] = MappingProxyType({"MAX_QUEUED_TASKS": "1000", "MAX_QUEUED_BYTES": "150000000"})


QUICK = Plan(measured_seconds=3, seconds=6, connections=32, patience_seconds=60, settings={"MAX_QUEUED_TASKS": "60"})


@dataclass
class Seen:
    """Answers by status, the longest one of each, Retry-After of the refusals, the ids of what was accepted."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: dict[int, float] = field(default_factory=dict)
    retry_after: list[int] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)


async def ten_times(service: Service, images: Sequence[bytes], plan: Plan) -> list[Promise]:
    """Measure what the service can do, then send ten times that."""
    capacity = await measured_capacity(service, images, plan.measured_seconds)
    seen, wanted = Seen(), int(capacity * _TIMES * plan.seconds)
    with Gauges(service) as gauges:
        before = service.memory_bytes("gateway"), service.memory_bytes("worker")
        sent_in = await send(service.url, images, capacity * _TIMES, plan, seen)
        outcome = Outcome(accepted=seen.accepted)
        begun = time.monotonic()
        async with client(service.url) as http:
            await read_all(http, outcome, plan.patience_seconds)
        drained_in = time.monotonic() - begun
    offered, done = seen.statuses.total() / sent_in, len(outcome.ends)
    rate, well = done / (sent_in + drained_in), outcome.count("SUCCESS")
    sent = f"{offered:.0f}/s, {seen.statuses.total()} of {wanted}"
    taken = f"{well} of {len(seen.accepted)}, {drained_in:.0f} s after"
    return [
        Promise("capacity", "measured", f"{capacity:.1f} tasks/s", True),
        Promise(f"offered for {sent_in:.0f} s", f"{_TIMES} times that", sent, offered > 0.5 * _TIMES * capacity),
        *answers(seen, rate),
        Promise("what was taken ends well", "all", taken, well == len(seen.accepted) > 0),
        *gauges.promises(load(plan.settings), before),
    ]


def answers(seen: Seen, rate: float) -> list[Promise]:
    statuses = ", ".join(
        f"{status} {number} (at most {seen.seconds[status]:.1f} s)" for status, number in seen.statuses.items()
    )
    measured = f"{min(seen.retry_after, default=0)} to {max(seen.retry_after, default=0)} s at {rate:.1f} tasks/s"
    kept = len(seen.retry_after) == seen.statuses[503] and all(_LEAST <= each <= _MOST for each in seen.retry_after)
    return [
        Promise("answers", "202, 503", statuses, set(seen.statuses) == {202, 503}),
        Promise("Retry-After on each refusal", f"{_LEAST} to {_MOST} s", measured, kept),
    ]  # fmt: skip


async def measured_capacity(service: Service, images: Sequence[bytes], seconds: float) -> float:
    """Tasks a second, with some always waiting."""
    outcome, begun = Outcome(), time.monotonic()

    async def upload_and_read() -> None:
        while time.monotonic() - begun < seconds:
            one = Outcome()
            await upload_all(http, [next(several)], 1, 100, one)
            await read_all(http, one, 60, readers=1)
            outcome.ends.update(one.ends)

    several = itertools.cycle(images)
    async with client(service.url) as http:
        await asyncio.gather(*(upload_and_read() for _ in range(12)))
    return len(outcome.ends) / (time.monotonic() - begun)


async def send(url: str, images: Sequence[bytes], per_second: float, plan: Plan, seen: Seen) -> float:
    """Post at that rate, as far as the connections allow; returns the seconds that it took."""
    address, begun = urlsplit(url), time.monotonic()
    requests = [request_bytes(address.netloc, image) for image in images]
    numbers = itertools.count()

    async def post_in_turn() -> None:
        connection = Connection(address.hostname or "", address.port or 80)
        while (due := begun + (number := next(numbers)) / per_second) < begun + plan.seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if time.monotonic() - begun > plan.seconds:
                break
            await connection.post(requests[number % len(requests)], seen)
        await connection.close()

    await asyncio.gather(*(post_in_turn() for _ in range(plan.connections)))
    return time.monotonic() - begun


def request_bytes(host: str, image: bytes) -> bytes:
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
    return head.encode() + image


class Connection:
    """A kept connection with so little to do that one process can send hundreds of images a second."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, request: bytes, seen: Seen) -> None:
        begun = time.monotonic()
        try:
            status, headers, body = await self._exchange(request)
        except (OSError, EOFError):  # IncompleteReadError is an EOFError
            await self.close()
            status, headers, body = 0, {}, b""
        seen.statuses[status] += 1
        seen.seconds[status] = max(seen.seconds.get(status, 0.0), time.monotonic() - begun)
        if status == 202:
            seen.accepted.append(msgspec.json.decode(body)["task_id"])
        elif "retry-after" in headers:
            seen.retry_after.append(int(headers["retry-after"]))

    async def _exchange(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            await self.close()
        return int(lines[0].split()[1]), headers, body

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Gauges:
    """Watches memory and queue twice a second while it is entered, and keeps the highest readings."""

    def __init__(self, service: Service) -> None:
        self._service, self._stopping = service, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.highest: Counter[str] = Counter()

    def __enter__(self) -> "Gauges":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        with self._service.redis() as connection:
            while not self._stopping.wait(0.5):
                memory, stats = connection.info("memory"), connection.info("stats")
                self._note("tasks", int(connection.hlen(OPEN_KEY)))
                self._note("bytes", int(connection.get(OPEN_BYTES_KEY) or 0))
                self._note("redis", int(memory["used_memory"]))
                self._note("limit", int(memory["maxmemory"]))
                self._note("evicted", int(stats["evicted_keys"]))
                for kind in ("gateway", "worker"):
                    self._note(kind, self._service.memory_bytes(kind))

    def _note(self, name: str, value: int) -> None:
        self.highest[name] = max(self.highest[name], value)

    def promises(self, settings: Settings, before: tuple[int, int]) -> list[Promise]:
        high = self.highest
        waiting = f"{high['tasks']} tasks, {high['bytes'] / 1e6:.0f} MB"
        bounds = f"{settings.max_queued_tasks} tasks, {settings.max_queued_bytes / 1e6:.0f} MB"
        redis_side = f"{high['redis'] / 1e6:.0f} of {high['limit'] / 1e6:.0f} MB, {high['evicted']} evicted"
        web, grown = f"{high['gateway'] / 1e6:.0f} MB", high["gateway"] - before[0]
        bounded = high["tasks"] <= settings.max_queued_tasks and high["bytes"] <= settings.max_queued_bytes
        free = high["redis"] < 0.9 * high["limit"] and not high["evicted"]
        return [
            Promise("open at most", bounds, waiting, bounded),
            Promise("Redis", "below its limit, nothing evicted", redis_side, free),
            Promise(
                "memory of the gateway", "grows by less than 400 MB", web, grown < 4 * settings.max_uploading_bytes
            ),
            Promise("memory of the workers", "measured", f"{high['worker'] / 1e6:.0f} MB", True),
        ]
