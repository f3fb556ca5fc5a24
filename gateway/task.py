"""What clients see of a task. The names of the first contract (task_id, status, result, error) are frozen."""

from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from gateway.errors import GatewayError

Status = Literal["PENDING", "SUCCESS", "FAILURE"]
State = Literal["queued", "started", "retrying", "succeeded", "failed", "canceled"]


class Problem(msgspec.Struct, kw_only=True):
    """RFC 9457 problem details, with a machine-readable `code` and the id of the request that caused it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str = ""


def problem_of(error: GatewayError, request_id: str = "") -> Problem:
    """The problem object of an error."""
    return Problem(title=error.title, status=error.status, detail=error.detail, code=error.code, request_id=request_id)


class Box(msgspec.Struct):
    """Corners in pixels of the upright source image, x to the right, y down."""

    x1: float
    y1: float
    x2: float
    y2: float


class Detection(msgspec.Struct):
    """One object. `score` is between 0 and 1."""

    label: str
    class_id: int
    score: float
    box: Box


class ServedModel(msgspec.Struct):
    """The model and the version of it that answered."""

    name: str
    version: str


class ImageSize(msgspec.Struct):
    """Size of the upright source image in pixels."""

    width: int
    height: int


class DetectionResult(msgspec.Struct):
    """The answer to one image; detections are best first, `timings_ms` maps a step to its milliseconds.

    `warnings` says what may be wrong with the answer, such as a file that was cut.
    `triton_queue` and `triton_compute` are Triton's own means over about the last second, not of this image alone.
    """

    model: ServedModel
    image: ImageSize
    detections: list[Detection]
    timings_ms: dict[str, float]
    warnings: list[str] = []


class TaskView(msgspec.Struct, kw_only=True):
    """A task as `GET /result/<task_id>` shows it: `result` is null, the detections, or the failure's message.

    `state` is the finer status. Times are RFC 3339 in UTC. A queued task has its `position` (0 is next) and, when tasks
    have ended in the last minute, `ready_in_seconds`, worked out from their rate.
    """

    task_id: str
    status: Status
    state: State
    result: DetectionResult | str | None = None
    error: Problem | UnsetType = UNSET
    batch_id: str | UnsetType = UNSET
    created_at: str | UnsetType = UNSET
    started_at: str | UnsetType = UNSET
    ended_at: str | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET
    position: int | UnsetType = UNSET
    ready_in_seconds: float | UnsetType = UNSET


class TaskSummary(msgspec.Struct):
    """A task in a batch; `task_id` is null for a part that was refused."""

    index: int
    filename: str
    task_id: str | None
    status: Status
    error: Problem | UnsetType = UNSET


class BatchView(msgspec.Struct):
    """A batch as `GET /batches/<batch_id>` shows it; the counts add up to `total`."""

    batch_id: str
    total: int
    pending: int
    succeeded: int
    failed: int
    tasks: list[TaskSummary]


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond, of seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
