"""What is wrong around the service: hosts of callbacks that never answer, workers whose hosts have wrong clocks."""

import asyncio
import datetime
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from reliability import attacks, chaos
from reliability.attacks import Plan, Target, attacking, honest, settled, spread
from reliability.planted import RECEIVER
from reliability.promises import Promise
from reliability.service import Service, running
from tests.support.internet import Site, reply

AHEAD = {"worker.1": 0, "worker.2": 20, "worker.3": -20}  # the first one does the maintenance
_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_TARPITS_SETTINGS = {**attacks.SETTINGS, "CALLBACKS": "true", "WEBHOOK_SECRET": _SECRET}
_CLOCKS_SETTINGS = {**attacks.SETTINGS, "WORKER_TTL": "3"}  # so that an outage is many times as long
_PATIENCE_SECONDS = 60.0
OUTAGE, QUICK_OUTAGE = chaos.Plan(outage_seconds=30, patience_seconds=120), chaos.QUICK


class Receiver:
    """An honest client's: by task, how long after its end the delivery came."""

    def __init__(self) -> None:
        self.lags: dict[str, float] = {}
        self.site = Site(self._answer, RECEIVER)

    async def _answer(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        task = msgspec.json.decode(request.partition(b"\r\n\r\n")[2])
        ended_at = datetime.datetime.fromisoformat(task["ended_at"]).timestamp()
        self.lags.setdefault(task["task_id"], time.time() - ended_at)
        await reply(204)(request, writer)

    async def all_of(self, number: int) -> list[float]:
        """The lags of so many deliveries, or of those that came in time; forgets them."""
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while len(self.lags) < number and time.monotonic() < give_up_at:
            await asyncio.sleep(0.1)
        lags, self.lags = list(self.lags.values()), {}
        return lags


def all_of_them(
    folder: Path, repository: Path, model: str, images: Sequence[bytes], plan: Plan, outage: chaos.Plan
) -> list[Promise]:
    return asyncio.run(_all_of_them(folder, repository, model, images, plan, outage))


async def _all_of_them(
    folder: Path, repository: Path, model: str, images: Sequence[bytes], plan: Plan, outage: chaos.Plan
) -> list[Promise]:
    async with _internet(folder) as (receiver, ports, authority):
        planted = {part: _command(0, f"gateway.{module}", ports, authority) for part, module in _REACHING_OUT.items()}
        with running(folder / "tarpits", repository, model, settings=_TARPITS_SETTINGS, commands_of=planted) as service:
            usual, promises = await tarpits(service, images[0], plan, receiver)
    planted = {part: _command(ahead, "gateway.worker") for part, ahead in AHEAD.items()}
    with running(
        folder / "clocks", repository, model, len(AHEAD), settings=_CLOCKS_SETTINGS, commands_of=planted
    ) as service:
        return promises + await clocks(service, images, plan, outage, usual)


async def tarpits(service: Service, image: bytes, plan: Plan, receiver: Receiver) -> tuple[list[float], list[Promise]]:
    """An honest client with callbacks, alone and beside one whose callbacks nobody answers; the seconds alone too."""
    callback, port = f"https://{RECEIVER}/", int(service.url.rpartition(":")[2])
    await honest(service.url, image, 2, callback_url=callback)
    await receiver.all_of(1)
    await asyncio.sleep(1)
    receiver.lags.clear()
    usual, _ = await honest(service.url, image, plan.usual_seconds, callback_url=callback)
    usual_lags = await receiver.all_of(len(usual))
    with attacking("tarpits", Target(port, image)) as said:
        seconds, wrong = await honest(service.url, image, plan.seconds, callback_url=callback)
        lags = await receiver.all_of(len(seconds))
    await settled(service)
    arrived = f"{len(lags)} of {len(seconds)}, {spread(lags)} after the end (alone {spread(usual_lags)})"
    soon = attacks.served(lags, attacks.most_seconds(usual_lags, plan))
    return usual, [
        Promise("an honest client with callbacks alone", "measured", spread(usual), True),
        attacks.promise(f"beside tarpits ({said()})", seconds, wrong, usual, plan),
        Promise("its webhooks beside tarpits", "all, soon", arrived, len(lags) == len(seconds) and soon),
    ]


async def clocks(
    service: Service, images: Sequence[bytes], plan: Plan, outage: chaos.Plan, usual: Sequence[float]
) -> list[Promise]:
    """Workers 20 s ahead and behind: served as usual, and tasks that run for long are nobody's to put back."""
    await honest(service.url, images[0], 2)
    seconds, wrong = await honest(service.url, images[0], plan.seconds)
    served = attacks.promise("with workers 20 s ahead and 20 s behind", seconds, wrong, usual, plan)
    away = await chaos.triton_is_away(service, images, outage, key=attacks.HONEST)
    warned = {
        path.name for path, line in service.records("worker") if "the host's clock is" in str(line.get("message"))
    }
    found = f"{len(warned)} of {len(AHEAD)} workers"
    return [
        served,
        *(promise._replace(name=f"such workers: {promise.name}") for promise in away[1:]),
        Promise("such workers: who says that its clock is wrong", "2 of 3", found, len(warned) == len(AHEAD) - 1),
    ]


_REACHING_OUT: Mapping[str, str] = {"webhooks": "webhooks", "gateway": "web"}


def _command(ahead: float, module: str, *internet: str) -> list[str]:
    return [sys.executable, "-m", "reliability.planted", str(ahead), module, *internet]


@asynccontextmanager
async def _internet(folder: Path) -> AsyncIterator[tuple[Receiver, str, str]]:
    """A receiver, the ports of it and of a tarpit, the file of its authority."""

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    receiver = Receiver()
    folder.mkdir(parents=True, exist_ok=True)
    authority = folder / "authority.pem"
    receiver.site.authority.cert_pem.write_to_path(str(authority))
    tarpit = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    async with receiver.site.open() as port, tarpit:
        yield receiver, f"{port},{tarpit.sockets[0].getsockname()[1]}", str(authority)
