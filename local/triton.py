"""Triton without Docker: the tritonserver of the wheel nvidia-pytriton, with this folder's `onnxruntime` backend.

`python -m local.triton` becomes that server; `start` runs it as a child for tests.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gateway.secret_files import SecretError, secret
from local import stubs, wheel
from local.errors import LocalError
from local.processes import PRIVATE

PORTS = ("HTTP", "GRPC", "METRICS")
LOG = "triton.log"
CONFIG = "config.pbtxt"
OUT_OF_SERVICE = "config.pbtxt.unloaded"  # of `export/versions.py`
CONTROL, MEMORY = "yolo-key", "yolo-memory"  # their gRPC headers are these behind triton-grpc-protocol-


class Keys(NamedTuple):
    """What Triton is to ask for: model control is open without a key, shared memory is shut."""

    control: str = ""
    memory: str = ""

    @classmethod
    def given(cls) -> Keys:
        """TRITON_KEY and TRITON_MEMORY_KEY of the environment, or of files. Raises LocalError."""
        try:
            return cls(secret("TRITON_KEY", os.environ), secret("TRITON_MEMORY_KEY", os.environ))
        except SecretError as error:
            raise LocalError(str(error)) from error


NO_KEYS = Keys()


def start(
    repository: Path,
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    log: Path,
    keys: Keys = NO_KEYS,
    without: tuple[str, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start tritonserver on 127.0.0.1 with every model of `repository` that has a model file; its output goes to `log`.

    Options that begin as one of `without` are left out.

    Raises LocalError when it cannot be started at all. A model that does not load does not end it (see `failure`).
    """
    backends = wheel.compose_backends(log.parent / "backends")
    command = server_command(repository, http_port, grpc_port, metrics_port, backends, keys=keys)
    command = [part for part in command if not part.startswith(without)]
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env=wheel.environment(),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            umask=PRIVATE,
        )


def become(
    repository: Path,
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    log: Path,
    keys: Keys = NO_KEYS,
    address: str = "127.0.0.1",
) -> None:
    """As `start`, but this process turns into the server."""
    backends = wheel.compose_backends(log.parent / "backends")
    command = server_command(repository, http_port, grpc_port, metrics_port, backends, address, keys)
    clear(grpc_port)
    os.umask(PRIVATE)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    stubs.look_after_this_process(shared_memory(grpc_port))
    os.execve(command[0], command, wheel.environment())


def server_command(
    repository: Path,
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    backends: Path,
    address: str = "127.0.0.1",
    keys: Keys = NO_KEYS,
    http_address: str = "127.0.0.1",
) -> list[str]:
    """`address` is where gRPC and metrics listen. Raises LocalError without a model."""
    names = models(repository)
    if not names:
        raise LocalError(f"no model in {repository}: there is no <name>/<version>/*.onnx; run `make export-model`")
    return [
        str(wheel.package() / "tritonserver" / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory(grpc_port)}",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in names),
        "--disable-auto-complete-config",
        "--strict-readiness=false",
        "--exit-on-error=false",
        "--exit-timeout-secs=10",
        "--allow-gpu-metrics=false",
        f"--http-port={http_port}",
        f"--grpc-port={grpc_port}",
        f"--metrics-port={metrics_port}",
        f"--http-address={http_address}",
        f"--grpc-address={address}",
        f"--metrics-address={address}",
        *restrictions(keys),
        *tracing(os.environ),
    ]


def connection_age(seconds: str) -> list[str]:
    """Where several Tritons share a name: ends connections after so long, that clients resolve it again.

    Raises LocalError.
    """
    if seconds and not (seconds.isdecimal() and int(seconds)):
        raise LocalError(f"TRITON_CONNECTION_SECONDS={seconds}: give whole seconds, or leave it empty for no end")
    return [f"--grpc-max-connection-age={int(seconds) * 1000}"] if seconds else []


