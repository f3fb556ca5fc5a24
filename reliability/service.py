"""The whole service, whose parts can be killed: each is started again, unless it is held down."""

import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import redis

from local.stack import Stack, commands, on_free_ports

_RESTART_SECONDS = 0.5


class Ending(NamedTuple):
    """As `Ended`, with the log of that run."""

    name: str
    status: int
    at: float
    log: Path


class Service(Stack):
    """Redis, Triton, workers and gateway on free ports of 127.0.0.1. `settings` are environment variables,
    `commands_of` parts that are added or run otherwise.
    """

    restarts = True

    def __init__(
        self,
        folder: Path,
        repository: Path,
        model: str,
        workers: int = 2,
        settings: Mapping[str, str] | None = None,
        commands_of: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        environment = on_free_ports(model, repository, folder) | {"LOG_FORMAT": "json", "LOG_LEVEL": "debug"}
        environment |= settings or {}
        parts = {**commands(folder, workers, "redis", "triton", "gateway"), **(commands_of or {})}
        super().__init__(parts, environment, self._open_log)
        self.url, self.redis_url = f"http://127.0.0.1:{environment['PORT']}", environment["REDIS_URL"]
        self.folder, self.endings = folder, list[Ending]()
        self._logs: dict[str, Path] = {}
        self._held: set[str] = set()
        self._lock, self._stopping = threading.RLock(), threading.Event()
        self._watcher = threading.Thread(target=self._restart, daemon=True)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """As in `Stack`; the part is started again unless it is held."""
        with self._lock:
            super().kill(name, number)

    def hold(self, name: str) -> None:
        """Kill a part and do not start it again before `release`."""
        with self._lock:
            self._held.add(name)
            self.kill(name)

    def release(self, name: str) -> None:
        self._held.discard(name)

    def records(self, *kinds: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """As `records`; of workers and gateway when no kind is named."""
        return records(self.folder, *(kinds or ("worker", "gateway")))

    def redis(self) -> "redis.Redis":
        return redis.Redis.from_url(self.redis_url, socket_timeout=5)

    def start(self, *names: str) -> None:
        super().start(*names)
        if not names:
            self._watcher.start()

    def stop(self) -> None:
        self._stopping.set()
        self._watcher.join()
        super().stop()

    def _open_log(self, name: str) -> IO[bytes]:
        runs = sum(ending.name == name for ending in self.endings) + 1
        self._logs[name] = self.folder / f"{name}-{runs}.log"
        return self._logs[name].open("wb")

    def _restart(self) -> None:
        down: dict[str, float] = {}
        while not self._stopping.wait(0.05):
            with self._lock:
                for part in self.ended():
                    self.endings.append(Ending(*part, self._logs[part.name]))
                    down[part.name] = time.monotonic()
                for name in [name for name, since in down.items() if time.monotonic() - since >= _RESTART_SECONDS]:
                    if name not in self._held:
                        del down[name]
                        self.start(name)


def records(folder: Path, *kinds: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The lines that parts of these kinds have logged, with the file; what is not JSON is under `text`."""
    for path in sorted(folder.glob("*.log")):
        if path.name.startswith(kinds):
            for line in path.read_text(errors="replace").splitlines():
                try:
                    yield path, json.loads(line)
                except ValueError:
                    yield path, {"text": line}


@contextmanager
def running(
    folder: Path,
    repository: Path,
    model: str,
    workers: int = 2,
    settings: Mapping[str, str] | None = None,
    commands_of: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Service]:
    """A service that is ready; stopped when the block is left. Raises LocalError, which ends with the logs."""
    folder.mkdir(parents=True, exist_ok=True)
    service = Service(folder, repository, model, workers, settings, commands_of)
    service.start()
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.stop()
