"""What the service answers, as the service defines it: a test compares each of these with its own type there.

Fields that a newer service adds are in `raw` of what the client returns.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

Status = Literal["PENDING", "SUCCESS", "FAILURE"]
State = Literal["queued", "started", "retrying", "succeeded", "failed", "canceled"]


class Problem(msgspec.Struct, kw_only=True):
    """RFC 9457 problem details with a machine-readable `code`."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str = ""


class Box(msgspec.Struct, frozen=True):
    """Corners in pixels of the upright image (EXIF applied), x to the right, y down."""

    x1: float
    y1: float
    x2: float
    y2: float


class Detection(msgspec.Struct, frozen=True):
    """One object. `score` is between 0 and 1, `class_id` the model's number of the class, from 0."""

    label: str
    class_id: int
    score: float
    box: Box


class ServedModel(msgspec.Struct, frozen=True):
    """The model and the version of it that answered."""

    name: str
    version: str


class ImageSize(msgspec.Struct, frozen=True):
    """Size of the upright image in pixels."""

    width: int
    height: int


class DetectionResult(msgspec.Struct):
    """The answer to one image; detections are best first, `timings_ms` maps a step to its milliseconds.

    `warnings` says what may be wrong with the answer, such as a file that was cut.
    """

    model: ServedModel
    image: ImageSize
    detections: list[Detection]
    timings_ms: dict[str, float]
    warnings: list[str] = []


class TaskView(msgspec.Struct, kw_only=True):
    """A task as it is: `result` is null, the detections, or the failure's message.

    Times are RFC 3339 in UTC. A queued task has its `position` (0 is next) and, when tasks have finished in the last
    minute, `ready_in_seconds`.
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


class ModelInput(msgspec.Struct):
    """What a model takes, in pixels; `imgsz` is the longer side.

    `letterbox` is `rectangular` where the padding is the least that multiples of the stride need, up to `height` and
    `width`; otherwise, `square` or `fixed`, every image is padded to them.
    """

    imgsz: int
    stride: int
    letterbox: str
    height: int
    width: int


class ModelVersion(msgspec.Struct):
    """One version of a model, with Triton's own word for its state."""

    version: str
    state: str
    reason: str = ""


class ModelView(msgspec.Struct):
    """A model that is served; `labels` are its classes, that of class id 0 first."""

    name: str
    versions: list[ModelVersion]
    labels: list[str]
    input: ModelInput
    max_batch_size: int


class UnavailableModel(msgspec.Struct):
    """A model that should be served and is not, with the reason."""

    name: str
    reason: str


class ModelList(msgspec.Struct):
    """The models; `default` answers when no model is asked for."""

    default: str
    models: list[ModelView]
    unavailable: list[UnavailableModel] = []
