"""The models, and whether the service is alive and ready."""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from gateway.web.checks import has_key
from gateway.web.readiness import without_addresses
from gateway.web.responses import JSON
from gateway.web.services import services_of


class Alive(msgspec.Struct):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Ready(msgspec.Struct):
    """Whether requests can be served; `missing` names what cannot be reached, with the reason.

    `unavailable` names models that are in Triton's repository and not served; requests for others are. `warnings` names
    what needs the operator and keeps no result from being read, such as a Redis that is nearly full. Where something
    is, and why a model did not load, is told to who gives a key.
    """

    status: Literal["ready", "not ready"]
    missing: dict[str, str] | UnsetType = UNSET
    unavailable: dict[str, str] | UnsetType = UNSET
    warnings: dict[str, str] | UnsetType = UNSET


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
    """Whether Redis answers, the model is ready in Triton, and a worker is alive."""
    services = services_of(request)
    if services.stopping.is_set():
        return JSON(Ready("not ready", {"gateway": "it stops"}), 503)
    missing = await services.readiness.missing()
    unavailable, warnings = services.readiness.unavailable, services.readiness.warnings
    if not has_key(request):
        missing = without_addresses(missing)
        if services.keys:  # otherwise GET /models tells it to all
            unavailable = dict.fromkeys(unavailable, "not served")
    status: Literal["ready", "not ready"] = "not ready" if missing else "ready"
    return JSON(Ready(status, missing or UNSET, unavailable or UNSET, warnings or UNSET), 503 if missing else 200)
