"""`python -m benchmarks.capacity`: what a task costs each part of the service, with a model that costs nothing.

Writes `benchmarks/capacity.json`, from which `make plan` calculates. Run it with nothing else at work.
"""

import argparse
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import redis

from benchmarks import arms, constant_model, pictures, say
from benchmarks.arguments import ROUNDS, SECONDS, exit_with
from benchmarks.load import Plan
from benchmarks.plan import FILE, WORKER_TASKS, Capacity
from benchmarks.results import latency_of
from benchmarks.senders import Target
from gateway.redis_names import QUEUE_KEY
from local.stack import DEFAULT_WORKERS

CLIENTS, QUEUED, EDGE = 16, 1500, 100
LOADS = (0.5, 0.7, 0.85)  # of the most: where latency is measured
# All that is queued comes from one address.
SETTINGS = {
    "MAX_QUEUED_TASKS_PER_CLIENT": "5000",
    "MAX_QUEUED_BYTES_PER_CLIENT": "1000000000",
    "WORKER_TASKS": str(WORKER_TASKS),
}


def main() -> int:
    arguments = parse()
    images = pictures.photographs(arguments.images or pictures.folder())
    if not arguments.images:
        images = pictures.of_size(images, constant_model.IMGSZ)
    if not images:
        print("capacity: no photographs (*.jpg) to send; name a folder of yours with --images", file=sys.stderr)
        return 1
    try:
        found = measure(images, arguments.rounds, arguments.seconds)
    except arms.NotStarted as error:
        print(f"capacity: {error}", file=sys.stderr)
        return 1
    text = json.dumps(msgspec.to_builtins(found), indent=2)
    FILE.write_text(re.sub(r"(\.\d{3})\d+", r"\1", text) + "\n")
    say(f"written to {FILE.relative_to(arms.ROOT)}")
    return 0


def measure(images: list[Path], rounds: int, seconds: float) -> Capacity:
    """Raises NotStarted."""
    with running(DEFAULT_WORKERS, images) as (service, loader):
        say("closed loop")
        loader.run(Plan(CLIENTS, seconds))
        before, counted = service.cpu(), redis_counters(service)
        samples = [loader.run(Plan(CLIENTS, seconds)) for _ in range(rounds)]
        answered = sum(len(sample.latencies_ms) for sample in samples)
        cpu_ms = {role: (used - before[role]) / answered * 1e3 for role, used in service.cpu().items()}
        of_redis = {name: (value - counted[name]) / answered for name, value in redis_counters(service).items()}
        most = statistics.median(sample.rate for sample in samples)
        say("one client, then steady rates")
        alone = statistics.median(loader.run(Plan(1, seconds)).latencies_ms)
        steady = [loader.run(Plan(4 * CLIENTS, 2 * seconds, rate=share * most)) for share in LOADS]
        memory = service.memory()
    with running(1, images) as (service, _):
        say("one worker")
        drained = statistics.median(drain(service, images) for _ in range(rounds))
    return Capacity(
        machine=f"{processor()}, Python {platform.python_version()}",
        cores=os.cpu_count() or 1,
        image_bytes=round(statistics.mean(image.stat().st_size for image in images)),
        workers=DEFAULT_WORKERS,
        cpu_ms=cpu_ms,
        client_cpu_ms=sum(sample.cpu_seconds for sample in samples) / answered * 1e3,
        memory_mb=memory,
        per_second=most,
        worker_per_second=drained,
        alone_ms=alone,
        redis=of_redis,
        latencies=[latency_of(sample) for sample in steady],
    )


@contextmanager
def running(workers: int, images: list[Path]) -> Iterator[tuple[arms.Service, arms.Loader]]:
    """The stack with the model that costs nothing, and its load."""
    with tempfile.TemporaryDirectory(prefix="capacity-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        constant_model.write(folder / "models")
        with arms.stack(constant_model.NAME, folder / "models", folder, SETTINGS, workers) as service:
            target = Target("raw", [str(image) for image in images], service.address, "/predict?wait=60")
            with arms.loading(target, folder, "load") as loader:
                yield service, loader


def processor() -> str:
    """Its name as Linux has it."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def drain(service: arms.Service, images: list[Path]) -> float:
    """Tasks a second that the one worker takes from a queue; nobody uploads meanwhile."""
    (worker,) = service.processes["worker"]
    with redis.Redis(port=service.redis_port) as connection, httpx.Client(trust_env=False) as client:
        worker.suspend()
        try:
            for number in range(QUEUED):
                image = images[number % len(images)]
                client.post(f"http://{service.address}/predict", content=image.read_bytes()).raise_for_status()
        finally:
            worker.resume()
        begun, ended = (passes(connection, depth) for depth in (QUEUED - EDGE, EDGE))
        return (QUEUED - 2 * EDGE) / (ended - begun)


def passes(connection: Any, depth: int) -> float:
    """The instant when the queue has come down to this depth."""
    while connection.llen(QUEUE_KEY) > depth:
        time.sleep(0.005)
    return time.perf_counter()


def redis_counters(service: arms.Service) -> dict[str, float]:
    """So far: scripts and commands that ran, those in scripts too, bytes in and out, bytes written to its file."""
    with redis.Redis(port=service.redis_port) as connection:
        info: dict[str, Any] = connection.info("everything")
    calls = {name: each["calls"] for name, each in info.items() if name.startswith("cmdstat_")}
    (server,) = service.processes["redis"]
    return {
        "scripts": sum(calls.get(f"cmdstat_{name}", 0) for name in ("eval", "evalsha")),
        "commands": sum(calls.values()),
        "in_bytes": info["total_net_input_bytes"],
        "out_bytes": info["total_net_output_bytes"],
        "file_bytes": server.io_counters().write_chars - info["total_net_output_bytes"],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--rounds", type=ROUNDS, default=4)
    parser.add_argument("--seconds", type=SECONDS, default=6)
    parser.add_argument("--images", type=Path, help="folder of photographs (*.jpg) like those that you will have")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with(main)
