"""Where the Triton to look at is, and what its machine has."""

from __future__ import annotations

import json
import os
import re
import socket
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from export.doctor.model import Host

ROOT = Path(__file__).resolve().parents[2]
GRPC_PORT, METRICS_PORT = 8001, 8002
GPU_METRIC = re.compile(r'^nv_gpu_utilization\{gpu_uuid="([^"]+)"', re.MULTILINE)


class AddressError(Exception):
    """An address that cannot be one; the message says what to give."""


@dataclass(frozen=True, slots=True)
class Place:
    """Triton's gRPC endpoint, host:port, the address of its metrics, and the key to its model control if it has one.

    `repository` is its model repository where that is known.
    """

    url: str
    metrics_url: str
    key: str = ""
    repository: Path | None = None

    @property
    def host(self) -> str:
        return self.url.rpartition(":")[0].strip("[]")


def find(url: str, metrics_url: str, environment: Mapping[str, str]) -> Place:
    """What was given, else TRITON_URL and METRICS_URL, else what `make run` started here, else Triton's usual ports.

    The key is TRITON_KEY, or that of `make run`; the model repository MODEL_REPOSITORY, or that of `make run`.

    Raises AddressError for an endpoint that is not host:port.
    """
    metrics_url = metrics_url or environment.get("METRICS_URL", "")
    key = environment.get("TRITON_KEY", "")
    repository = Path(environment["MODEL_REPOSITORY"]) if environment.get("MODEL_REPOSITORY") else None
    run_dir = Path(environment.get("RUN_DIR") or ROOT / ".run")
    given = url or environment.get("TRITON_URL", "")
    if not given and (here := running_here(run_dir / "stack.json")):
        own = {"metrics_url": metrics_url or here.metrics_url, "key": key or stored_key(run_dir)}
        return replace(here, **own, repository=repository or here.repository)
    given = given or f"127.0.0.1:{GRPC_PORT}"
    host, _, port = given.rpartition(":")
    if not host or "/" in given or not port.isdecimal():
        raise AddressError(f"{given} is no host:port; give Triton's gRPC endpoint, such as 127.0.0.1:{GRPC_PORT}")
    return Place(given, metrics_url or f"http://{host}:{METRICS_PORT}/metrics", key, repository)


def stored_key(run_dir: Path) -> str:
    """What `make run` has left there for whoever may read it."""
    try:
        return (run_dir / "triton.key").read_text().strip()
    except OSError:
        return ""


def running_here(state: Path) -> Place | None:
    """The Triton of a stack that `make run` has started and that still listens."""
    try:
        told = json.loads(state.read_text())["triton"]
        host, _, port = told["grpc"].rpartition(":")
        socket.create_connection((host, int(port)), timeout=1).close()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    repository = Path(told["repository"]) if "repository" in told else None
    return Place(told["grpc"], told.get("metrics", f"http://{host}:{METRICS_PORT}/metrics"), repository=repository)


def look_at(place: Place) -> tuple[Host, bool]:
    """The machine, and whether its metrics answer."""
    try:
        # No proxy: Triton's metrics are next door, and a proxy's error page is not Triton's.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(place.metrics_url, timeout=5) as answer:
            metrics = answer.read().decode(errors="replace")
    except (OSError, ValueError):
        metrics = ""
    answered = "nv_inference" in metrics
    gpus = len(set(GPU_METRIC.findall(metrics))) if answered else None
    return Host(cores=cores() if is_here(place.host) else None, gpus=gpus), answered


def is_here(host: str) -> bool:
    """Whether the name is one of this machine: only its own addresses can be listened on."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
