"""`make plan RATE=1000 TRITON=400 P99=250`: what so many images a second need, and where the first wall is.

Calculated from `benchmarks/capacity.json`, which `python -m benchmarks.capacity` measured; docs/scaling.md says how.
"""

import argparse
import math
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import msgspec

from benchmarks.arguments import between, exit_with, whole
from benchmarks.results import Latency

FILE = Path(__file__).with_name("capacity.json")

BUSY = 0.7  # of a process: beyond it waiting grows faster than what is carried
REDIS = "Redis"
WORKER_TASKS = 3  # the setting of this name where the model is fast
WIRE = 1.05  # bytes on the wire for each byte of an image: headers of HTTP, TCP and IP
RAW_BYTES = 640 * 480 * 3  # of the pixels that a Triton on another host is sent of a photograph of 640 x 480
GIGABIT = 1e9 / 8


class Capacity(msgspec.Struct):
    """What one machine came to. CPU times are milliseconds an image, memory megabytes, by part of the service.

    `per_second` is the most of the whole stack of one gateway and `workers` worker processes with the load beside it,
    which takes `client_cpu_ms`; `worker_per_second` what one worker process takes from a long queue. `redis` has, an
    image: scripts and commands that ran, bytes in and out, bytes written to its file.
    """

    machine: str
    cores: int
    image_bytes: int
    workers: int
    cpu_ms: dict[str, float]
    client_cpu_ms: float
    memory_mb: dict[str, float]
    per_second: float
    worker_per_second: float
    alone_ms: float
    redis: dict[str, float]
    latencies: list[Latency]


@dataclass(frozen=True)
class Wanted:
    """`rate` images a second of `image_bytes`; one Triton runs `triton_per_second`, a call of it takes `triton_ms`.

    `link_bytes` and `disk_bytes` are what a host's network and Redis' disk carry in a second.
    """

    rate: float
    image_bytes: float
    triton_per_second: float
    triton_ms: float
    link_bytes: float
    disk_bytes: float
    replicas: int = 0
    triton_elsewhere: bool = False


@dataclass(frozen=True)
class Stage:
    """One kind of process: how many, images a second that one carries at the most, its CPU time, its memory."""

    name: str
    count: int
    per_second: float
    cpu_ms: float
    memory_mb: float

    def busy(self, rate: float) -> float:
        """How busy each is, 0 to 1."""
        return rate / self.count / self.per_second

    def wait_ms(self, rate: float, share: float = 0.99) -> float:
        """The time within which that share of the images is through the queue here, milliseconds.

        Erlang's C, and Allen and Cunneen's factor of a half for service times that are all alike:
        https://en.wikipedia.org/wiki/M/M/c_queue and Allen, Probability, Statistics, and Queueing Theory, 5.3.
        """
        waiting = erlang_c(self.count, rate / self.per_second)
        if waiting <= 1 - share:
            return 0.0
        spare = self.count * self.per_second - rate
        return 0.5 * math.log(waiting / (1 - share)) / spare * 1e3


@dataclass(frozen=True)
class Wall:
    """What one Redis, and with it one stack, cannot pass."""

    what: str
    per_second: float


def erlang_c(servers: int, load: float) -> float:
    """The share of arrivals that find all servers busy; `load` is how many are busy on average, below `servers`."""
    blocked = 1.0  # Erlang's B, by its recursion
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


def counted(stacks: int) -> str:
    return "one stack" if stacks == 1 else f"{stacks:,} stacks, each with a Redis of its own"


def stages(measured: Capacity, wanted: Wanted, rate: float) -> list[Stage]:
    """Of one stack with that rate: the fewest of each kind that are at most BUSY, and its one Redis."""
    cpu, memory = measured.cpu_ms, measured.memory_mb
    triton_cpu = cpu["triton"] + cpu["backend"]
    own_ms = 1e3 * WORKER_TASKS / measured.worker_per_second  # of one task, with others beside it
    worker = min(measured.worker_per_second, 1e3 * WORKER_TASKS / (own_ms + wanted.triton_ms))
    kinds = [
        Stage("gateway process", 1, 1e3 / cpu["gateway"], cpu["gateway"], memory["gateway"]),
        Stage("worker process", 1, worker, cpu["worker"], memory["worker"]),
        Stage(REDIS, 1, walls(measured, wanted)[0].per_second, cpu["redis"], memory["redis"]),
        Stage("Triton", 1, wanted.triton_per_second, triton_cpu, memory["triton"] + memory["backend"]),
    ]
    return [replace(kind, count=math.ceil(rate / kind.per_second / BUSY)) for kind in kinds]


def file_bytes(measured: Capacity, wanted: Wanted) -> float:
    """What Redis writes to its file for one image: that, and the records of its task."""
    return wanted.image_bytes + max(measured.redis["file_bytes"] - measured.image_bytes, 0)


def walls(measured: Capacity, wanted: Wanted) -> list[Wall]:
    """Those of one Redis, the first one first."""
    outward = WIRE * wanted.image_bytes * (1 + wanted.replicas)
    found = [
        Wall("its one thread", 1e3 / measured.cpu_ms["redis"]),
        Wall("its host's network", wanted.link_bytes / outward),
        Wall("its disk", wanted.disk_bytes / file_bytes(measured, wanted)),
    ]
    return sorted(found, key=lambda wall: wall.per_second)


