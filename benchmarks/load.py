"""The load generator: a process of its own, `python -m benchmarks.load TARGET`, one client a thread.

Reads one Plan a line from standard input, writes one Sample a line to standard output (JSON). Closed loop: each of
`clients` sends when its last answer is there. Open loop (`rate` > 0): requests are due at times drawn beforehand, and
their latency counts from the time they were due, not from when a client got round to them.
"""

import itertools
import queue
import random
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from benchmarks.senders import Sender, Target, sender, signature

WARM_SECONDS = 0.5


class Plan(msgspec.Struct):
    """`clients` threads for `seconds`; `rate` requests a second in open loop, 0 for closed loop."""

    clients: int
    seconds: float
    rate: float = 0.0
    seed: int = 1


class Sample(msgspec.Struct):
    """What was measured. `right` counts right answers that came in `seconds`; latencies are of the right ones."""

    seconds: float
    right: int
    wrong: int
    failed: int
    latencies_ms: list[float]
    timings_ms: list[dict[str, float]]
    cpu_seconds: float
    first_failure: str = ""

    @property
    def rate(self) -> float:
        return self.right / self.seconds

    @property
    def with_warming(self) -> float:
        """How many were answered about, those of the warming too, whose CPU time nobody can take out."""
        return max(self.rate * (self.seconds + WARM_SECONDS), 1)


@dataclass
class Tally:
    """What the clients of one run have seen."""

    begin: float
    end: float
    right: int = 0
    wrong: int = 0
    failures: list[str] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    timings_ms: list[dict[str, float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Load:
    """Clients against one target. The first answer to each image is the one that all later ones are compared with."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._senders: list[Sender] = [sender(target)]
        self.first = [signature(self._senders[0].send(index)[0]) for index in range(len(target.images))]
        self._turn = itertools.count()

    def run(self, plan: Plan) -> Sample:
        while len(self._senders) < plan.clients:
            self._senders.append(sender(self._target))
        begin = time.perf_counter() + (0 if plan.rate else WARM_SECONDS)
        tally = Tally(begin, begin + plan.seconds)
        due: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        schedules = self._open(plan, due) if plan.rate else [self._closed(tally.end) for _ in range(plan.clients)]
        clients = [
            threading.Thread(target=self._client, args=(each, schedule, tally))
            for each, schedule in zip(self._senders, schedules, strict=False)
        ]
        cpu = time.process_time()
        for client in clients:
            client.start()
        if plan.rate:
            self._dispatch(plan, tally, due, len(clients))
        for client in clients:
            client.join()
        return Sample(
            seconds=plan.seconds,
            right=tally.right,
            wrong=tally.wrong,
            failed=len(tally.failures),
            latencies_ms=tally.latencies_ms,
            timings_ms=tally.timings_ms,
            cpu_seconds=time.process_time() - cpu,
            first_failure=next(iter(tally.failures), ""),
        )

    @staticmethod
    def _closed(end: float) -> Iterator[float]:
        while (instant := time.perf_counter()) < end:
            yield instant

    @staticmethod
    def _open(plan: Plan, due: "queue.SimpleQueue[float | None]") -> list[Iterator[float]]:
        def instants() -> Iterator[float]:
            while (instant := due.get()) is not None:
                yield instant

        return [instants() for _ in range(plan.clients)]

    @staticmethod
    def _dispatch(plan: Plan, tally: Tally, due: "queue.SimpleQueue[float | None]", clients: int) -> None:
        gaps, instant = random.Random(plan.seed), tally.begin
        while (instant := instant + gaps.expovariate(plan.rate)) < tally.end:
            time.sleep(max(instant - time.perf_counter(), 0))
            due.put(instant)
        for _ in range(clients):
            due.put(None)

    def _client(self, each: Sender, schedule: Iterator[float], tally: Tally) -> None:
        for instant in schedule:
            index = next(self._turn) % len(self.first)
            try:
                answer, timings_ms = each.send(index)
            except (OSError, ValueError, RuntimeError) as error:
                with tally.lock:
                    tally.failures.append(f"{type(error).__name__}: {error}")
                continue
            done = time.perf_counter()
            same = signature(answer) == self.first[index]
            with tally.lock:
                if not same:
                    tally.wrong += 1
                elif tally.begin <= instant:
                    tally.latencies_ms.append((done - instant) * 1e3)
                    tally.timings_ms.extend([timings_ms] if timings_ms else [])
                tally.right += same and tally.begin <= done <= tally.end


def main() -> int:
    load = Load(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Target))
    print(msgspec.json.encode(load.first).decode(), flush=True)
    for line in sys.stdin:
        print(msgspec.json.encode(load.run(msgspec.json.decode(line, type=Plan))).decode(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
