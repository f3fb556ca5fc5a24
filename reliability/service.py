"""The whole service as processes that can be killed: each is started again, unless it is held down."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis
from honcho.environ import parse_procfile

from local import triton
from local.ports import free_ports
from reliability.promises import until

PROCFILE = Path(triton.__file__).with_name("Procfile")
READY_SECONDS = 90
_RESTART_SECONDS = 0.5
_STOP_SECONDS = 20


class ServiceError(Exception):
    """The service did not come up; the message ends with the logs."""


@dataclass
class Ending:
    """A process that ended: when (seconds since the epoch), its name, its log, its exit status."""

    at: float
    name: str
    log: Path
    status: int


@dataclass
class _Process:
    name: str
    command: str
    runs: int = 0
    held: bool = False
    running: "subprocess.Popen[bytes] | None" = None
    log: Path = field(default_factory=Path)


class Service:
    """Redis, Triton, workers and gateway on free ports of 127.0.0.1. `settings` are environment variables."""

    def __init__(
        self, folder: Path, repository: Path, model: str, workers: int = 2, settings: Mapping[str, str] | None = None
    ) -> None:
        http_port, grpc_port, metrics_port, redis_port, port = free_ports(5)
        self.url = f"http://127.0.0.1:{port}"
        self.redis_url = f"redis://127.0.0.1:{redis_port}/0"
        self.folder, self.endings = folder, list[Ending]()
        self._grpc_port = grpc_port
        self._environment = os.environ | {
            "PYTHON": sys.executable,
            "RUN_DIR": str(folder),
            "MODEL_REPOSITORY": str(repository),
            "MODEL": model,
            "PORT": str(port),
            "REDIS_URL": self.redis_url,
            "TRITON_URL": f"127.0.0.1:{grpc_port}",
            "LOCAL_REDIS_PORT": str(redis_port),
            "TRITON_HTTP_PORT": str(http_port),
            "TRITON_GRPC_PORT": str(grpc_port),
            "TRITON_METRICS_PORT": str(metrics_port),
            "METRICS_PORT": "0",
            "WORKER_METRICS_PORT": "0",
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "debug",
            **(settings or {}),
        }
        commands = parse_procfile(PROCFILE.read_text()).processes
        names = ["redis", "triton", *(f"worker.{number}" for number in range(1, workers + 1)), "gateway"]
        self._processes = {name: _Process(name, commands[name.partition(".")[0]]) for name in names}
        self._lock, self._stopping = threading.RLock(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    @property
    def names(self) -> list[str]:
        return list(self._processes)

    @property
    def workers(self) -> list[str]:
        return [name for name in self._processes if name.startswith("worker")]

    def pid(self, name: str) -> int | None:
        running = self._processes[name].running
        return None if running is None or running.poll() is not None else running.pid

    def children(self, name: str, command: str) -> list[int]:
        """Processes of that command name that a process has started."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                head, _, fields = path.read_text().rpartition(")")
                if int(fields.split()[1]) == self.pid(name) and head.partition("(")[2].startswith(command[:15]):
                    found.append(int(path.parent.name))
        return found

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal, SIGKILL to all that the process has started too; it is started again unless held."""
        with self._lock:
            pid = self.pid(name)
            if pid is not None:
                with suppress(ProcessLookupError):
                    (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)

    def hold(self, name: str) -> None:
        """Kill a process and do not start it again before `release`."""
        with self._lock:
            self._processes[name].held = True
            self.kill(name)

    def release(self, name: str) -> None:
        self._processes[name].held = False

    def missing(self) -> dict[str, str] | None:
        """What /readyz says is missing; None when nobody answers."""
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=6, trust_env=False)
        except httpx.HTTPError:
            return None
        found: dict[str, str] = answer.json().get("missing") or {}
        return found

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> float:
        """Seconds until all was ready. Raises ServiceError."""
        taken = until(lambda: self.missing() == {}, seconds)
        if taken is None:
            raise ServiceError(f"not ready after {seconds} s: {self.missing()}\n{self.tails()}")
        return taken

    def records(self, *kinds: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The lines that workers and gateway have logged, with the file; what is not JSON is under `text`."""
        for path in sorted(self.folder.glob("*.log")):
            if path.name.startswith(kinds or ("worker", "gateway")):
                for line in path.read_text(errors="replace").splitlines():
                    try:
                        yield path, json.loads(line)
                    except ValueError:
                        yield path, {"text": line}

    def tails(self) -> str:
        return "\n".join(f"== {path}\n{path.read_text(errors='replace')[-1500:]}" for path in self.folder.glob("*.log"))

    def memory_bytes(self, kind: str) -> int:
        """Resident memory of the processes of one kind, with all that they have started."""
        pids = [self.pid(name) for name in self._processes if name.startswith(kind)]
        return sum(_resident_bytes(pid) for pid in pids if pid is not None)

    def redis(self) -> "redis.Redis":
        return redis.Redis.from_url(self.redis_url, socket_timeout=5)

    def start(self) -> None:
        for process in self._processes.values():
            self._start(process)
        self._watcher.start()

    def stop(self) -> None:
        """Users first, then the servers; what does not end is killed."""
        self._stopping.set()
        self._watcher.join()
        for names in (["gateway", *self.workers], ["triton", "redis"]):
            for name in names:
                self.kill(name, signal.SIGTERM)
            for name in names:
                self._wait(self._processes[name])
        triton.clear(self._grpc_port)

    def _wait(self, process: _Process) -> None:
        if process.running is not None:
            with suppress(subprocess.TimeoutExpired):
                process.running.wait(_STOP_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(process.running.pid, signal.SIGKILL)
            process.running.wait()

    def _start(self, process: _Process) -> None:
        if process.name == "triton":
            triton.clear(self._grpc_port)
        process.runs += 1
        process.log = self.folder / f"{process.name}-{process.runs}.log"
        with process.log.open("wb") as output:
            process.running = subprocess.Popen(
                ["/bin/sh", "-c", process.command],
                cwd=triton.ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _watch(self) -> None:
        down: dict[str, float] = {}
        while not self._stopping.wait(0.05):
            with self._lock:
                for name, process in self._processes.items():
                    if process.running is not None and (status := process.running.poll()) is not None:
                        with suppress(ProcessLookupError):
                            os.killpg(process.running.pid, signal.SIGKILL)
                        self.endings.append(Ending(time.time(), name, process.log, status))
                        process.running, down[name] = None, time.monotonic()
                    if process.running is None and not process.held:
                        if time.monotonic() - down[name] >= _RESTART_SECONDS:
                            self._start(process)


@contextmanager
def running(
    folder: Path, repository: Path, model: str, workers: int = 2, settings: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """A service that is ready; stopped when the block is left."""
    folder.mkdir(parents=True, exist_ok=True)
    service = Service(folder, repository, model, workers, settings)
    service.start()
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.stop()


def _resident_bytes(pid: int) -> int:
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[2]) == pid:  # the process group
                total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return total
