"""Many clients in long-poll on one gateway process: `python -m benchmarks.longpoll --url http://127.0.0.1:5000`.

Holds the workers still, uploads one image per client, lets all clients wait, and lets the workers go. Measures for each
client how long after its job's end the answer arrived, and counts the Redis connections meanwhile. Exit status 1 when a
bound is broken.
"""

import argparse
import asyncio
import os
import signal
import time
from datetime import datetime
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import httpx
import msgspec
import redis.asyncio as aioredis

from benchmarks.arguments import exit_with, whole
from gateway.task import TaskView

DELAY_BOUND_SECONDS = 0.1
CONNECTIONS_BOUND = 20
ARRIVAL_SECONDS = 5.0


async def main() -> int:
    arguments = parse()
    image, address = arguments.image.read_bytes(), urlsplit(arguments.url)
    signal_all(arguments.worker_pids, signal.SIGSTOP)
    try:
        async with httpx.AsyncClient(base_url=arguments.url, trust_env=False) as client:
            ids = [await upload(client, image) for _ in range(arguments.clients)]
        measured = asyncio.gather(*(wait(address, task_id) for task_id in ids))
        await asyncio.sleep(ARRIVAL_SECONDS)
    finally:
        signal_all(arguments.worker_pids, signal.SIGCONT)
    connections = await watch_connections(arguments.redis_url, measured)
    delays = sorted(await measured)
    late = sum(delay > DELAY_BOUND_SECONDS for delay in delays)
    median, high, worst = (delays[min(int(len(delays) * share), len(delays) - 1)] * 1e3 for share in (0.5, 0.99, 1))
    print(f"{len(delays)} clients, all answered, {late} later than {DELAY_BOUND_SECONDS * 1e3:.0f} ms")
    print(f"answer after the job's end: median {median:.1f} ms, p99 {high:.1f} ms, worst {worst:.1f} ms")
    print(f"Redis connections of all gateways and workers: at most {connections}")
    return int(bool(late or connections >= CONNECTIONS_BOUND + arguments.other_connections))


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


async def upload(client: httpx.AsyncClient, image: bytes) -> str:
    answer = await client.post("/predict", content=image)
    answer.raise_for_status()
    return str(answer.json()["task_id"])


async def wait(address: SplitResult, task_id: str) -> float:
    """Seconds between the task's end, as its worker wrote it, and the answer; both clocks are this machine's.

    A bare socket, since a thousand connections in the pool of an HTTP client keep that client busy for seconds.
    """
    head = f"GET /result/{task_id}?wait=60 HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n"
    while True:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(head.encode())
        answer = await reader.read()
        arrived = time.time()
        writer.close()
        body = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2], type=TaskView)
        if body.status != "PENDING":
            return max(arrived - datetime.fromisoformat(str(body.ended_at)).timestamp(), 0.0)


async def watch_connections(url: str, until: "asyncio.Future[list[float]]") -> int:
    """The most connections Redis had before `until` was done, without this one."""
    most = 0
    async with aioredis.Redis.from_url(url) as connection:
        while not until.done():
            most = max(most, len(await connection.client_list()) - 1)
            await asyncio.sleep(0.2)
    return most


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.longpoll", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:5000")
    parser.add_argument("--redis-url", required=True)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--worker-pids", type=whole(1, 1 << 22), nargs="+", required=True)
    parser.add_argument("--clients", type=whole(1, 100_000), default=1000)
    parser.add_argument(
        "--other-connections", type=whole(0, 1_000), default=0, help="Redis connections that are not the gateway's"
    )
    return parser.parse_args()


if __name__ == "__main__":
    exit_with(lambda: asyncio.run(main()))
