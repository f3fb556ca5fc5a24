"""Triton in its container, as docker-compose.gpu.yml starts it, and a load on it alone."""

from __future__ import annotations

import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException

from benchmarks.gpu.host import CannotCheck, Use, user
from benchmarks.gpu.report import Load
from gateway.triton.connection import CHANNEL_ARGUMENTS
from gateway.triton.loading import not_loaded
from gateway.triton.shared_memory import SharedMemory
from gateway.triton.spec import OUTPUT, image_tensor
from local.ports import free_ports

START_SECONDS = 1800.0
IN_FLIGHT = 32  # a process


@dataclass(frozen=True)
class Server:
    """A running Triton: host:port of gRPC and HTTP, its metrics page, its key to shared memory, how long it took."""

    url: str
    http_url: str
    metrics_url: str
    memory_key: str
    seconds: float


@contextmanager
def serving(image: str, repository: Path, engines: Path, model: str) -> Iterator[Server]:
    """Triton with `repository`, once `model` is ready. Raises CannotCheck, with the reason, when it is not."""
    grpc_port, http_port, metrics_port = free_ports(3)
    name, key = f"yolo-gpu-check-{secrets.token_hex(4)}", secrets.token_hex(16)
    command = [
        *("docker", "run", "--rm", "--name", name, "--gpus", "all", "--ipc", "host", "--user", user()),
        *("--publish", f"127.0.0.1:{grpc_port}:8001", "--publish", f"127.0.0.1:{http_port}:8000"),
        *("--publish", f"127.0.0.1:{metrics_port}:8002"),
        *("--env", f"TRITON_MEMORY_KEY={key}", "--env", "TRITON_HTTP_ADDRESS=0.0.0.0"),
        *("--volume", f"{repository.resolve()}:/models:ro", "--volume", f"{engines.resolve()}:/var/cache/tensorrt"),
        image,
    ]
    begun, log = time.monotonic(), engines / "triton.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        url = f"127.0.0.1:{grpc_port}"
        wait_until_served(url, model, process, log)
        yield Server(
            url, f"127.0.0.1:{http_port}", f"http://127.0.0.1:{metrics_port}/metrics", key, time.monotonic() - begun
        )
    finally:
        subprocess.run(["docker", "stop", name], stdin=subprocess.DEVNULL, capture_output=True)
        process.terminate()
        process.wait(60)


def wait_until_served(url: str, model: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with InferenceServerClient(url, channel_args=CHANNEL_ARGUMENTS) as client:
        while time.monotonic() < deadline:
            try:
                if client.is_model_ready(model, client_timeout=5):
                    return
                if reason := not_loaded(client.get_model_repository_index(client_timeout=5).models).get(model):
                    raise CannotCheck(f"Triton did not load it: {reason}")
            except InferenceServerException:
                if process.poll() is not None:
                    break
            time.sleep(0.2)
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    raise CannotCheck(f"Triton did not start: {lines[-1]}")


def measure(server: Server, model: str, size: int, seconds: float, processes: int) -> Load:
    """Triton alone: images that lie in shared memory, as many requests on their way as its batches can take."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu.triton",
        server.url,
        server.memory_key,
        model,
        str(size),
        str(seconds),
    ]
    before, use = batches(server.url, model), Use()
    with use.watched():
        clients = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(processes)]
        ends = [client.communicate() for client in clients]
    if any(client.returncode for client in clients):
        said = next(error for _, error in ends if error).decode(errors="replace").strip().splitlines()
        raise CannotCheck(f"the load on Triton ended: {said[-1]}")
    loads = [msgspec.json.decode(output, type=Load) for output, _ in ends]
    formed = batches(server.url, model) - before
    return Load(
        rate=sum(load.rate for load in loads),
        failed=sum(load.failed for load in loads),
        batches={str(each): count for each, count in sorted(formed.items())},
        gpu_percent=use.percent,
        watts=use.watts,
    )


def batches(url: str, model: str) -> Counter[int]:
    """Executions by batch size, of all versions."""
    with InferenceServerClient(url, channel_args=CHANNEL_ARGUMENTS) as client:
        statistics = client.get_inference_statistics(model)
    counts: Counter[int] = Counter()
    for version in statistics.model_stats:
        for each in version.batch_stats:
            counts[each.batch_size] += each.compute_infer.count
    return counts


def lone_ms(url: str, model: str, size: int, times: int = 50) -> float:
    """The median of requests that are sent one at a time, milliseconds."""
    image = np.zeros((size, size, 3), np.uint8)
    taken = []
    with InferenceServerClient(url, channel_args=CHANNEL_ARGUMENTS) as client:
        for _ in range(times):
            begun = time.perf_counter()
            client.infer(model, [image_tensor(image)], outputs=[InferRequestedOutput(OUTPUT)])
            taken.append((time.perf_counter() - begun) * 1e3)
    return float(np.median(taken))


def send(url: str, key: str, model: str, size: int, seconds: float) -> Load:
    """Keep IN_FLIGHT requests on their way; those answered in `seconds` are counted, after a second to get warm."""
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    free, right, failed = threading.Semaphore(IN_FLIGHT), [0], [0]
    counting = threading.Event()

    def ended(result: InferResult | None, error: InferenceServerException | None) -> None:
        if counting.is_set():
            (right if error is None else failed)[0] += 1
        free.release()

    with InferenceServerClient(url, channel_args=CHANNEL_ARGUMENTS) as client:
        memory = SharedMemory(client, url, key)
        with memory.lent(image.nbytes) as region:
            if region is not None:
                region.view(image.shape)[:] = image
            tensor = image_tensor(image) if region is None else region.tensor(image.shape)
            outputs = [InferRequestedOutput(OUTPUT)]
            begun = time.monotonic() + 1
            while (instant := time.monotonic()) < begun + seconds:
                if instant >= begun:
                    counting.set()
                if free.acquire(timeout=0.1):
                    client.async_infer(model, [tensor], ended, outputs=outputs, client_timeout=60)
            counting.clear()
            for _ in range(IN_FLIGHT):
                free.acquire()
        memory.close()
    return Load(rate=right[0] / seconds, failed=failed[0])


if __name__ == "__main__":
    _url, _key, _model, _size, _seconds = sys.argv[1:]
    print(msgspec.json.encode(send(_url, _key, _model, int(_size), float(_seconds))).decode())
