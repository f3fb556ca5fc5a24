"""The service as processes of this machine: what `make run`, the tests, `make chaos` and `make bench` start.

Its parts by name are `redis`, `triton`, `worker.1`, `worker.2`, …, `webhooks` and `gateway` (several: `gateway.1`, …).
"""

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import psutil

from local import processes, triton, wheel
from local.errors import LocalError
from local.ports import USUAL, free_ports

READY_SECONDS = 90
DEFAULT_WORKERS = 2
SERVERS = ("redis", "triton")  # started first and stopped last
_LOOK_SECONDS = 0.1
# Who uses a secret, or what names one; nobody else has it in its environment.
SECRETS = {
    "API_KEYS": ("gateway",),
    "API_KEYS_FILE": ("gateway",),
    "CALLBACKS": ("gateway", "webhooks"),
    "WEBHOOK_SECRET": ("webhooks",),
    "TRITON_KEY": ("gateway", "triton"),
    "TRITON_MEMORY_KEY": ("worker", "triton"),
    "REDIS_URL": ("gateway", "worker", "webhooks"),
}
_METRICS = ("METRICS_PORT", "WORKER_METRICS_PORT")


class Ended(NamedTuple):
    """A part that ended: its exit status (a negative one is the signal that killed it), seconds since the epoch."""

    name: str
    status: int
    at: float


class Stack:
    """Parts of the service by their names; `environment` is the whole environment of each.

    `output` opens what a part writes to, each time that it starts. Gateways inherit the `door` that they listen on.
    """

    restarts = False  # whether somebody starts again what has ended

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        environment: Mapping[str, str],
        output: Callable[[str], IO[bytes]],
        door: socket.socket | None = None,
    ) -> None:
        self._commands, self._environment, self._output = dict(commands), environment, output
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._door = () if door is None else (door.fileno(),)

    @property
    def names(self) -> list[str]:
        return list(self._commands)

    @property
    def workers(self) -> list[str]:
        return [name for name in self._commands if name.startswith("worker")]

    def start(self, *names: str) -> None:
        """Start these parts; all of them when none is named."""
        for name in names or self.names:
            files = self._door if name.startswith("gateway") else ()
            with self._output(name) as output:
                self._running[name] = processes.start(
                    self._commands[name], environment_of(name, self._environment), output, wheel.ROOT, files
                )

    def pid(self, name: str) -> int | None:
        """Its process; None while it does not run."""
        process = self._running.get(name)
        return None if process is None or process.poll() is not None else process.pid

    def tree(self, kind: str) -> list[psutil.Process]:
        """The processes of all parts of one kind (`worker`), with those below them."""
        pids = [self.pid(name) for name in self._commands if name.partition(".")[0] == kind]
        return [process for pid in pids if pid is not None for process in processes.tree(pid)]

    def memory_bytes(self, kind: str) -> int:
        """Resident memory of all parts of one kind, with the processes below them."""
        return processes.resident_bytes(self.tree(kind))

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; SIGKILL goes to all that the part has started too."""
        pid = self.pid(name)
        if pid is not None and number == signal.SIGKILL:
            processes.kill_group(pid)
        elif pid is not None:
            self._running[name].send_signal(number)

    def ended(self) -> list[Ended]:
        """The parts that have ended since the last call; what they had started is killed."""
        found = []
        for name, process in list(self._running.items()):
            status = process.poll()
            if status is not None:
                processes.kill_group(process.pid)
                del self._running[name]
                found.append(Ended(name, status, time.time()))
        return found

    def watch(self, stopping: threading.Event) -> Ended | None:
        """Wait until `stopping` is set, or a part ends by itself, which is returned."""
        while not stopping.wait(_LOOK_SECONDS):
            for each in self.ended():
                return each
        return None

    def stop(self) -> None:
        """Ask first the users to end, then the servers; what has not ended after STOP_SECONDS in all is killed."""
        deadline = time.monotonic() + processes.STOP_SECONDS
        users = [name for name in self._running if name not in SERVERS]
        for names in (users, SERVERS):
            left = [self._running[name] for name in names if name in self._running]
            for process in left:
                process.terminate()
            for process in left:
                processes.stop(process, max(0.0, deadline - time.monotonic()))
        self._running.clear()
        if "TRITON_GRPC_PORT" in self._environment:
            triton.clear(int(self._environment["TRITON_GRPC_PORT"]))

    def missing(self) -> dict[str, str] | None:
        """What the gateway's /status says is missing; None when nobody answers."""
        status, body = ask("127.0.0.1", int(self._environment["PORT"]), "/status")
        return dict(json.loads(body).get("missing") or {}) if status else None

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> float:
        """Seconds until nothing was missing. Raises LocalError, also when a part has ended and nobody restarts it."""
        begun = time.monotonic()
        while (missing := self.missing()) != {}:
            gone = [] if self.restarts else [name for name in self._running if self.pid(name) is None]
            if gone or time.monotonic() - begun > seconds:
                reason = f"{gone[0]} has ended" if gone else missing or "the gateway does not answer"
                raise LocalError(f"the service is not ready: {reason}\n{self.tails()}")
            time.sleep(_LOOK_SECONDS)
        return time.monotonic() - begun

    def tails(self) -> str:
        """The ends of the logs in its RUN_DIR."""
        logs = sorted(Path(self._environment["RUN_DIR"]).glob("*.log"))
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in logs)


