"""Whatever dies, every accepted task ends."""

import asyncio
import itertools
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import redis

from gateway.redis_names import OPEN_BYTES_KEY, OPEN_KEY, QUEUE_KEY, image_key
from reliability.load import Outcome, client, read_all, upload_all
from reliability.promises import Promise, until
from reliability.service import Service

RUNNING_KEY = "rq:wip:predict"  # RQ's registry of the executions of tasks that have begun
LONGEST_DELAY_SECONDS = 90
_MOST_RUNS = 3
_STATUS_SAYS_SECONDS = 5


class Plan(NamedTuple):
    """How much of it: uploads and their rate, seconds between kills, of an outage, of the wait for the last end."""

    uploads: int = 2000
    per_second: float = 15
    kill_every: tuple[float, float] = (2.0, 8.0)
    outage_seconds: float = 60
    patience_seconds: float = 900


QUICK = Plan(uploads=80, per_second=10, kill_every=(0.8, 1.6), outage_seconds=6, patience_seconds=60)


class Run(NamedTuple):
    """A worker began a task: the log that says so, and when (seconds since the epoch)."""

    log: Path
    at: float


def runs(service: Service) -> dict[str, list[Run]]:
    return runs_in(service.records("worker"))


def runs_in(records: Iterable[tuple[Path, dict[str, Any]]]) -> dict[str, list[Run]]:
    """Every beginning of a task that workers have logged, by task id, in order of time."""
    found: defaultdict[str, list[Run]] = defaultdict(list)
    for log, record in records:
        words = str(record.get("message", "")).split()
        if len(words) == 3 and (words[0], words[2]) == ("task", "begins"):
            found[words[1]].append(Run(log, seconds_of(record["time"])))
    return {task_id: sorted(each, key=lambda run: run.at) for task_id, each in found.items()}


