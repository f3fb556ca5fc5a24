"""Serves a registry to Prometheus, on a port of its own and in a thread of its own.

Worker processes of a host that share a folder (PROMETHEUS_MULTIPROC_DIR) share one port too: the one that holds the
folder's lock answers for all. The kernel frees the lock when it dies, and another takes over.
"""

import fcntl
import logging
import os
from pathlib import Path
from typing import IO

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from gateway.settings import Settings
from gateway.telemetry.metrics import WorkerMetrics

log = logging.getLogger(__name__)


def serve(host: str, port: int, registry: CollectorRegistry, setting: str) -> bool:
    """Answer GET /metrics; False, with a warning that names the setting, when the port cannot be had."""
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        log.warning(
            "no metrics are served: %s:%d: %s; give another %s, or 0 for none", host, port, error.strerror, setting
        )
        return False
    return True


class WorkerPort:
    """The workers' port, and what this worker counts; `try_to_serve` is to be called now and then."""

    def __init__(self, settings: Settings) -> None:
        self._host, self._port = settings.metrics_host, settings.worker_metrics_port
        self._lock: IO[str] | None = None
        self._settled = not self._port
        folder = settings.prometheus_multiproc_dir
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self._lock = (Path(folder) / "port.lock").open("w")
        self.metrics = WorkerMetrics()  # prometheus_client opens its files in the folder
        self._registry = shared_registry(Path(folder)) if folder else self.metrics.registry

    def try_to_serve(self) -> None:
        """Serve, unless another process does or this one has tried already."""
        if self._settled or not self._is_ours():
            return
        self._settled = True
        serve(self._host, self._port, self._registry, "WORKER_METRICS_PORT")

    def _is_ours(self) -> bool:
        if self._lock is None:
            return True
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def shared_registry(folder: Path) -> CollectorRegistry:
    """What all processes that write to `folder` have counted: of the dead ones the totals, not the gauges."""
    registry = CollectorRegistry()
    registry.register(_Living(None, str(folder)))
    return registry


class _Living(MultiProcessCollector):
    """A killed process cannot take its gauges along, so they are removed when somebody asks."""

    def __init__(self, registry: CollectorRegistry | None, folder: str) -> None:
        super().__init__(registry, folder)  # type: ignore[no-untyped-call]
        self._folder = Path(folder)

    def collect(self) -> list[Metric]:
        for file in self._folder.glob("gauge_live*_*.db"):
            pid = int(file.stem.rpartition("_")[2])
            if not _is_alive(pid):
                mark_process_dead(pid, str(self._folder))  # type: ignore[no-untyped-call]
        return list(super().collect())  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
