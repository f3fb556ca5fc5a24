"""What clients see of a task. These names are frozen."""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

Status = Literal["PENDING", "SUCCESS", "FAILURE"]


class Problem(msgspec.Struct, omit_defaults=True):
    """RFC 9457 problem details, with a machine-readable `code`."""

    title: str
    status: int
    detail: str
    code: str
    type: str = "about:blank"


class Box(msgspec.Struct):
    """Corners in pixels of the upright source image, x to the right, y down."""

    x1: float
    y1: float
    x2: float
    y2: float


class Detection(msgspec.Struct):
    """One object. `score` lies between 0 and 1."""

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
    """The answer to one image; detections are best first, `timings_ms` maps a step to its milliseconds."""

    model: ServedModel
    image: ImageSize
    detections: list[Detection]
    timings_ms: dict[str, float]


class TaskView(msgspec.Struct):
    """A task as `GET /result/<task_id>` shows it: `result` is null, the detections, or the failure's message."""

    task_id: str
    status: Status
    result: DetectionResult | str | None = None
    error: Problem | UnsetType = UNSET
