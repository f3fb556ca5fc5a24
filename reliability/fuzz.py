"""No file harms anybody."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx

from reliability.load import client
from reliability.mutations import Body, corpus, good, mutations
from reliability.promises import Promise
from reliability.service import Service

_ALLOWED = frozenset({202, 400, 413, 415, 422})
_GROWTH_BYTES = 100_000_000


class Plan(NamedTuple):
    """How much of it: mutations, clients at a time, bodies between two good images, every how many corpus files."""

    mutations: int = 10_000
    clients: int = 12
    good_every: int = 20
    corpus_step: int = 1
    warm_up: int = 400


QUICK = Plan(mutations=250, clients=8, corpus_step=12, warm_up=60)


@dataclass
class Found:
    """Answers by status, ends of tasks by code, what was wrong with a good image in between, and what broke."""

    statuses: Counter[int] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    good_sent: int = 0
    wrong: list[str] = field(default_factory=list)


async def no_file_harms(service: Service, images: Sequence[bytes], shared: Path, plan: Plan) -> list[Promise]:
    """The corpus and the mutations through the whole service, good images in between."""
    files = [(path.name, path.read_bytes()) for path in sorted((shared / "corpus").glob("*"))[:: plan.corpus_step]]
    bodies = itertools.chain(corpus(files), mutations(good(images), plan.mutations))
    found, ended = Found(), len(service.endings)
    async with client(service.url) as http:
        expected = await detections(http, images[0])
        await send_all(http, itertools.islice(bodies, plan.warm_up), images[0], expected, plan, found)
        before = {kind: service.memory_bytes(kind) for kind in ("gateway", "worker")}
        await send_all(http, bodies, images[0], expected, plan, found)
        grown = {kind: service.memory_bytes(kind) - size for kind, size in before.items()}
    bad = {status: number for status, number in found.statuses.items() if status not in _ALLOWED}
    unclear = {code: number for code, number in found.ends.items() if code not in ("SUCCESS", "invalid_image")}
    dead = [ending.name for ending in service.endings[ended:]]
    complaints = list(complaints_of(service))
    between = f"{found.good_sent} sent, {len(found.wrong)} wrong"
    logged = f"{len(complaints)} {complaints[:1] or ''}"
    growth = ", ".join(f"{kind} {size / 1e6:+.0f} MB" for kind, size in grown.items())
    seen = ", ".join(f"{status} {number}" for status, number in sorted(found.statuses.items()))
    ends = ", ".join(f"{code} {number}" for code, number in found.ends.items())
    return [
        Promise("bodies sent", f"{len(files)} files + {plan.mutations}", f"{found.statuses.total()}", True),
        Promise("answers", "202, 400, 413, 415, 422", seen, not bad),
        Promise("ends of the tasks", "SUCCESS, invalid_image", ends, not unclear),
        Promise("good images in between", "answered right", between, not found.wrong),
        Promise("processes that died", "none", ", ".join(dead) or "none", not dead),
        Promise("tracebacks and errors in the logs", "none", logged, not complaints),
        Promise("memory", "grows by less than 100 MB", growth, sum(grown.values()) < _GROWTH_BYTES),
    ]  # fmt: skip


async def send_all(
    http: httpx.AsyncClient,
    bodies: Iterable[Body],
    image: bytes,
    expected: object,
    plan: Plan,
    found: Found,
) -> None:
    numbered = enumerate(bodies)
    await asyncio.gather(*(send_some(http, numbered, image, expected, plan, found) for _ in range(plan.clients)))


async def send_some(
    http: httpx.AsyncClient,
    numbered: Iterator[tuple[int, Body]],
    image: bytes,
    expected: object,
    plan: Plan,
    found: Found,
) -> None:
    for index, body in numbered:
        await send(http, body, found)
        if index % plan.good_every == 0:
            found.good_sent += 1
            answer = await detections(http, image)
            if answer != expected:
                found.wrong.append(json.dumps(answer))


async def send(http: httpx.AsyncClient, body: Body, found: Found) -> None:
    headers = {"Content-Type": body.content_type} if body.content_type else {}
    try:
        answer = await http.post("/predict", content=body.content, headers=headers)
    except httpx.TransportError:
        found.statuses[0] += 1
        return
    found.statuses[answer.status_code] += 1
    if answer.status_code == 202:
        end = (await http.get(answer.headers["location"], params={"wait": 60})).json()
        found.ends[end["error"]["code"] if end["status"] == "FAILURE" else end["status"]] += 1


async def detections(http: httpx.AsyncClient, image: bytes) -> object:
    answer = await http.post("/predict", content=image, params={"wait": 60})
    body = answer.json()
    return body["result"]["detections"] if body.get("status") == "SUCCESS" else body


def complaints_of(service: Service) -> Iterator[str]:
    """What is in the logs and should not be: tracebacks, errors."""
    for path, record in service.records("gateway", "worker"):
        if (
            "exception" in record
            or record.get("level") in ("error", "critical")
            or "Traceback" in record.get("text", "")
        ):
            yield f"{path.name}: {record}"
