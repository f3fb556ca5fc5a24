"""`python -m benchmarks.floor`: the least that the work around the model could take, each part of it measured apart.

A photograph that is sent to the service needs one HTTP request, three synced writes of Redis, one JPEG, one letterbox,
one call of Triton and one NMS. Each is done here alone, over and over, by the library that the service uses: CPU time
in this process, and in that which answers. Run it with nothing else at work.
"""

import argparse
import asyncio
import multiprocessing
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httptools
import numpy as np
import psutil
import redis
import uvloop

from benchmarks import arms, constant_model, pictures, say
from benchmarks.arguments import exit_with, whole
from benchmarks.load import Plan
from benchmarks.results import table
from benchmarks.senders import Target
from export.config import LEAST_ROWS
from gateway.allocator import give_back_large_blocks
from gateway.queue.kept_connection import KeptConnection
from gateway.redis_pipelined import Command
from gateway.triton.client import TritonClient
from gateway.vision.letterbox import letterbox
from gateway.vision.nms import nms
from gateway.vision.opencv import cv2
from local.ports import free_ports

HEAD = "alone | here, µs of CPU | the other process | both"
CLIENTS, HTTP_SECONDS = 16, 5.0
_WARM = 50
_RESULT = b"x" * 900  # of a task with five objects
_BODY = b'{"status": "SUCCESS", "result": {"detections": []}}'
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)


class Part(NamedTuple):
    """CPU time an image, microseconds, of one kind of work: here, and in the process that is asked."""

    name: str
    here: float
    there: float = 0.0
    is_needed: bool = True


def main() -> int:
    arguments = parse()
    images = pictures.of_size(pictures.photographs(arguments.images), constant_model.IMGSZ)
    if not images:
        print("floor: there are no photographs (*.jpg) of 640 pixels; give --images", file=sys.stderr)
        return 1
    try:
        parts = measure(images, arguments.count)
    except arms.NotStarted as error:
        print(f"floor: {error}", file=sys.stderr)
        return 1
    needed = [part for part in parts if part.is_needed]
    parts.append(Part("all but what is in brackets", sum(p.here for p in needed), sum(p.there for p in needed)))
    print("\n".join(table(HEAD, [row(part) for part in parts])))
    return 0


def row(part: Part) -> str:
    name = part.name if part.is_needed else f"({part.name})"
    return f"{name} | {part.here:.0f} | {part.there:.0f} | {part.here + part.there:.0f}"


def measure(images: Sequence[Path], count: int) -> list[Part]:
    """Raises NotStarted."""
    give_back_large_blocks(4)  # as the worker does
    encoded = [image.read_bytes() for image in images]
    say("the picture")
    parts = of_picture(encoded, count)
    with tempfile.TemporaryDirectory(prefix="floor-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        say("HTTP")
        parts.append(of_http(images, folder))
        constant_model.write(folder / "models")
        key = secrets.token_hex(8)
        with arms.stack(constant_model.NAME, folder / "models", folder, {"TRITON_MEMORY_KEY": key}) as service:
            say("Redis and Triton")
            parts.append(of_redis(service, encoded, count))
            parts += of_triton(service, key, count)
    return parts


def of_picture(encoded: Sequence[bytes], count: int) -> list[Part]:
    """The JPEG by OpenCV's libjpeg-turbo, the letterbox into memory that is kept, NMS of the model's rows."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    stored = [np.frombuffer(data, np.uint8) for data in encoded]
    decoded = [np.asarray(cv2.imdecode(each, flags), np.uint8) for each in stored]
    size_hw, stride = (constant_model.IMGSZ, constant_model.IMGSZ), constant_model.STRIDE
    memory = np.empty(size_hw[0] * size_hw[1] * 3, np.uint8)
    rows = np.zeros((LEAST_ROWS, 6), np.float32)
    rows[: len(constant_model.ROWS)] = constant_model.ROWS

    def fit(at: int) -> None:
        letterbox(
            decoded[at],
            size_hw=size_hw,
            stride=stride,
            fixed=False,
            canvas=lambda shape: memory[: shape[0] * shape[1] * 3].reshape(shape),
        )

    number = len(encoded)
    return [
        Part("JPEG", own(lambda at: cv2.imdecode(stored[at % number], flags), count)),
        Part("letterbox", own(lambda at: fit(at % number), count)),
        Part("NMS", own(lambda at: nms(rows), count)),
    ]


def of_http(images: Iterable[Path], folder: Path) -> Part:
    """A request that is read to its end and answered, by httptools and uvloop; the clients' time is not in it."""
    (port,) = free_ports(1)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(port,), daemon=True)
    server.start()
    try:
        while not arms.answers(port, "/"):
            time.sleep(0.1)
        target = Target("raw", [str(image) for image in images], f"127.0.0.1:{port}", "/")
        with arms.loading(target, folder, "floor") as loader:
            process = psutil.Process(server.pid)
            before = arms.cpu_seconds(process)
            sample = loader.run(Plan(CLIENTS, HTTP_SECONDS))
            used = arms.cpu_seconds(process) - before
        return Part("HTTP request", 0.0, used / sample.with_warming * 1e6)
    finally:
        server.terminate()
        server.join()


