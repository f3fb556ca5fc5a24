"""Several images in one request: `GET /batches/<batch_id>` counts and lists them."""

from starlette.requests import Request
from starlette.responses import Response

from gateway.web.batch_view import batch_view
from gateway.web.responses import JSON
from gateway.web.services import services_of


async def batch(request: Request) -> Response:
    """The batch as it is now."""
    results = services_of(request).results
    accepted = await results.batch(request.path_params["batch_id"])
    ends = await results.ends([entry.task_id for entry in accepted.entries if entry.task_id])
    return JSON(batch_view(accepted, ends), headers={"Cache-Control": "no-store"})
