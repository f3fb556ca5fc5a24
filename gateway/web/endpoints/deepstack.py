"""The detection endpoints of DeepStack and CodeProject.AI, for camera software: they wait for the answer."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

import gateway
from gateway.errors import GatewayError, InvalidParameter, ModelNotFound, NoImage, TaskNotFound, TaskRunning
from gateway.openapi.operation import BINARY, MODEL, Answer, Operation, Parameter, as_json, fields_of
from gateway.queue.records import TaskRequest
from gateway.queue.waiting import Watch
from gateway.server.request_id import request_id
from gateway.task import DetectionResult, Problem, TaskView
from gateway.telemetry import logs
from gateway.web import examples
from gateway.web.deepstack_answers import (
    ModelNames,
    Ping,
    UpdateAvailable,
    Version,
    VisionAnswer,
    VisionFailure,
    vision_answer,
)
from gateway.web.intake import accept, task_request
from gateway.web.parameters import CameraChoices, Choices, parse
from gateway.web.responses import JSON
from gateway.web.services import services_of
from gateway.web.uploads import FIELD, read_upload

# What DeepStack's clients take for a bad image or parameter, and for a server in trouble.
_STATUSES = {409: 503, 410: 503, 415: 400, 422: 400}
_RETRY_SECONDS = 5


async def vision_detection(request: Request) -> Response:
    """What is in an image, by the default model."""
    return await _told(_detect, request)


async def vision_custom(request: Request) -> Response:
    """What is in an image, by the model of that name."""
    return await _told(_detect, request)


async def vision_custom_list(request: Request) -> Response:
    """The names of the models."""
    return await _told(_list, request)


async def status_ping(request: Request) -> Response:
    """Whether the process runs."""
    return JSON(Ping())


async def status_update(request: Request) -> Response:
    """The version of this service; Blue Iris asks for it before it sends images."""
    major, minor, patch = (int(part) for part in gateway.__version__.split("."))
    version = Version(major=major, minor=minor, patch=patch)
    return JSON(UpdateAvailable(message=gateway.__version__, version=version, current=version, latest=version))


async def _told(handler: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    """The answer of a handler, its errors in the words of these servers."""
    try:
        return await handler(request)
    except GatewayError as error:
        services_of(request).metrics.rejected.labels(error.code).inc()
        return _failure(error.status, error.detail, error.retry_after)


def _failure(status: int, detail: str, retry_after: int | None = None) -> Response:
    code = _STATUSES.get(status, status)
    failure = VisionFailure(code=code, error=detail, request_id=request_id.get())
    return JSON(failure, code, {"Retry-After": str(retry_after or _RETRY_SECONDS)} if code == 503 else None)


async def _list(request: Request) -> Response:
    services = services_of(request)
    listing = await services.models.listing(services.settings.model)
    return JSON(ModelNames(models=[model.name for model in listing.models]))


async def _detect(request: Request) -> Response:
    begun = time.monotonic()
    model = request.path_params.get("name", "")
    services = services_of(request)
    with services.results.watch() as watch:
        with services.admission.taking() as received:
            upload = await read_upload(request, services.settings, received, any_file=True)
            if not upload.images:
                raise NoImage("send the image as a file of a multipart form")
            services.metrics.uploaded.observe(len(upload.images[0].data))
            if len(upload.images) > 1:
                raise InvalidParameter(f"{FIELD}: give one image, not {len(upload.images)}")
            conf = parse(CameraChoices, upload.fields).min_confidence
            wanted = await _wanted(request, Choices(model=model, conf=conf))
            accepted = await accept(request, upload, wanted, Choices(), "", watch)
            del upload  # the answer may take long, the image need not
        task_id = accepted.entries[0].task_id
        logs.task_id.set(task_id)
        request.state.waits = True
        ended, stored = await _waited_for(request, task_id, watch)
    if not ended:
        await _forget(request, task_id)
        return _failure(503, "the answer did not come in time: the service is busy, try again later")
    view = msgspec.json.decode(stored, type=TaskView)
    if isinstance(view.error, Problem):
        return _failure(view.error.status, view.error.detail)
    assert isinstance(view.result, DetectionResult)
    return JSON(vision_answer(view.result, "custom" if model else "detect", time.monotonic() - begun, request_id.get()))


async def _wanted(request: Request, choices: Choices) -> TaskRequest:
    try:
        return await task_request(request, choices)
    except InvalidParameter as error:  # only the model can be wrong here, and it is a part of the path
        raise ModelNotFound(error.detail) from error


async def _waited_for(request: Request, task_id: str, watch: Watch) -> tuple[bool, bytes]:
    """Whether the task has ended, and the task. A client that leaves takes its task along: raises ClientDisconnect."""
    services = services_of(request)
    waiting = asyncio.ensure_future(services.results.wait(task_id, services.settings.vision_wait, watch))
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            await _forget(request, task_id)
            raise ClientDisconnect
        return waiting.result()
    finally:
        waiting.cancel()
        leaving.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _forget(request: Request, task_id: str) -> None:
    """Nobody waits for the task any more. One that a worker has begun ends by itself."""
    with contextlib.suppress(TaskRunning, TaskNotFound):
        await services_of(request).submission.cancel(task_id)


_CAMERAS = "Camera software"
_API_KEY = {"description": "taken, because DeepStack's clients send it"}
_VISION_BODY = {
    "multipart/form-data": (
        Parameter("image", {**BINARY, "description": "the image"}, "body", required=True),
        *fields_of(CameraChoices, "body"),
        Parameter("api_key", _API_KEY, "body"),
    )
}
_FOUND = Answer(200, "What was found.", as_json(VisionAnswer), examples={"found": examples.VISION})
_LISTED = Answer(200, "The models.", as_json(ModelNames), examples={"models": examples.VISION_MODELS})
_VISION_FAILURES = {
    400: "No image, a broken one, several, or a wrong parameter.",
    404: "No such model.",
    413: "The image is too large.",
    500: "The model does not fit, the worker was lost, or a defect of this service.",
    503: "Redis or Triton does not answer, or no answer came in time.",
}


def _vision_failures(*statuses: int) -> tuple[Answer, ...]:
    content = as_json(VisionFailure)
    return tuple(
        Answer(
            status,
            _VISION_FAILURES[status],
            content,
            ("Retry-After",) if status == 503 else (),
            examples={"no image": examples.VISION_FAILURE} if status == 400 else {},
        )
        for status in statuses
    )


operations = [
    Operation(
        method="POST",
        path="/v1/vision/detection",
        handler=vision_detection,
        tag=_CAMERAS,
        body=_VISION_BODY,
        answers=(
            _FOUND,
            *_vision_failures(400, 413, 500, 503),
        ),
    ),
    Operation(
        method="POST",
        path="/v1/vision/custom/list",
        handler=vision_custom_list,
        tag=_CAMERAS,
        answers=(
            _LISTED,
            *_vision_failures(500, 503),
        ),
    ),
    Operation(
        method="POST",
        path="/v1/vision/custom/{name}",
        handler=vision_custom,
        tag=_CAMERAS,
        parameters=(MODEL,),
        body=_VISION_BODY,
        answers=(
            _FOUND,
            *_vision_failures(400, 404, 413, 500, 503),
        ),
    ),
    Operation(
        method="GET",
        path="/v1/status/ping",
        handler=status_ping,
        tag=_CAMERAS,
        answers=(Answer(200, "It runs.", as_json(Ping)),),
    ),
    Operation(
        method="GET",
        path="/v1/status/updateavailable",
        handler=status_update,
        tag=_CAMERAS,
        answers=(Answer(200, "The version of this service; never an update.", as_json(UpdateAvailable)),),
    ),
]