def environment_of(part: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What a part gets of an environment: none of the secrets that others use."""
    kind = part.partition(".")[0]
    foreign = {name for name, users in SECRETS.items() if kind not in users}
    return {name: value for name, value in environment.items() if not {name, name.removesuffix("_FILE")} & foreign}


def commands(run_dir: Path, workers: int, *others: str) -> dict[str, list[str]]:
    """The commands of `others` and of this many workers by the names of the parts, in the order of their start."""
    python = [sys.executable, "-m"]
    # The workers count into one folder, from which each of them can answer for all.
    worker = ["env", f"PROMETHEUS_MULTIPROC_DIR={run_dir / 'metrics'}", *python, "gateway.worker"]
    parts = {
        "redis": [*python, "local.valkey"],
        "triton": [*python, "local.triton"],
        **{f"worker.{number}": worker for number in range(1, workers + 1)},
        "webhooks": [*python, "gateway.webhooks"],
        "gateway": [*python, "gateway.web"],
    }
    return {name: command for name, command in parts.items() if name.startswith("worker") or name in others}


def gateways(door: socket.socket, metrics_ports: Sequence[int]) -> dict[str, list[str]]:
    """The commands of several gateways, one for each port of metrics, which all listen on the `door`."""
    shared = f"LISTEN_FD={door.fileno()}"
    return {
        f"gateway.{number}": ["env", shared, f"METRICS_PORT={port}", sys.executable, "-m", "gateway.web"]
        for number, port in enumerate(metrics_ports, 1)
    }


def settings(model: str, repository: Path, run_dir: Path, ports: Mapping[str, int]) -> dict[str, str]:
    """The settings that all parts share; `ports` by setting. Without LOCAL_REDIS_PORT there is no REDIS_URL."""
    redis_port = ports.get("LOCAL_REDIS_PORT")
    return {
        "MODEL": model,
        "MODEL_REPOSITORY": str(repository),
        "RUN_DIR": str(run_dir),
        "PYTHONUNBUFFERED": "1",
        **{setting: str(port) for setting, port in ports.items()},
        "TRITON_URL": f"127.0.0.1:{ports['TRITON_GRPC_PORT']}",
        "TRITON_HTTP_URL": f"127.0.0.1:{ports['TRITON_HTTP_PORT']}",
        **({"REDIS_URL": f"redis://127.0.0.1:{redis_port}/0"} if redis_port else {}),
    }


def on_free_ports(model: str, repository: Path, run_dir: Path) -> dict[str, str]:
    """An environment with `settings`: free ports of 127.0.0.1, an own Redis, random keys to Triton, no metrics."""
    names = ("PORT", "LOCAL_REDIS_PORT", *(name for name in USUAL if name not in _METRICS))
    ports = dict(zip(names, free_ports(len(names)), strict=True)) | dict.fromkeys(_METRICS, 0)
    keys = {name: secrets.token_hex(16) for name in ("TRITON_KEY", "TRITON_MEMORY_KEY")}
    own = {"HOST": "127.0.0.1", "DRAIN_SECONDS": "0", **keys, **settings(model, repository, run_dir, ports)}
    return {**os.environ, **own}


def log_files(folder: Path) -> Callable[[str], IO[bytes]]:
    """For `Stack`: a part writes to `folder`/NAME.log."""
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: (folder / f"{name}.log").open("wb")


def ask(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a GET; status 0 where nobody answers. No proxy is asked."""
    connection = http.client.HTTPConnection(host, port, timeout=6)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