class Answering(asyncio.Protocol):
    """Reads a request, keeps its body, answers; one after the other."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = list[bytes]()

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        b"".join(self._body)
        self._transport.write(_ANSWER)


def serve(port: int) -> None:
    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port)
        await server.serve_forever()

    with suppress(KeyboardInterrupt):
        uvloop.run(forever())


def of_redis(service: arms.Service, encoded: Sequence[bytes], count: int) -> Part:
    """Three synced transactions a task: the image comes, the task is begun, the result comes and the image goes."""
    with redis.ConnectionPool(port=service.redis_port) as pool:
        connection = KeptConnection(pool)

        def keep(*commands: Command) -> None:
            connection.ask((b"MULTI",), *commands, (b"EXEC",))

        def task(at: int) -> None:
            keep((b"SET", "floor:image", encoded[at % len(encoded)]), (b"RPUSH", "floor:queue", at))
            keep((b"LMOVE", "floor:queue", "floor:begun", b"LEFT", b"RIGHT"))
            ended = (b"DEL", "floor:image", "floor:begun"), (b"PUBLISH", "floor", _RESULT)
            keep((b"SET", "floor:result", _RESULT, b"EX", 60), *ended)

        return Part("three synced transactions of Redis", *both(service, ["redis"], task, count))


def of_triton(service: arms.Service, key: str, count: int) -> list[Part]:
    """A call with the image in shared memory: over HTTP, and over gRPC. There: tritonserver and the model's process."""
    roles = "triton", "backend"
    with calling(service, key, service.triton_http_address) as call:
        over_http = both(service, roles, call, count)
    with calling(service, key, None) as call:
        over_grpc = both(service, roles, call, count)
    return [Part("call of Triton over HTTP", *over_http), Part("the same over gRPC", *over_grpc, is_needed=False)]


@contextmanager
def calling(service: arms.Service, key: str, http_address: str | None) -> Iterator[Callable[[int], object]]:
    client = TritonClient(service.triton_address, 10, key, http_address)
    spec = client.spec(constant_model.NAME)

    def call(at: int) -> None:
        with client.canvas(spec) as canvas:
            client.infer(spec, canvas((480, 640, 3)), canvas=canvas)

    try:
        yield call
    finally:
        client.close()


def own(work: Callable[[int], object], count: int) -> float:
    """Microseconds of CPU that this process takes for it, after some to warm up; `work` is given the number."""
    for number in range(_WARM):
        work(number)
    before = time.process_time()
    for number in range(count):
        work(number)
    return (time.process_time() - before) / count * 1e6


def both(service: arms.Service, roles: Sequence[str], work: Callable[[int], object], count: int) -> tuple[float, float]:
    """The same, and what the processes of these roles take for it, also while it warms up; nobody else asks them."""
    before = service.cpu()
    mine = own(work, count)
    after = service.cpu()
    return mine, sum(after[role] - before[role] for role in roles) / (count + _WARM) * 1e6


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor", description=__doc__)
    parser.add_argument("--count", type=whole(1, 1_000_000), default=2000, help="how often each is done")
    parser.add_argument("--images", type=Path, default=pictures.folder(), help="folder of photographs (*.jpg)")
    return parser.parse_args()


if __name__ == "__main__":
    exit_with(main)
