"""One greedy client after the other, each with an honest one beside it that must be served as usual.

The greedy client has a key and an address of its own, and a process of its own, so that it costs the honest one nothing
but what it takes of the service.
"""

import asyncio
import contextlib
import hashlib
import io
import itertools
import multiprocessing
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

import httpx
import numpy as np
from PIL import Image

from gateway.redis_names import OPEN_KEY
from reliability.planted import SLOW, TARPIT
from reliability.promises import Promise
from reliability.service import Service

HONEST, GREEDY = "honest-key-of-this-run", "greedy-key-of-this-run"
GREEDY_ADDRESS = "127.0.0.2"
SETTINGS = {
    "API_KEYS": " ".join(
        f"{name}:{hashlib.sha256(key.encode()).hexdigest()}" for name, key in (("honest", HONEST), ("greedy", GREEDY))
    )
}
_TIMES = 3  # the honest client's usual time
_WAIT = {"wait": "30"}


class Plan(NamedTuple):
    """Seconds in which the usual time is measured, and of each attack; a wait below `noticed_seconds` is none."""

    usual_seconds: float = 15
    seconds: float = 20
    noticed_seconds: float = 0.3


QUICK = Plan(usual_seconds=4, seconds=6, noticed_seconds=1)  # beside other tests


class Target(NamedTuple):
    """Where the greedy client sends to: the port, and an image that is detected in."""

    port: int
    image: bytes


Attack = Callable[[httpx.AsyncClient, Target], Awaitable[None]]


async def names(http: httpx.AsyncClient, target: Target) -> None:
    """Small images with long names, which Redis has to keep."""
    files = [("image", ("\u20ac" * 1300 + f"{index}.png", _png(8, 8), "image/png")) for index in range(16)]
    await _closed_loop(4, lambda: http.post("/predict", files=files))


async def results(http: httpx.AsyncClient, target: Target) -> None:
    """Small images with answers as large as can be."""
    query = {"conf": "0", "iou": "1", "max_det": "1000", **_WAIT}
    await _closed_loop(4, lambda: http.post("/predict", params=query, content=_png(8, 8)))


async def waiters(http: httpx.AsyncClient, target: Target) -> None:
    """Clients that ask to wait and leave."""

    async def ask_and_leave() -> httpx.Response:
        request = _head("POST", "/predict?wait=60", len(target.image)) + target.image
        async with _connection(target.port) as (_, writer):
            writer.write(request)
            await writer.drain()
            await asyncio.sleep(0.05)
        return httpx.Response(499)

    await _closed_loop(4, ask_and_leave)


async def slow_readers(http: httpx.AsyncClient, target: Target) -> None:
    """Clients that ask for large pictures and read none."""
    answer = await http.post("/predict", params={"annotate": "true", **_WAIT}, content=_jpeg(1800, 1800))
    task_id = answer.json()["task_id"]
    picture = await http.get(f"/result/{task_id}/image", headers={"Accept": "image/png"})
    _seen[f"picture of {len(picture.content) / 1e6:.0f} MB {picture.status_code}"] += 1

    async def never_read() -> httpx.Response:
        async with _connection(target.port) as (reader, writer):
            writer.write(_head("GET", f"/result/{task_id}/image", 0, "Accept: image/png\r\n"))
            await writer.drain()
            answer = httpx.Response(int((await reader.readline()).split()[1]))
            while answer.status_code == 200 and not writer.is_closing():
                await asyncio.sleep(1)
        return answer

    await _closed_loop(100, never_read)


async def stalled_uploads(http: httpx.AsyncClient, target: Target) -> None:
    """Forms of 49 MB whose last bytes come slowly."""
    part = b"\r\n--b\r\nContent-Disposition: form-data; name=image; filename=a.jpg\r\n\r\n" + target.image
    body = b"".join(part + bytes(9_700_000 - len(part)) for _ in range(5)) + b"\r\n--b--\r\n"
    head = _head("POST", "/predict", len(body), kind="multipart/form-data; boundary=b")

    async def stall() -> httpx.Response:
        async with _connection(target.port) as (reader, writer):
            writer.write(head + body[:-1_000_000])
            await writer.drain()
            answer = asyncio.create_task(reader.readline())
            for at in range(len(body) - 1_000_000, len(body), 12_000):
                if answer.done():
                    break
                writer.write(body[at : at + 12_000])
                await asyncio.sleep(1)
            return httpx.Response(int((await answer).split()[1]))

    await _closed_loop(6, stall)


async def boundaries(http: httpx.AsyncClient, target: Target) -> None:
    """Forms of almost-boundaries."""
    boundary = "b" * 60
    body = (f"--{boundary}\r\nContent-Disposition: form-data; name=image; filename=a.jpg\r\n\r\n").encode()
    body += (f"\r\n--{boundary[:-1]}x".encode() * 800_000)[:49_000_000]
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    await _closed_loop(2, lambda: http.post("/predict", content=body, headers=headers))


async def gifs(http: httpx.AsyncClient, target: Target) -> None:
    """Small files of fifty million pixels."""
    stream = io.BytesIO()
    Image.new("P", (7000, 7000)).save(stream, "GIF")
    await _closed_loop(4, lambda: http.post("/predict", params=_WAIT, content=stream.getvalue()))


