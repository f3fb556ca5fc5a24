"""The whole service in front of a Triton, and a load of photographs on it."""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.arms import ROOT, NotStarted, loading, wait_for_port
from benchmarks.gpu.host import CannotCheck, Use
from benchmarks.gpu.report import Load
from benchmarks.gpu.triton import Server, batches
from benchmarks.load import Plan
from benchmarks.processes import running
from benchmarks.senders import Target
from local.ports import free_ports

LOADERS, CLIENTS = 4, 32


@contextmanager
def served(server: Server, model: str, workers: int, tasks: int, folder: Path) -> Iterator[str]:
    """Redis, workers and the gateway; yields the gateway's host:port. Raises NotStarted."""
    port, redis_port = free_ports(2)
    settings = {
        "LOCAL_REDIS_PORT": str(redis_port),
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "RUN_DIR": str(folder),
        "TRITON_URL": server.url,
        "TRITON_MEMORY_KEY": server.memory_key,
        "MODEL": model,
        "PORT": str(port),
        "WORKER_TASKS": str(tasks),
        "METRICS_PORT": "0",
        "WORKER_METRICS_PORT": "0",
        "LOG_LEVEL": "warning",
    }
    with ExitStack() as stack:

        def start(name: str, module: str) -> object:
            command = [sys.executable, "-m", module]
            return stack.enter_context(running(command, settings, ROOT, folder / f"{name}.log"))

        start("redis", "local.valkey")
        for number in range(workers):
            start(f"worker-{number}", "gateway.worker")
        gateway = running([sys.executable, "-m", "gateway.web"], settings, ROOT, folder / "gateway.log")
        wait_for_port(stack.enter_context(gateway), port, "/readyz", folder / "gateway.log")
        yield f"127.0.0.1:{port}"


def measure(server: Server, model: str, images: list[Path], workers: int, tasks: int, seconds: float) -> Load:
    """Clients that send a photograph and wait for its detections. Raises CannotCheck."""
    with tempfile.TemporaryDirectory(prefix=f"gpu-check-{secrets.token_hex(2)}-") as place, ExitStack() as exits:
        folder = Path(place)
        try:
            address = exits.enter_context(served(server, model, workers, tasks, folder))
            target = Target("raw", [str(image) for image in images], address, "/predict?wait=60")
            loaders = [exits.enter_context(loading(target, folder, str(number))) for number in range(LOADERS)]
            before, use = batches(server.url, model), Use()
            with use.watched(), ThreadPoolExecutor(LOADERS) as pool:
                samples = list(pool.map(lambda loader: loader.run(Plan(CLIENTS, seconds)), loaders))
        except NotStarted as error:
            raise CannotCheck(f"the whole service was not measured: {error}") from error
        return Load(
            rate=sum(sample.rate for sample in samples),
            failed=sum(sample.failed + sample.wrong for sample in samples),
            batches={str(size): count for size, count in sorted((batches(server.url, model) - before).items())},
            gpu_percent=use.percent,
            watts=use.watts,
        )