def tracing(environment: Mapping[str, str]) -> list[str]:
    """Triton's own spans, under those of workers and of nobody else, where OTEL_... asks for traces."""
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").rstrip("/")
    url = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or (base and f"{base}/v1/traces")
    off = (
        environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none"
    )
    if off or not url:
        return []
    own = f"opentelemetry,url={url}", "opentelemetry,resource=service.name=triton"
    every = "mode=opentelemetry", "level=TIMESTAMPS", "rate=0"  # a request with a traceparent is traced at any rate
    return [f"--trace-config={setting}" for setting in (*every, *own)]


def restrictions(keys: Keys) -> list[str]:
    """Shut what nobody here uses: each of these could read or write files or memory. A random key means nobody.

    HTTP is for health checks and inference; over gRPC the exporter loads and unloads models, and workers share memory.
    """
    nobody = f"closed={secrets.token_hex(16)}"
    return [
        f"--grpc-restricted-protocol=trace,logging:{nobody}",
        f"--grpc-restricted-protocol=shared-memory:{f'{MEMORY}={keys.memory}' if keys.memory else nobody}",
        *([f"--grpc-restricted-protocol=model-repository:{CONTROL}={keys.control}"] if keys.control else []),
        f"--http-restricted-api=shared-memory,trace,logging,model-repository:{nobody}",
    ]


def shared_memory(grpc_port: int) -> str:
    return f"yolo_triton_{grpc_port}_"


def clear(grpc_port: int) -> None:
    """Remove the shared memory of a server that has ended; a killed one leaves it."""
    for region in Path("/dev/shm").glob(f"{shared_memory(grpc_port)}*"):
        region.unlink(missing_ok=True)


def models(repository: Path) -> list[str]:
    """Names of the models with a config and an ONNX file in a version folder, and nothing that Triton dies of."""
    return [name for name in meant(repository) if not unfit(repository / name)]


def meant(repository: Path) -> list[str]:
    """As `models`, with those that are unfit: all but those taken out of service."""
    files = [file for file in repository.glob("*/*/*.onnx") if file.parent.name.isdecimal()]
    folders = {file.parent.parent for file in files}
    return sorted(each.name for each in folders if (each / CONFIG).is_file() or not (each / OUT_OF_SERVICE).is_file())


def unfit(model: Path) -> str:
    """What Triton would not start with, or would wait for without end; empty where there is nothing of it."""
    config, files = model / CONFIG, sorted(model.glob("*/*.onnx"))
    if not config.is_file():
        return f"{config} {kind(config)}"
    return next((f"{file} {kind(file)}" for file in files if not file.is_file() and not file.is_dir()), "")


def kind(path: Path) -> str:
    """What stands there in place of a file."""
    if path.exists():
        return "is a directory" if path.is_dir() else "is a pipe or a device"
    return "is a link to nothing" if path.is_symlink() else "is missing"


def failure(log: Path, model: str = "") -> str:
    """What tritonserver's log gives as the reason of its end, or why it does not serve a model, as one line."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    fatal = [line.removeprefix("error: ").rstrip(";") for line in lines if line.startswith("error:")]
    errors = [line.partition("] ")[2].strip('" ') for line in lines if line.startswith("E")]
    if model:
        return next((line for line in errors if f"'{model}'" in line), f"Triton gives no reason; see {log}")
    telling = [line for line in fatal if "failed to load all models" not in line]  # the error before it says why
    return next(iter(telling or errors[-1:] or lines[-1:]), "it said nothing")


def main() -> int:
    """Reads MODEL_REPOSITORY, RUN_DIR, `Keys.given` and TRITON_{HTTP,GRPC,METRICS}_PORT."""
    try:
        http_port, grpc_port, metrics_port = (int(os.environ[f"TRITON_{name}_PORT"]) for name in PORTS)
        become(
            Path(os.environ["MODEL_REPOSITORY"]),
            http_port,
            grpc_port,
            metrics_port,
            Path(os.environ["RUN_DIR"]) / LOG,
            Keys.given(),
        )
    except LocalError as error:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
