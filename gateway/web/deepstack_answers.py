"""A result in the words of DeepStack and CodeProject.AI, as their clients read it.

Sources: https://github.com/johnolafenwa/DeepStack (server/response, intelligencelayer/shared/detection.py) and
https://github.com/codeproject/CodeProject.AI-Server (modules/ObjectDetectionYOLOv5-6.2, src/SDK/NET/API).
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Literal

import msgspec
from msgspec import field

from gateway.task import Detection, DetectionResult

_NAMED_LABELS = 3


class Prediction(msgspec.Struct):
    """One object; corners in whole pixels of the upright image."""

    label: str
    confidence: float
    x_min: int
    y_min: int
    x_max: int
    y_max: int


class VisionAnswer(msgspec.Struct, kw_only=True):
    """What is in the image, best first; `inferenceMs` is Triton's part of `processMs`, `duration` is in seconds."""

    success: Literal[True] = True
    code: Literal[200] = 200
    message: str
    count: int
    predictions: list[Prediction]
    duration: float
    inference_ms: int = field(name="inferenceMs")
    process_ms: int = field(name="processMs")
    round_trip_ms: int = field(name="analysisRoundTripMs")
    command: Literal["detect", "custom"]
    module_id: str = field(name="moduleId")
    module_name: str = field(name="moduleName")
    request_id: str = field(name="requestId")
    timestamp_utc: str = field(name="timestampUTC")


class VisionFailure(msgspec.Struct, kw_only=True):
    """Why there are no predictions; `code` is the HTTP status."""

    success: Literal[False] = False
    code: int
    error: str
    request_id: str = field(name="requestId")


class ModelNames(msgspec.Struct, kw_only=True):
    """The models that `/v1/vision/custom/<model>` takes."""

    success: Literal[True] = True
    code: Literal[200] = 200
    models: list[str]
    command: Literal["list-custom"] = "list-custom"


class Version(msgspec.Struct, rename="camel", kw_only=True):
    """A version of this service, in CodeProject.AI's words."""

    major: int
    minor: int
    patch: int
    pre_release: str = ""
    security_update: bool = False
    build: int = 0
    file: str = ""
    release_notes: str = ""


class UpdateAvailable(msgspec.Struct, rename="camel", kw_only=True):
    """This service never says that there is an update."""

    success: Literal[True] = True
    message: str
    version: Version
    current: Version
    latest: Version
    update_available: Literal[False] = False


class ServerVersion(msgspec.Struct):
    """The version of this service."""

    message: str
    version: Version
    success: Literal[True] = True


class Ping(msgspec.Struct):
    """The process runs."""

    success: Literal[True] = True


def vision_answer(
    result: DetectionResult, command: Literal["detect", "custom"], seconds: float, request_id: str
) -> VisionAnswer:
    """The answer to one image; `seconds` went by since the request came."""
    timings = result.timings_ms
    return VisionAnswer(
        message=_message([found.label for found in result.detections]),
        count=len(result.detections),
        predictions=[_prediction(found) for found in result.detections],
        duration=round(seconds, 3),
        inference_ms=round(timings["triton"]),
        process_ms=round(timings["total"] - timings["queue"]),
        round_trip_ms=round(seconds * 1000),
        command=command,
        module_id=result.model.name,
        module_name=f"{result.model.name} version {result.model.version}",
        request_id=request_id,
        timestamp_utc=format_datetime(datetime.now(UTC), usegmt=True),
    )


def _prediction(found: Detection) -> Prediction:
    box = found.box
    return Prediction(
        label=found.label,
        confidence=found.score,
        x_min=round(box.x1),
        y_min=round(box.y1),
        x_max=round(box.x2),
        y_max=round(box.y2),
    )


def _message(labels: Sequence[str]) -> str:
    if not labels:
        return "No objects found"
    return f"Found {', '.join(labels[:_NAMED_LABELS])}" + ("..." if len(labels) > _NAMED_LABELS else "")