def sized(measured: Capacity, wanted: Wanted, most_ms: float) -> tuple[int, list[Stage]]:
    """How many stacks, and what each has, so that 99 % wait at most `most_ms`: one more where they wait longest."""
    stacks = math.ceil(wanted.rate / walls(measured, wanted)[0].per_second / BUSY)
    kinds = stages(measured, wanted, wanted.rate / stacks)
    while sum(kind.wait_ms(wanted.rate / stacks) for kind in kinds) > most_ms:
        slowest = max(kinds, key=lambda kind: kind.wait_ms(wanted.rate / stacks))
        if slowest.name == REDIS:
            stacks += max(1, stacks // 128)  # so that thousands are found at once
            kinds = stages(measured, wanted, wanted.rate / stacks)
        else:
            kinds = [replace(kind, count=kind.count + (kind is slowest)) for kind in kinds]
    return stacks, kinds


def report(measured: Capacity, wanted: Wanted, p99_ms: float) -> str:
    """Raises ValueError when no number of processes answers within `p99_ms`."""
    least_ms = measured.alone_ms + wanted.triton_ms
    if p99_ms <= least_ms:
        raise ValueError(f"P99={p99_ms:g}: one image alone takes {least_ms:.0f} ms; give more, or a faster model")
    stacks, kinds = sized(measured, wanted, p99_ms - least_ms)
    rate = wanted.rate / stacks
    lines = [
        f"{wanted.rate:,.0f} images/s of {wanted.image_bytes / 1e3:,.0f} kB; Triton: {wanted.triton_per_second:,g} "
        f"images/s, {wanted.triton_ms:.1f} ms. From figures of {measured.machine}.",
        "",
        f"| {counted(stacks)} | number | busy | CPU cores | memory, GB | 99 % wait at most, ms |",
        "|---|---|---|---|---|---|",
    ]
    for kind in kinds:
        cores, memory = wanted.rate * kind.cpu_ms / 1e3, stacks * kind.count * kind.memory_mb / 1e3
        lines.append(
            f"| {kind.name} | {stacks * kind.count:,} | {kind.busy(rate):.0%} | {cores:,.1f} | {memory:,.1f} "
            f"| {kind.wait_ms(rate):.1f} |"
        )
    waits = sum(kind.wait_ms(rate) for kind in kinds)
    in_gigabits = WIRE * wanted.rate * wanted.image_bytes / GIGABIT
    to_triton = wanted.rate * RAW_BYTES / GIGABIT if wanted.triton_elsewhere else 0.0
    bound = ", then ".join(f"{wall.what} at {wall.per_second:,.0f}" for wall in walls(measured, wanted))
    return "\n".join(
        [
            *lines,
            "",
            f"Upload to result: 99 % within about {least_ms + waits:.0f} ms, {least_ms:.0f} ms of it without waiting.",
            f"Network: {in_gigabits:,.2f} Gbit/s to the gateways, as much to Redis and from it to the workers, "
            f"{in_gigabits * wanted.replicas:,.2f} to replicas, {to_triton:,.2f} to Tritons.",
            f"Redis' files: {wanted.rate * file_bytes(measured, wanted) / 1e6:,.0f} MB/s in all.",
            f"One Redis ends, in images/s, by {bound}.",
        ]
    )


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, by the names that make takes."""
        said = re.sub(r"^argument --([a-z0-9-]+): ", lambda found: found[1].upper().replace("-", "_") + "=", message)
        self.exit(2, f"plan: {said}\n")


def parse() -> argparse.Namespace:
    parser = Parser(prog="make plan", description=__doc__)
    add = parser.add_argument
    add("--rate", type=between(1e-3, 1e6), help="images a second")
    add("--triton", type=between(1e-1, 1e6), help="images a second that one Triton runs alone")
    add("--triton-ms", type=between(1e-3, 1e6), help="how long a call takes; a batch of 8 unless given")
    add("--kb", type=between(1e-1, 1e5), help="kilobytes of an image; as measured unless given")
    add("--p99", type=between(1, 1e7), default=1000.0, help="milliseconds within which 99 %% are answered")
    add("--link", type=between(1e-2, 1e4), default=10.0, help="gigabits a second of a host's network")
    add("--disk", type=between(1, 1e6), default=500.0, help="megabytes a second that Redis' disk writes")
    add("--replicas", type=whole(0, 10), default=0, help="of each Redis")
    add("--elsewhere", type=whole(0, 1), nargs="?", const=1, default=0, help="1: Tritons on other hosts than workers")
    return parser.parse_args()


def main() -> int:
    given = parse()
    if not given.rate or not given.triton:
        print(
            "plan: give RATE=, images a second, and TRITON=, those that one Triton runs of your model, as `make bench` "
            "or `make gpu-check` measures it",
            file=sys.stderr,
        )
        return 2
    measured = msgspec.json.decode(FILE.read_bytes(), type=Capacity)
    wanted = Wanted(
        rate=given.rate,
        image_bytes=given.kb * 1e3 if given.kb else measured.image_bytes,
        triton_per_second=given.triton,
        triton_ms=given.triton_ms or 8e3 / given.triton,
        link_bytes=given.link * GIGABIT,
        disk_bytes=given.disk * 1e6,
        replicas=given.replicas,
        triton_elsewhere=bool(given.elsewhere),
    )
    try:
        print(report(measured, wanted, given.p99))
    except ValueError as error:
        print(f"plan: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    exit_with(main)