def seconds_of(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


async def everything_dies(service: Service, images: Sequence[bytes], plan: Plan, seed: int = 5) -> list[Promise]:
    """Uploads under load, while each kind of process is killed at random and started again."""
    outcome, kills = Outcome(), list[str]()
    async with client(service.url) as http:
        uploading = asyncio.create_task(upload_all(http, images, plan.uploads, plan.per_second, outcome))
        chance = random.Random(seed)
        while not uploading.done():
            await asyncio.sleep(chance.uniform(*plan.kill_every))
            kills.append(next_victim(service, chance, kills))
            await asyncio.to_thread(service.kill, kills[-1])
        await uploading
        await asyncio.to_thread(service.wait_until_ready)
        await read_all(http, outcome, plan.patience_seconds)
    killed = ", ".join(f"{kind} {sum(name.startswith(kind) for name in kills)}" for kind in KINDS)
    return [
        Promise("killed with SIGKILL", "all four", killed, all(f"{kind} 0" not in killed for kind in KINDS)),
        *ended(outcome, plan.uploads),
        *run_again(service, outcome),
        books_are_closed(service.redis),
    ]


KINDS = ("gateway", "worker", "redis", "triton")


def next_victim(service: Service, chance: random.Random, kills: Sequence[str]) -> str:
    """The first four are one of each kind, then workers come more often than the rest."""
    if len(kills) < len(KINDS):
        kind = KINDS[len(kills)]
    else:
        kind = chance.choices(KINDS, weights=(2, 5, 2, 1))[0]
    return chance.choice(service.workers) if kind == "worker" else kind


def ended(outcome: Outcome, uploads: int) -> list[Promise]:
    accepted, finished, failed = len(outcome.accepted), outcome.count("SUCCESS"), outcome.count("FAILURE")
    codes = f" ({', '.join(f'{code} {number}' for code, number in outcome.codes().items())})" if failed else ""
    sums = f"{accepted} = {finished} + {failed}{codes}"
    seen = ", ".join(f"{status or 'none'} {number}" for status, number in sorted(outcome.statuses.items()))
    bad = outcome.without_retry_after + sum(
        number for status, number in outcome.statuses.items() if status not in (0, 200, 202, 503)
    )
    return [
        Promise("accepted", f"{uploads}, each once", f"{accepted}", len(set(outcome.accepted)) == uploads == accepted),
        Promise("accepted = finished + failed", "equal", sums, accepted == finished + failed),
        Promise("unknown or not ended", "0", f"{len(outcome.unknown)} + {len(outcome.open)}", not outcome.open),
        Promise("answers to uploads", "202, 200; 503 with Retry-After; none", seen, not bad),
    ]


def run_again(service: Service, outcome: Outcome) -> list[Promise]:
    """How often tasks ran, and how long the death of a worker held them up."""
    ours, deaths = set(outcome.accepted), {ending.log: ending.at for ending in service.endings}
    begun = {task_id: each for task_id, each in runs(service).items() if task_id in ours}
    most = max((len(each) for each in begun.values()), default=0)
    delays = [
        again.at - deaths[run.log]
        for each in begun.values()
        for run, again in itertools.pairwise(each)
        if run.log in deaths and again.at > deaths[run.log]
    ]
    longest = f"{len(delays)} tasks begun again, after at most {max(delays, default=0):.1f} s"
    several = sum(len(each) > 1 for each in begun.values())
    return [
        Promise(
            "runs of a task", f"at most {_MOST_RUNS}", f"{most} ({several} more than once)", 0 < most <= _MOST_RUNS
        ),
        Promise(
            "delay by a worker's death",
            f"at most {LONGEST_DELAY_SECONDS} s",
            longest,
            max(delays, default=0) <= LONGEST_DELAY_SECONDS,
        ),
    ]


def books_are_closed(connect: Callable[[], "redis.Redis"]) -> Promise:
    """Nothing of the tasks is left in Redis but their ends."""
    with connect() as connection:
        left = {
            "open": int(connection.hlen(OPEN_KEY)),
            "bytes": int(connection.get(OPEN_BYTES_KEY) or 0),
            "queued": int(connection.llen(QUEUE_KEY)) + int(connection.llen(f"{QUEUE_KEY}:intermediate")),
            "started": int(connection.zcard(RUNNING_KEY)),
            "images": sum(1 for _ in connection.scan_iter(image_key("*"), count=1000)),
        }
    found = ", ".join(f"{name} {number}" for name, number in left.items())
    return Promise("left in Redis at the end", "nothing", found, not any(left.values()))


async def triton_is_away(service: Service, images: Sequence[bytes], plan: Plan, key: str = "") -> list[Promise]:
    """Uploads go on while Triton is down; the tasks wait, and succeed."""
    outcome, number = Outcome(), int(plan.outage_seconds * 2)
    async with client(service.url) as http:
        http.headers.update({"X-API-Key": key} if key else {})
        service.hold("triton")
        said = asyncio.create_task(asyncio.to_thread(until, lambda: "triton" in (service.missing() or {}), 30))
        down_since = time.monotonic()
        await upload_all(http, images, number, number / plan.outage_seconds, outcome)
        await asyncio.sleep(max(0.0, plan.outage_seconds - (time.monotonic() - down_since)))
        service.release("triton")
        back = await asyncio.to_thread(service.wait_until_ready)
        begun = time.monotonic()
        await read_all(http, outcome, plan.patience_seconds)
    noticed, done = await said, outcome.count("SUCCESS")
    most = max((len(each) for task_id, each in runs(service).items() if task_id in set(outcome.accepted)), default=0)
    after = f"{done} of {number}; the last {time.monotonic() - begun:.1f} s after it was ready ({back:.1f} s)"
    return [
        Promise(
            "/status names Triton",
            f"within {_STATUS_SAYS_SECONDS} s",
            f"{noticed:.1f} s" if noticed is not None else "never",
            noticed is not None and noticed <= _STATUS_SAYS_SECONDS,
        ),
        Promise(f"succeed after {plan.outage_seconds:g} s without Triton", "all", after, done == number),
        Promise("retries that the outage cost", "0", f"{most - 1}", most == 1),
    ]  # fmt: skip


async def triton_restarts(service: Service, images: Sequence[bytes], plan: Plan) -> list[Promise]:
    """Under load Triton is asked to end, then a process of its model is killed; each time it is started again."""
    promises = []
    for what, hurt in (("Triton ends in order", end_triton), ("a model's process dies", kill_model_process)):
        outcome, number, known = Outcome(), max(40, plan.uploads // 20), len(service.endings)
        async with client(service.url) as http:
            uploading = asyncio.create_task(upload_all(http, images, number, plan.per_second, outcome))
            await asyncio.sleep(1)
            await asyncio.to_thread(hurt, service)
            await asyncio.to_thread(until, lambda n=known: len(service.endings) > n, 30)  # type: ignore[misc]
            await uploading
            await asyncio.to_thread(service.wait_until_ready)
            await read_all(http, outcome, plan.patience_seconds)
        gone = [ending.name for ending in service.endings[known:]]
        done = outcome.count("SUCCESS")
        outcome_text = f"{done} of {number} succeed; ended: {', '.join(gone)}"
        promises.append(Promise(what, "all tasks succeed", outcome_text, done == number and gone == ["triton"]))
    return promises


def end_triton(service: Service) -> None:
    service.kill("triton", signal.SIGTERM)


def kill_model_process(service: Service) -> None:
    next(each for each in service.tree("triton") if each.name().startswith("triton_python_b")).kill()


async def redis_restarts(service: Service, images: Sequence[bytes], plan: Plan) -> list[Promise]:
    """Redis dies while tasks wait in it, and comes back."""
    outcome, number = Outcome(), 20
    async with client(service.url) as http:
        service.hold("triton")  # so that the tasks are there when Redis dies
        await upload_all(http, images, number, 50, outcome)
        pids = [service.pid(name) for name in service.workers]
        service.hold("redis")
        begun = time.monotonic()
        refused = [await http.post("/predict", content=images[0]), await http.get(f"/result/{outcome.accepted[0]}")]
        refused_in = time.monotonic() - begun
        noticed = await asyncio.to_thread(until, lambda: "redis" in (service.missing() or {}), 30)
        service.release("redis")
        service.release("triton")
        back = await asyncio.to_thread(service.wait_until_ready)
        await read_all(http, outcome, plan.patience_seconds)
    seen = ", ".join(f"{answer.status_code} Retry-After {answer.headers.get('retry-after')}" for answer in refused)
    kept = all(answer.status_code == 503 and "retry-after" in answer.headers for answer in refused) and refused_in < 4
    seen = f"{seen}, in {refused_in:.1f} s"
    same = pids == [service.pid(name) for name in service.workers]
    done = outcome.count("SUCCESS")
    return [
        Promise("without Redis clients see", "503 with Retry-After", seen, kept),
        Promise(
            "/status names Redis",
            f"within {_STATUS_SAYS_SECONDS} s",
            f"{noticed or 99:.1f} s",
            noticed is not None and noticed <= 5,
        ),
        Promise("accepted tasks after its restart", f"{number} succeed", f"{done}", done == number),
        Promise("workers come back", "by themselves", f"ready after {back:.1f} s, same processes: {same}", same),
    ]


async def workers_roll(service: Service, images: Sequence[bytes], plan: Plan) -> list[Promise]:
    """One worker after the other is asked to end, under load, and started again."""
    outcome, number, known = Outcome(), max(40, plan.uploads // 10), len(service.endings)
    async with client(service.url) as http:
        uploading = asyncio.create_task(upload_all(http, images, number, plan.per_second, outcome))
        for name in service.workers:
            await asyncio.sleep(1.5)
            pid = service.pid(name)
            service.kill(name, signal.SIGTERM)
            await asyncio.to_thread(until, lambda n=name, p=pid: service.pid(n) not in (p, None), 60)  # type: ignore[misc]
        await uploading
        await read_all(http, outcome, plan.patience_seconds)
    statuses = [ending.status for ending in service.endings[known:] if ending.name in service.workers]
    most = max((len(each) for task_id, each in runs(service).items() if task_id in set(outcome.accepted)), default=0)
    done = outcome.count("SUCCESS")
    return [
        Promise("workers asked to end", "exit status 0", f"{statuses}", statuses == [0] * len(service.workers)),
        Promise("a rolling restart loses", "nothing", f"{done} of {number} succeed", done == number),
        Promise("tasks run again for it", "0", f"most runs {most}", most == 1),
    ]


async def all_of_it(service: Service, images: Sequence[bytes], plan: Plan) -> list[Promise]:
    found = []
    for scenario in (everything_dies, triton_is_away, triton_restarts, redis_restarts, workers_roll):
        await asyncio.to_thread(service.wait_until_ready)
        found += await scenario(service, images, plan)
    return found
