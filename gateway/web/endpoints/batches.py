"""Several images in one request: `GET /batches/<batch_id>` counts and lists them."""

from collections.abc import Mapping

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from gateway.queue.submission import Acceptance
from gateway.task import BatchView, Status, TaskSummary
from gateway.web.responses import JSON
from gateway.web.services import services_of


async def batch(request: Request) -> Response:
    """The batch as it stands."""
    results = services_of(request).results
    accepted = await results.batch(request.path_params["batch_id"])
    ends = await results.ends([entry.task_id for entry in accepted.entries if entry.task_id])
    return JSON(batch_view(accepted, ends), headers={"Cache-Control": "no-store"})


def batch_view(accepted: Acceptance, ends: Mapping[str, Status]) -> BatchView:
    """A batch, with the status of each of its tasks; a part that was refused counts as failed."""
    tasks = [
        TaskSummary(
            entry.index,
            entry.filename,
            entry.task_id or None,
            "FAILURE" if entry.error else ends[entry.task_id],
            entry.error or UNSET,
        )
        for entry in accepted.entries
    ]
    statuses = [task.status for task in tasks]
    return BatchView(
        batch_id=accepted.batch_id,
        total=len(tasks),
        pending=statuses.count("PENDING"),
        succeeded=statuses.count("SUCCESS"),
        failed=statuses.count("FAILURE"),
        tasks=tasks,
    )
