"""What is measured: this project's stack, its parts alone, and what a user would pick instead."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from benchmarks.load import Plan, Sample
from benchmarks.senders import Rows, Target
from local import processes
from local.errors import LocalError
from local.ports import free_ports
from local.processes import last_line, running
from local.stack import DEFAULT_WORKERS, Stack, ask, commands, log_files, on_free_ports

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 90
_LIT_PORT = 5006  # in the peer's source


class NotStarted(Exception):
    """An arm cannot be measured; the message says why in one line."""


@dataclass(frozen=True)
class Service:
    """The running stack: host:port of gateway and Triton (gRPC, HTTP), Redis' port, processes by role."""

    address: str
    triton_address: str
    triton_http_address: str
    redis_port: int
    processes: dict[str, list[psutil.Process]]

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far by role."""
        return {role: sum(map(cpu_seconds, found)) for role, found in self.processes.items()}

    def memory(self) -> dict[str, float]:
        """Megabytes of the largest process by role."""
        return {role: max(map(resident_megabytes, found), default=0.0) for role, found in self.processes.items()}


@contextmanager
def stack(
    model: str, repository: Path, folder: Path, settings: Mapping[str, str], workers: int = DEFAULT_WORKERS
) -> Iterator[Service]:
    """What `make run` starts, on free ports. Raises NotStarted."""
    run_dir = folder / "run"
    environment = on_free_ports(model, repository, run_dir) | dict(settings)
    started = Stack(
        commands(run_dir, workers, "redis", "triton", "webhooks", "gateway"), environment, log_files(run_dir)
    )
    started.start()
    try:
        started.wait_until_ready()
        found = {role: started.tree(role) for role in ("gateway", "worker", "redis")}
        server, *below = started.tree("triton")
        found["triton"] = [server]
        found["backend"] = [each for each in below if each.name().startswith("triton_python_b")]
        port, redis_port = (int(environment[name]) for name in ("PORT", "LOCAL_REDIS_PORT"))
        of_triton = environment["TRITON_URL"], environment["TRITON_HTTP_URL"]
        yield Service(f"127.0.0.1:{port}", *of_triton, redis_port, found)
    except LocalError as error:
        raise NotStarted(str(error)) from error
    finally:
        started.stop()


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time since its start, without that of its children."""
    times = process.cpu_times()
    return float(times.user + times.system)


def resident_megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


class Loader:
    """A process of load against one target; `run` measures once. `first` are the answers all others are held to."""

    def __init__(self, target: Target, folder: Path, name: str) -> None:
        self._log = folder / f"load-{name}.log"
        description = folder / f"load-{name}.json"
        description.write_bytes(msgspec.json.encode(target))
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.load", str(description)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        self.first = msgspec.json.decode(self._line(START_SECONDS), type=list[Rows])

    def run(self, plan: Plan) -> Sample:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(plan) + b"\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._line(plan.seconds + START_SECONDS), type=Sample)

    def close(self) -> None:
        processes.stop(self._process)

    def _line(self, seconds: float) -> bytes:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line: bytes = self._process.stdout.readline() if ready else b""
        if not line:
            self.close()
            raise NotStarted(f"no answer to the load: {last_line(self._log)}")
        return line


@contextmanager
def loading(target: Target, folder: Path, name: str) -> Iterator[Loader]:
    loader = Loader(target, folder, name)
    try:
        yield loader
    finally:
        loader.close()


@dataclass(frozen=True)
class Peers:
    """The peers' sources, an environment that has their packages, and the model that all serve."""

    sources: Path
    python: Path
    onnx: Path
    weights: Path

    def check(self) -> None:
        if not (self.sources / "common.py").is_file():
            raise NotStarted(f"no peers in {self.sources}; name their folder with PEERS")
        if not self.python.is_file():
            raise NotStarted(f"no {self.python}: it is made by `make bench` where PEERS names a folder")

    @contextmanager
    def litserve(self, folder: Path) -> Iterator[Target]:
        command = [str(self.python), str(self.sources / "lit.py"), "2"]
        with self._served("litserve", command, {}, _LIT_PORT, "/health", folder) as address:
            yield Target("multipart", [], address, "/predict")

    @contextmanager
    def mosec(self, folder: Path) -> Iterator[Target]:
        (port,) = free_ports(1)
        command = [str(self.python), str(self.sources / "mos.py"), "--port", str(port), "--address", "127.0.0.1"]
        with self._served("mosec", command, {}, port, "/metrics", folder) as address:
            yield Target("multipart", [], address, "/inference")

    @contextmanager
    def flask_celery(self, folder: Path) -> Iterator[Target]:
        if not self.weights.is_file():
            raise NotStarted(f"no checkpoint {self.weights}")
        port, redis_port = free_ports(2)
        environment = {
            "PYTHONPATH": str(self.sources / "flask_celery"),
            "BASE_REDIS": f"redis://127.0.0.1:{redis_port}/0",
            "BASE_WEIGHTS": str(self.weights),
            "BASE_UPLOADS": str(folder / "uploads"),
            "BASE_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        redis = {"LOCAL_REDIS_PORT": str(redis_port), "RUN_DIR": str(folder / "flask")}
        celery = [str(self.python), "-m", "celery", "-A", "app:celery", "worker", "-c", "2", "-l", "WARNING"]
        flask = [str(self.python), "-m", "flask", "--app", "app", "run", "--port", str(port)]
        with (
            running([sys.executable, "-m", "local.valkey"], redis, folder / "flask-redis.log", ROOT),
            running(celery, environment, folder / "celery.log", folder),
            self._served("flask", flask, environment, port, "/result/0", folder) as address,
        ):
            yield Target("celery", [], address, "/predict")

    @contextmanager
    def _served(
        self, name: str, command: list[str], environment: dict[str, str], port: int, path: str, folder: Path
    ) -> Iterator[str]:
        self.check()
        log = folder / f"{name}.log"
        if port == _LIT_PORT and answers(port, path):
            raise NotStarted(f"port {port} is taken")
        with running(command, {"MODEL_ONNX": str(self.onnx), **environment}, log, folder) as process:
            wait_for_port(process, port, path, log)
            yield f"127.0.0.1:{port}"


def wait_for_port(process: "subprocess.Popen[bytes]", port: int, path: str, log: Path) -> None:
    """Until a GET is answered with less than 500. Raises NotStarted."""
    deadline = time.monotonic() + START_SECONDS
    while not answers(port, path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise NotStarted(f"{log.stem} did not start: {last_line(log)}")
        time.sleep(0.2)


def answers(port: int, path: str) -> bool:
    return 0 < ask("127.0.0.1", port, path)[0] < 500


def peers_folder() -> Path:
    """The setting PEERS; by default the folder `shared/peers` next to the checkout."""
    return Path(os.environ.get("PEERS") or ROOT.parent / "shared" / "peers").resolve()
