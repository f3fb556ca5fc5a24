"""What happens to a network: hosts are cut off, parted and disturbed under load, and come back."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from gateway.redis_names import EXECUTING_KEY
from gateway.settings import Settings
from local.errors import LocalError
from reliability import chaos
from reliability.hosts.load import Load, clients
from reliability.hosts.network import Network, unavailable
from reliability.hosts.service import GATEWAYS, REDISES, TRITONS, WORKERS, Hosts, part_on, running
from reliability.promises import Promise, until
from reliability.service import records

_LARGEST_IMAGE = 200_000  # bytes; on lossy links a larger one takes seconds
_BUSY_SECONDS = 30  # until both workers have tasks in hand, of those sent at once
_PAUSE_SECONDS = 20
_RECOVERED_SECONDS = 60
_FAILOVER_SECONDS = 20.0  # Sentinels notice after 5
_REPLICATED_SECONDS = 2.0  # until a replica surely has an end


class Plan(NamedTuple):
    """Uploads a second, and at once before a cut; seconds that a worker host is cut off, and of each other act."""

    per_second: float = 4
    at_once: int = 40
    cut_seconds: float = 60
    seconds: float = 30
    delay_ms: int = 10
    loss_percent: float = 1
    settings: tuple[tuple[str, str], ...] = ()


QUICK = Plan(cut_seconds=12, seconds=12, settings=(("WORKER_TTL", "3"),))


class Act(NamedTuple):
    """How a network is hurt and healed; whether tasks are accepted meanwhile."""

    name: str
    hurt: Callable[[], None]
    heal: Callable[[], None]
    serves: bool = True


class Scene(NamedTuple):
    """The hosts under load."""

    hosts: Hosts
    load: Load
    plan: Plan


def all_of_them(folder: Path, repository: Path, model: str, images: Sequence[bytes], plan: Plan) -> list[Promise]:
    """Where hosts cannot be made the one promise says why, and counts as kept. Raises LocalError."""
    if reason := unavailable():
        return [Promise("several hosts", "made of this machine", f"skipped: {reason}", True)]
    small = [image for image in images if len(image) <= _LARGEST_IMAGE]
    with running(folder, repository, model, dict(plan.settings)) as hosts:
        return asyncio.run(_all_of_them(hosts, small, plan))


async def _all_of_them(hosts: Hosts, images: Sequence[bytes], plan: Plan) -> list[Promise]:
    promises: list[Promise] = []
    async with clients(hosts.urls) as gateways:
        load = Load(gateways, images, plan.per_second)
        scene = Scene(hosts, load, plan)
        async with load.going_on():
            await recovered(scene, time.time())
            for act in ACTS:
                promises += await act(scene)
            again_from = time.time() - _REPLICATED_SECONDS
            promises += await primary_is_cut_off(scene)
        differ = await load.overwritten(again_from)
    lines = [(path.name, str(line.get("message"))) for path, line in records(hosts.folder, "worker")]
    late = sum("this end is dropped" in line for _, line in lines)
    as_bytes = len({name for name, line in lines if "are sent to Triton as bytes" in line})
    outcome, wrong = load.outcome, load.wrong()
    return [
        *promises,
        *chaos.ended(outcome, load.sent),
        Promise("tasks that fail", "0", f"{outcome.count('FAILURE')}", not outcome.count("FAILURE")),
        Promise("wrong answers", "0", f"{wrong} of {len(outcome.ends)}", not wrong),
        Promise(
            "late ends that replace a result", "0, and some that tried", f"{differ} of {late}", not differ and late > 0
        ),
        Promise("workers without shared memory", "all: no Triton is near", f"{as_bytes}", as_bytes == len(WORKERS)),
        chaos.books_are_closed(hosts.redis),
    ]


async def worker_is_cut_off(scene: Scene) -> list[Promise]:
    """It has tasks in hand, which the other one does meanwhile; back, it ends them once more."""
    net, host = scene.hosts.net, WORKERS[0]
    act = Act("a worker host cut off", lambda: net.cut(host), lambda: net.mend(host))
    return await with_tasks_in_hand(scene, act, host)


async def worker_loses_redis(scene: Scene) -> list[Promise]:
    """It still reaches the Tritons, and has results that it cannot store."""
    net, host = scene.hosts.net, WORKERS[1]
    act = Act("half of the workers parted from Redis", *parting(net, host))
    return await with_tasks_in_hand(scene, act, host)


async def with_tasks_in_hand(scene: Scene, act: Act, host: str) -> list[Promise]:
    await keep_workers_busy(scene)
    begun_at, promises = await perform(scene, act, scene.plan.cut_seconds)
    moved = moved_from(scene.hosts, host, begun_at)
    most = max(moved, default=0.0)
    wanted = f"begun elsewhere within {chaos.LONGEST_DELAY_SECONDS} s"
    kept = bool(moved) and most <= chaos.LONGEST_DELAY_SECONDS
    return [*promises, Promise("the tasks that it had", wanted, f"{len(moved)}, after at most {most:.1f} s", kept)]


async def keep_workers_busy(scene: Scene) -> None:
    """Returns when more tasks run than one worker runs."""

    def are_busy() -> bool:
        with scene.hosts.redis() as connection:
            return int(connection.zcard(EXECUTING_KEY)) > Settings().worker_tasks

    scene.load.begin(scene.plan.at_once)
    await asyncio.to_thread(until, are_busy, _BUSY_SECONDS, 0.02)


def moved_from(hosts: Hosts, host: str, at: float) -> list[float]:
    """After how many seconds the tasks that this host had at that time were begun on another."""
    log = f"{part_on(host)}.log"
    return [
        again.at - at
        for each in hosts.runs().values()
        for run, again in itertools.pairwise(each)
        if run.log.name == log and run.at <= at < again.at and again.log.name != log
    ]


async def packets_are_late(scene: Scene) -> list[Promise]:
    plan, how = scene.plan, ExitStack()
    name = f"all packets {plan.delay_ms} ms late, {plan.loss_percent:g} % lost"
    means: list[str] = []

    def disturb() -> None:
        means.append(how.enter_context(scene.hosts.net.disturbed(plan.delay_ms, plan.loss_percent)))

    try:
        _, promises = await perform(scene, Act(name, disturb, how.close), plan.seconds)
    except LocalError as error:
        return [Promise(name, "served", f"skipped: {error}", True)]
    return [promises[0]._replace(name=f"{name} ({means[0]})"), *promises[1:]]


async def gateway_loses_redis(scene: Scene) -> list[Promise]:
    """It refuses, the other one serves."""
    act = Act("a gateway parted from Redis", *parting(scene.hosts.net, GATEWAYS[0]))
    missing: dict[str, str] = {}

    async def look() -> None:
        said = await asyncio.to_thread(scene.hosts.missing_of, scene.hosts.urls[0])
        missing.update(said or {})

    _, promises = await perform(scene, act, scene.plan.seconds, look)
    return [*promises, Promise("its /status meanwhile", "names Redis", ", ".join(missing), "redis" in missing)]


async def triton_is_cut_off(scene: Scene) -> list[Promise]:
    net, host = scene.hosts.net, TRITONS[0]
    act = Act("a Triton host cut off", lambda: net.cut(host), lambda: net.mend(host))
    return (await perform(scene, act, scene.plan.seconds))[1]


async def primary_is_cut_off(scene: Scene) -> list[Promise]:
    """The replica takes over, and what waits is worked on; by REDIS_REPLICAS=1 nothing is accepted before there are
    two again.
    """
    net, host = scene.hosts.net, await asyncio.to_thread(scene.hosts.primary)
    await keep_workers_busy(scene)
    act = Act("the primary of Redis cut off", lambda: net.cut(host), lambda: net.mend(host), serves=False)
    _, promises = await perform(scene, act, max(scene.plan.seconds, _FAILOVER_SECONDS))
    after = await asyncio.to_thread(scene.hosts.primary)
    return [*promises, Promise("its replica", "is the primary then", f"{host}, then {after}", after != host)]


ACTS = (worker_is_cut_off, packets_are_late, worker_loses_redis, gateway_loses_redis, triton_is_cut_off)


def parting(net: Network, host: str) -> tuple[Callable[[], None], Callable[[], None]]:
    """From Redis: how it is done, and undone."""

    def part() -> None:
        for redis in REDISES:
            net.part(host, redis)

    def join() -> None:
        for redis in REDISES:
            net.join(host, redis)

    return part, join


async def perform(
    scene: Scene, act: Act, seconds: float, look: Callable[[], Awaitable[None]] | None = None
) -> tuple[float, list[Promise]]:
    """When it began, and whether tasks ended meanwhile and all was well soon after; `look` comes before its end."""
    begun_at = time.time()
    await asyncio.to_thread(act.hurt)
    try:
        await asyncio.sleep(seconds)
        if look is not None:
            await look()
    finally:
        await asyncio.to_thread(act.heal)
    over_at = time.time()
    back = await recovered(scene, over_at)
    ended = sorted(at for at in scene.load.ended_at.values() if begun_at <= at <= over_at)
    pause = max(later - at for at, later in itertools.pairwise([begun_at, *ended, over_at]))
    wanted = f"tasks end, no pause above {_PAUSE_SECONDS} s" if act.serves else "what was accepted goes on"
    served = f"{len(ended)} in {over_at - begun_at:.0f} s, longest pause {pause:.1f} s"
    again = f"all well after {back:.1f} s" if back is not None else f"not after {_RECOVERED_SECONDS} s"
    return begun_at, [
        Promise(act.name, wanted, served, bool(ended) and (pause <= _PAUSE_SECONDS or not act.serves)),
        Promise("once it is over", f"all well within {_RECOVERED_SECONDS} s", again, back is not None),
    ]


async def recovered(scene: Scene, since: float) -> float | None:
    """Seconds until nothing is missing, what was accepted before `since` has ended, and each gateway serves.

    None when that takes longer than _RECOVERED_SECONDS.
    """
    load, give_up_at = scene.load, since + _RECOVERED_SECONDS
    accepted = [task_id for task_id, at in load.accepted_at.items() if at <= since]
    trying = [asyncio.create_task(load.send(through)) for through in range(len(GATEWAYS))]
    load.running.update(trying)
    if not await load.wait_for(accepted, give_up_at - time.time()):
        return None
    _, late = await asyncio.wait(trying, timeout=max(0.0, give_up_at - time.time()))
    while not late and time.time() < give_up_at:
        if await asyncio.to_thread(scene.hosts.missing) == {}:
            return time.time() - since
        await asyncio.sleep(0.1)
    return None
