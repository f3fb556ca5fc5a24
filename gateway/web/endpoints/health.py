"""The models, and whether the service is alive, can accept, and has all that it needs."""

from typing import Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from gateway.web.checks import has_key
from gateway.web.readiness import QueueCounts, Readiness, WorkerCounts, without_addresses, without_names
from gateway.web.responses import JSON
from gateway.web.services import services_of

_T = TypeVar("_T")
_STOPS = "it stops"


class Alive(msgspec.Struct):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Ready(msgspec.Struct):
    """Whether this gateway can accept; `missing` names what keeps it from that, with the reason."""

    status: Literal["ready", "not ready"]
    missing: dict[str, str] | UnsetType = UNSET


class Status(msgspec.Struct):
    """The whole picture; `missing` names what is not there or cannot be reached, with the reason.

    `unavailable` names models that are in Triton's repository and not served; requests for others are. `warnings` names
    what needs the operator and keeps no result from being read, such as a Redis that is nearly full. Where something
    is, the names of models and why one did not load, what a warning says, and how many workers and tasks there are, is
    told to who gives a key; where no keys are asked for, all but the addresses to everybody.
    """

    status: Literal["ready", "not ready"]
    missing: dict[str, str] | UnsetType = UNSET
    unavailable: dict[str, str] | UnsetType = UNSET
    warnings: dict[str, str] | UnsetType = UNSET
    models: list[str] | UnsetType = UNSET
    workers: WorkerCounts | UnsetType = UNSET
    queue: QueueCounts | UnsetType = UNSET


async def models(request: Request) -> Response:
    """The models that Triton serves."""
    services = services_of(request)
    return JSON(await services.models.listing(services.settings.model))


async def model(request: Request) -> Response:
    """One model: versions, state, labels, input, batch limit."""
    return JSON(await services_of(request).models.view(request.path_params["name"]))


async def livez(request: Request) -> Response:
    """Whether the process runs."""
    return JSON(Alive())


async def readyz(request: Request) -> Response:
    """Whether this gateway can accept: Redis answers, and it does not stop. Neither workers nor Triton count."""
    services = services_of(request)
    missing = {"gateway": _STOPS} if services.stopping.is_set() else await services.readiness.refusing()
    if not has_key(request):
        missing = without_addresses(missing)
    return JSON(Ready(_word(missing), missing or UNSET), 503 if missing else 200)


async def status(request: Request) -> Response:
    """Whether Redis answers, the model is ready in Triton, and a worker is alive; what else there is to know."""
    services = services_of(request)
    readiness, knows = services.readiness, has_key(request)
    missing = await readiness.missing()
    if services.stopping.is_set():
        missing = {"gateway": _STOPS} | missing
    if services.keys and not knows:
        return JSON(_for_strangers(missing, readiness), 503 if missing else 200)
    told = Status(_word(missing), (missing if knows else without_addresses(missing)) or UNSET)
    told.unavailable, told.warnings = readiness.unavailable or UNSET, readiness.warnings or UNSET
    told.models = _known(readiness.models)
    told.workers, told.queue = _known(readiness.workers), _known(readiness.queue)
    return JSON(told, 503 if missing else 200)


def _for_strangers(missing: dict[str, str], readiness: Readiness) -> Status:
    """What GET /models and the metrics tell is left out, names and numbers."""
    told = Status(_word(missing), without_names(missing) or UNSET)
    told.warnings = dict.fromkeys(readiness.warnings, "told with a key") or UNSET
    return told


def _known(found: _T | None) -> _T | UnsetType:
    return UNSET if found is None else found


def _word(missing: dict[str, str]) -> Literal["ready", "not ready"]:
    return "not ready" if missing else "ready"