async def tarpits(http: httpx.AsyncClient, target: Target) -> None:
    """Callbacks to hosts that take connections and never answer, and to names whose servers never do."""
    numbers = itertools.count()

    def send() -> Awaitable[httpx.Response]:
        number = next(numbers)
        host = f"{SLOW if number % 4 == 0 else TARPIT}-{number}.example"
        return http.post("/predict", params={"callback_url": f"https://{host}/", **_WAIT}, content=_png(8, 8))

    await _closed_loop(6, send)


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack for attack in (names, results, waiters, slow_readers, stalled_uploads, boundaries, gifs)
}
_OUTSIDE: dict[str, Attack] = {tarpits.__name__: tarpits}  # of `surroundings`


async def all_of_them(service: Service, images: Sequence[bytes], plan: Plan) -> list[Promise]:
    """Measure the honest client's usual time, then beside each attack."""
    port, image = int(service.url.rpartition(":")[2]), images[0]
    await honest(service.url, image, 2)
    usual, _ = await honest(service.url, image, plan.usual_seconds)
    promises = [Promise("an honest client alone", "measured", spread(usual), True)]
    for name in ATTACKS:
        with attacking(name, Target(port, image)) as told:
            seconds, wrong = await honest(service.url, image, plan.seconds)
        promises.append(promise(f"beside {name.replace('_', ' ')} ({told()})", seconds, wrong, usual, plan))
        await settled(service)
    return promises


def promise(name: str, seconds: Sequence[float], wrong: int, usual: Sequence[float], plan: Plan) -> Promise:
    """That an honest client is served within three times its usual time."""
    most = most_seconds(usual, plan)
    wanted = f"within {most * 1e3:.0f} ms, 0 refused"
    return Promise(name, wanted, f"{spread(seconds)}, {wrong} refused", not wrong and served(seconds, most))


def most_seconds(usual: Sequence[float], plan: Plan) -> float:
    return max(_TIMES * _high(usual), plan.noticed_seconds)


def served(seconds: Sequence[float], most: float) -> bool:
    return 0 < _high(seconds) <= most


def spread(seconds: Sequence[float]) -> str:
    return f"{_middle(seconds) * 1e3:.0f} ms, 19 of 20 within {_high(seconds) * 1e3:.0f} ms"


async def honest(url: str, image: bytes, seconds: float, **params: str) -> tuple[list[float], int]:
    """Detect one image after the other; the seconds of each, and how many were not answered with a result."""
    took, wrong, end = list[float](), 0, time.monotonic() + seconds
    async with _client(url, HONEST, "127.0.0.1") as http:
        while time.monotonic() < end:
            begun = time.monotonic()
            answer = await http.post("/predict", params={**_WAIT, **params}, content=image)
            took.append(time.monotonic() - begun)
            wrong += answer.status_code != 200 or answer.json()["status"] != "SUCCESS"
            await asyncio.sleep(0.05)
    return took, wrong


async def settled(service: Service) -> None:
    """Wait until nothing of an attack is queued any more."""
    with service.redis() as connection:
        for _ in range(600):
            if not connection.hlen(OPEN_KEY):
                return
            await asyncio.sleep(0.1)


@contextlib.contextmanager
def attacking(name: str, target: Target) -> Iterator[Callable[[], str]]:
    """The attack in a process of its own; what is yielded tells afterwards what it was answered."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_attack, args=(name, target, theirs), daemon=True)
    process.start()
    ours.recv()  # it has begun
    answers: list[str] = []
    try:
        yield lambda: answers[0]
    finally:
        ours.send("stop")
        answers.append(ours.recv() if ours.poll(30) else "no word of it")
        process.join(5)
        process.kill()


def _attack(name: str, target: Target, pipe: Connection) -> None:
    async def until_told() -> str:
        async with _client(f"http://127.0.0.1:{target.port}", GREEDY, GREEDY_ADDRESS) as http:
            task = asyncio.ensure_future((ATTACKS | _OUTSIDE)[name](http, target))
            await asyncio.sleep(1)
            pipe.send("begun")
            await asyncio.to_thread(pipe.recv)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        return ", ".join(f"{status} {number}" for status, number in sorted(_seen.items())) or "nothing answered"

    pipe.send(asyncio.run(until_told()))


_seen: Counter[str] = Counter()  # of the attacking process


async def _closed_loop(clients: int, send: Callable[[], Awaitable[httpx.Response]]) -> None:
    async def one() -> None:
        while True:
            try:
                answer = await send()
                _seen[str(answer.status_code)] += 1
                await asyncio.sleep(min(float(answer.headers.get("retry-after", 0)), 0.2))
            except (httpx.TransportError, OSError):
                _seen["no answer"] += 1
                await asyncio.sleep(0.05)

    await asyncio.gather(*(one() for _ in range(clients)))


def _client(url: str, key: str, address: str) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(local_address=address, limits=httpx.Limits(max_connections=200))
    return httpx.AsyncClient(base_url=url, headers={"X-API-Key": key}, timeout=60, transport=transport)


@contextlib.asynccontextmanager
async def _connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(GREEDY_ADDRESS, 0))
    try:
        yield reader, writer
    finally:
        writer.close()


def _head(method: str, path: str, size: int, more: str = "", kind: str = "image/jpeg") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {GREEDY}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {size}\r\n{more}\r\n"
    ).encode()


def _png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 40)).save(stream, "PNG")
    return stream.getvalue()


def _jpeg(width: int, height: int) -> bytes:
    """A picture that does not compress well, so that its annotated picture is large."""
    stream, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(stream, "JPEG", quality=50)
    return stream.getvalue()


def _middle(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) if seconds else 0.0


def _high(seconds: Sequence[float]) -> float:
    return sorted(seconds)[int(0.95 * (len(seconds) - 1))] if seconds else 0.0
