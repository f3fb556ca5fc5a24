"""One example of each body, for the documentation; made of the types that the code answers with."""

from gateway.errors import Canceled, UnsupportedImage
from gateway.task import (
    BatchView,
    Box,
    Detection,
    DetectionResult,
    ImageSize,
    ServedModel,
    TaskSummary,
    TaskView,
    problem_of,
)
from gateway.triton.catalogue import ModelInput, ModelList, ModelVersion, ModelView
from gateway.web.deepstack_answers import ModelNames, Prediction, VisionAnswer, VisionFailure
from gateway.web.endpoints.health import Ready, Status
from gateway.web.readiness import QueueCounts, WorkerCounts

_TASK_ID = "204e5a420d734c7cab7a69e83976f6c6"
_REQUEST_ID = "5c2e67faa7e54424b5df3db43bc36f1d"
_NO_IMAGE = "the body is not a JPEG, PNG, WebP, BMP or GIF image; send one of these formats"

PENDING = TaskView(task_id=_TASK_ID, status="PENDING", state="queued")
SUCCESS = TaskView(
    task_id=_TASK_ID,
    status="SUCCESS",
    state="succeeded",
    result=DetectionResult(
        model=ServedModel("yolov5n", "1"),
        image=ImageSize(810, 1080),
        detections=[Detection("person", 0, 0.82, Box(219.3, 407.8, 349.4, 862.8))],
        timings_ms={"queue": 1.2, "decode": 8.1, "letterbox": 0.7, "triton": 35.0, "nms": 0.3, "total": 46.1},
    ),
    created_at="2026-05-04T12:00:00.000Z",
    started_at="2026-05-04T12:00:00.001Z",
    ended_at="2026-05-04T12:00:00.047Z",
    expires_at="2026-05-04T13:00:00.047Z",
)
CANCELED = TaskView(
    task_id=_TASK_ID,
    status="FAILURE",
    state="canceled",
    result="the task was canceled before it began",
    error=problem_of(Canceled("the task was canceled before it began"), _REQUEST_ID),
)
BATCH = BatchView(
    batch_id="7d62b2f5c7f746748492911e0c934c5a",
    total=2,
    pending=1,
    succeeded=0,
    failed=1,
    tasks=[
        TaskSummary(0, "bus.jpg", _TASK_ID, "PENDING"),
        TaskSummary(1, "notes.txt", None, "FAILURE", problem_of(UnsupportedImage(_NO_IMAGE), _REQUEST_ID)),
    ],
)
MODEL = ModelView(
    "yolov5n", [ModelVersion("1", "READY")], ["person", "bicycle"], ModelInput(640, 32, "rectangular", 640, 640), 8
)
MODELS = ModelList("yolov5n", [MODEL])
EVENT = {"event": "state", "data": '{"task_id":"' + _TASK_ID + '","status":"PENDING","state":"started","result":null}'}
VISION = VisionAnswer(
    message="Found person",
    count=1,
    predictions=[Prediction("person", 0.82, 219, 408, 349, 863)],
    duration=0.052,
    inference_ms=35,
    process_ms=46,
    round_trip_ms=52,
    command="detect",
    module_id="yolov5n",
    module_name="yolov5n version 1",
    request_id=_REQUEST_ID,
    timestamp_utc="Mon, 04 May 2026 12:00:00 GMT",
)
VISION_MODELS = ModelNames(models=["yolov5n"])
VISION_FAILURE = VisionFailure(code=400, error=_NO_IMAGE, request_id=_REQUEST_ID)

NO_REDIS = Ready("not ready", {"redis": "does not answer"})
ALL_WELL = Status("ready", models=["yolov5n"], workers=WorkerCounts(2, 1), queue=QueueCounts(5, 4, 0))
NO_WORKER = Status(
    "not ready",
    {"worker": "no worker is alive; start one with `python -m gateway.worker`"},
    models=["yolov5n"],
    workers=WorkerCounts(0, 0),
    queue=QueueCounts(12, 12, 0),
)
