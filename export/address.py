"""Where the Triton is that export, doctor and evaluation talk to."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.secret_files import SecretError, secret
from gateway.triton.addresses import is_several

ROOT = Path(__file__).resolve().parents[1]
GRPC_PORT, METRICS_PORT = 8001, 8002


class AddressError(Exception):
    """An address or its key cannot be had; the message says what to give."""


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

    The key is TRITON_KEY, or in the file TRITON_KEY_FILE, or that of `make run`; the model repository is
    MODEL_REPOSITORY, or that of `make run`.

    Raises AddressError for an endpoint that is not host:port, and a file of the key that cannot be read.
    """
    metrics_url = metrics_url or environment.get("METRICS_URL", "")
    try:
        key = secret("TRITON_KEY", environment)
    except SecretError as error:
        raise AddressError(str(error)) from error
    repository = Path(environment["MODEL_REPOSITORY"]) if environment.get("MODEL_REPOSITORY") else None
    run_dir = Path(environment.get("RUN_DIR") or ROOT / ".run")
    given = url or environment.get("TRITON_URL", "")
    if not given and (here := running_here(run_dir / "stack.json")):
        own = {"metrics_url": metrics_url or here.metrics_url, "key": key or stored_key(run_dir)}
        return replace(here, **own, repository=repository or here.repository)
    given = given or f"127.0.0.1:{GRPC_PORT}"
    if is_several(given):
        raise AddressError(f"{given} may be several Tritons; give the host:port of one, and then of each other one")
    host, _, port = given.rpartition(":")
    if not host or "/" in given or not port.isdecimal():
        raise AddressError(f"{given} is no host:port; give Triton's gRPC endpoint, such as 127.0.0.1:{GRPC_PORT}")
    return Place(given, metrics_url or f"http://{host}:{METRICS_PORT}/metrics", key, repository)


def stored_key(run_dir: Path) -> str:
    """What `make run` has left there for whoever may read it."""
    try:
        return (run_dir / "triton.key").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def running_here(state: Path) -> Place | None:
    """The Triton of a stack that `make run` has started and that still listens."""
    try:
        kept = json.loads(state.read_text())["triton"]
        host, _, port = kept["grpc"].rpartition(":")
        socket.create_connection((host, int(port)), timeout=1).close()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    repository = Path(kept["repository"]) if "repository" in kept else None
    return Place(kept["grpc"], kept.get("metrics", f"http://{host}:{METRICS_PORT}/metrics"), repository=repository)
