"""The whole service in front of a Triton, and a load of photographs on it."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.arms import ROOT, NotStarted, loading
from benchmarks.gpu.host import CannotCheck, Use
from benchmarks.gpu.report import Load
from benchmarks.gpu.triton import Server, batches
from benchmarks.load import Plan
from benchmarks.senders import Target
from local.errors import LocalError
from local.stack import Stack, commands, log_files, on_free_ports

LOADERS, CLIENTS = 4, 32


@contextmanager
def served(server: Server, model: str, workers: int, tasks: int, folder: Path) -> Iterator[str]:
    """Redis, workers and the gateway; yields the gateway's host:port. Raises NotStarted."""
    environment = on_free_ports(model, ROOT, folder)
    environment |= {"TRITON_URL": server.url, "TRITON_HTTP_URL": server.http_url}
    environment |= {"TRITON_KEY": "", "TRITON_MEMORY_KEY": server.memory_key}
    environment |= {"WORKER_TASKS": str(tasks), "LOG_LEVEL": "warning"}
    stack = Stack(commands(folder, workers, "redis", "gateway"), environment, log_files(folder))
    stack.start()
    try:
        stack.wait_until_ready()
        yield f"127.0.0.1:{environment['PORT']}"
    except LocalError as error:
        raise NotStarted(str(error)) from error
    finally:
        stack.stop()


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
