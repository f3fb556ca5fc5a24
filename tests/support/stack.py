"""Starts the real servers for tests: on free ports, with bounded waits, and nothing left behind."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

import local.stack
from local import processes, triton
from local.ports import free_ports
from local.processes import stopping
from local.stack import ask, commands, log_files, on_free_ports

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".run" / "tests"
START_SECONDS = 60


class NotStarted(AssertionError):
    """A server did not come up; the message ends with its log."""


@dataclass(frozen=True)
class Triton:
    """A running Triton; `url` is gRPC's host:port, `metrics_url` the Prometheus page, `keys` what it asks for."""

    url: str
    http_url: str
    metrics_url: str
    log: Path
    keys: triton.Keys = triton.NO_KEYS
    pid: int = 0

    @property
    def http_address(self) -> str:
        return self.http_url.removeprefix("http://")


@dataclass(frozen=True)
class Stack:
    """The running service; `triton_url` is gRPC's host:port, `metrics_url` Triton's Prometheus page."""

    base_url: str
    metrics_url: str
    redis_url: str
    triton_url: str


def exported(weights: Path, name: str) -> Path:
    """A model repository with that checkpoint, exported anew only if the checkpoint or the exporter has changed."""
    key = hashlib.sha256(weights.read_bytes())
    for source in sorted((ROOT / "export").rglob("*.py")):
        key.update(source.read_bytes())
    repository = CACHE / f"{name}-{key.hexdigest()[:16]}"
    if not repository.is_dir():
        aside = repository.with_name(f"{repository.name}.{os.getpid()}")
        options = ["--weights", str(weights), "--name", name, "--repository", str(aside)]
        done = subprocess.run([sys.executable, "-m", "export", *options], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for old in CACHE.glob(f"{name}-*[!.]"):
            if old != aside:
                shutil.rmtree(old, ignore_errors=True)
        with suppress(FileExistsError):
            aside.rename(repository)
    return repository


@contextmanager
def running_triton(
    repository: Path,
    folder: Path,
    keys: triton.Keys = triton.NO_KEYS,
    without: tuple[str, ...] = (),
    grpc_port: int = 0,
    http_port: int = 0,
) -> Iterator[Triton]:
    """Triton with every model of `repository`; `folder` takes its log. `keys` and `without` as for `triton.start`.

    `grpc_port` and `http_port` are free ones when none are given.
    """
    free_http, free_grpc, metrics_port = free_ports(3)
    http_port, grpc_port = http_port or free_http, grpc_port or free_grpc
    log = folder / "triton.log"
    process = triton.start(repository, http_port, grpc_port, metrics_port, log, keys, without)
    url = f"127.0.0.1:{grpc_port}"
    try:
        with stopping(process), InferenceServerClient(url) as client:
            wait_until(lambda: triton_is_ready(client), process, log)
            yield Triton(
                url, f"http://127.0.0.1:{http_port}", f"http://127.0.0.1:{metrics_port}/metrics", log, keys, process.pid
            )
    finally:
        triton.clear(grpc_port)


@contextmanager
def running_stack(
    server: Triton, folder: Path, model: str, workers: int = 2, settings: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """Redis, workers and the gateway in front of a Triton; `folder` takes their logs."""
    environment = on_free_ports(model, ROOT, folder) | {"TRITON_URL": server.url}
    environment |= {"TRITON_HTTP_URL": server.http_address}
    environment |= {"TRITON_KEY": server.keys.control, "TRITON_MEMORY_KEY": server.keys.memory}
    environment |= settings or {}
    stack = local.stack.Stack(commands(folder, workers, "redis", "gateway"), environment, log_files(folder))
    stack.start()
    try:
        stack.wait_until_ready()
        yield Stack(f"http://127.0.0.1:{environment['PORT']}", server.metrics_url, environment["REDIS_URL"], server.url)
    finally:
        stack.stop()


def running(module: str, settings: dict[str, str], log: Path) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """`python -m module`, stopped when the block is left."""
    return processes.running([sys.executable, "-m", module], settings, log, ROOT)


def running_program(
    command: list[str], settings: dict[str, str], log: Path
) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """Any program, stopped when the block is left."""
    return processes.running(command, settings, log, ROOT)


def wait_until(true: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Raises NotStarted, with the end of the log, when the process ends or START_SECONDS are over."""
    deadline = time.monotonic() + START_SECONDS
    while not true():
        status = process.poll()
        if status is not None or time.monotonic() > deadline:
            how = f"not ready after {START_SECONDS} s" if status is None else f"ended with exit status {status}"
            raise NotStarted(f"{process.args!r} {how}\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.1)


def triton_is_ready(client: InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_ready(client_timeout=2))
    except InferenceServerException:
        return False


def get_status(port: int, path: str) -> int:
    """Status of a GET to 127.0.0.1; 0 where nobody answers."""
    return ask("127.0.0.1", port, path)[0]
