"""A batch as clients see it."""

from collections.abc import Mapping

from msgspec import UNSET

from gateway.queue.submission import Acceptance
from gateway.task import BatchView, Status, TaskSummary


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
