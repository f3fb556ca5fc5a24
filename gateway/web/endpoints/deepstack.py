"""The detection endpoints of DeepStack and CodeProject.AI, for camera software: they wait for the answer."""

import time
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

import gateway
from gateway.errors import GatewayError, InvalidParameter, ModelNotFound, NoImage
from gateway.openapi.operation import BINARY, MODEL, Answer, Operation, Parameter, as_json, fields_of
from gateway.queue.records import TaskRequest
from gateway.queue.waiting import Watch
from gateway.server.request_id import request_id
from gateway.task import DetectionResult, Problem, TaskView
from gateway.telemetry import logs
from gateway.web import examples
from gateway.web.checks import client_of
from gateway.web.deepstack_answers import (
    ModelNames,
    Ping,
    ServerVersion,
    UpdateAvailable,
    Version,
    VisionAnswer,
    VisionFailure,
    vision_answer,
)
from gateway.web.intake import accept, task_request
from gateway.web.parameters import CameraChoices, Choices, joined, parse
from gateway.web.responses import JSON
from gateway.web.services import services_of
from gateway.web.uploads import read_upload
from gateway.web.wait import forget, while_connected

# What DeepStack's clients take for a bad image or parameter, and for a server in trouble.
_STATUSES = {409: 503, 410: 503, 415: 400, 422: 400, 429: 503}
_RETRY_SECONDS = 5


async def vision_detection(request: Request) -> Response:
    """What is in an image, by the default model."""
    return await _answered(_detect, request)


async def vision_custom(request: Request) -> Response:
    """What is in an image, by the model of that name."""
    return await _answered(_detect, request)


async def vision_custom_list(request: Request) -> Response:
    """The names of the models."""
    return await _answered(_list, request)


async def vision_custom_names(request: Request) -> Response:
    """The names of the models."""
    return await _answered(_list, request)


async def status_ping(request: Request) -> Response:
    """Whether the process runs."""
    return JSON(Ping())


async def status_version(request: Request) -> Response:
    """The version of this service."""
    return JSON(ServerVersion(gateway.__version__, _version()))


async def status_update(request: Request) -> Response:
    """The version of this service; Blue Iris asks for it before it sends images."""
    version = _version()
    return JSON(UpdateAvailable(message=gateway.__version__, version=version, current=version, latest=version))


async def server_status_ping(request: Request) -> Response:
    """As `/v1/status/ping`, where newer versions of CodeProject.AI have it."""
    return await status_ping(request)


async def server_status_version(request: Request) -> Response:
    """As `/v1/status/version`."""
    return await status_version(request)


async def server_status_update(request: Request) -> Response:
    """As `/v1/status/updateavailable`."""
    return await status_update(request)


def _version() -> Version:
    major, minor, patch = (int(part) for part in gateway.__version__.split("."))
    return Version(major=major, minor=minor, patch=patch)


def _not_done(what: str, path: str) -> Operation:
    """A part of DeepStack that is not here. Clients know it by the end of the error, and switch it off."""

    async def refuse(request: Request) -> Response:
        return _failure(403, f"this service only detects objects: {what} endpoint not activated")

    refuse.__name__ = "vision_" + path.replace("/", "_")
    refuse.__doc__ = f"Not done here ({what}): says so in DeepStack's words."
    answers = _vision_failures(403)
    return Operation(method="POST", path=f"/v1/vision/{path}", handler=refuse, tag=_CAMERAS, answers=answers)


async def _answered(handler: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
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
    client = client_of(request)
    with services.waiting.taken(client), services.results.watch() as watch:
        with services.admission.taking(client) as receiving:
            upload = await receiving.read(read_upload(request, services.settings, receiving.received, any_file=True))
            if not upload.images:
                raise NoImage("send the image as a file of a multipart form")
            services.metrics.uploaded.observe(len(upload.images[0].data))
            if len(upload.images) > 1:
                raise InvalidParameter(f"image: give one image, not {len(upload.images)}")
            query = joined(request.query_params.multi_items())
            conf = parse(CameraChoices, upload.fields, query).min_confidence
            wanted = await _wanted(request, Choices(model=model, conf=conf))
            accepted, _ = await accept(request, upload, wanted, Choices(), "", watch)
            del upload  # the answer may take long, the image need not
        task_id = accepted.entries[0].task_id
        logs.task_id.set(task_id)
        request.state.waits = True
        ended, stored = await _waited_for(request, task_id, watch)
    if not ended:
        await forget(request, task_id)
        return _failure(503, "the answer did not come in time: the service is busy, try again later")
    view = msgspec.json.decode(stored, type=TaskView)
    if isinstance(view.error, Problem):
        return _failure(view.error.status, view.error.detail)
    assert isinstance(view.result, DetectionResult)
    return JSON(vision_answer(view.result, "custom" if model else "detect", time.monotonic() - begun, request_id.get()))


async def _wanted(request: Request, choices: Choices) -> TaskRequest:
    """The model may be written in capitals or not, as on Windows, where these servers run."""
    try:
        return await task_request(request, choices)
    except InvalidParameter as error:  # only the model can be wrong here, and it is a part of the path
        services = services_of(request)
        listing = await services.models.listing(services.settings.model)
        same = [model.name for model in listing.models if model.name.lower() == choices.model.lower()]
        if len(same) != 1:
            raise ModelNotFound(error.detail) from error
        return await task_request(request, msgspec.structs.replace(choices, model=same[0]))


async def _waited_for(request: Request, task_id: str, watch: Watch) -> tuple[bool, bytes]:
    """Whether the task has ended, and the task. A client that leaves takes its task along: raises ClientDisconnect."""
    services = services_of(request)
    try:
        return await while_connected(request, services.results.wait(task_id, services.settings.vision_wait, watch))
    except ClientDisconnect:
        await forget(request, task_id)
        raise


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
    403: "Not done here.",
    404: "No such model.",
    413: "The image is too large.",
    500: "The model does not fit, the worker was lost, or a defect of this service.",
    503: "Redis or Triton does not answer, or no answer came in time.",
}


_FACES = ("recognize", "register", "match", "list", "delete")
_RUNS = Answer(200, "It runs.", as_json(Ping))
_VERSION = Answer(200, "The version.", as_json(ServerVersion))
_NO_UPDATE = Answer(200, "The version of this service; never an update.", as_json(UpdateAvailable))


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


_LISTINGS = (_LISTED, *_vision_failures(500, 503))

operations = [
    Operation(
        method="POST",
        path="/v1/vision/detection",
        handler=vision_detection,
        tag=_CAMERAS,
        parameters=fields_of(CameraChoices),
        body=_VISION_BODY,
        answers=(
            _FOUND,
            *_vision_failures(400, 413, 500, 503),
        ),
    ),
    *(
        Operation(method=method, path="/v1/vision/custom/list", handler=handler, tag=_CAMERAS, answers=_LISTINGS)
        for method, handler in (("POST", vision_custom_list), ("GET", vision_custom_names))
    ),
    Operation(
        method="POST",
        path="/v1/vision/custom/{name}",
        handler=vision_custom,
        tag=_CAMERAS,
        parameters=(MODEL, *fields_of(CameraChoices)),
        body=_VISION_BODY,
        answers=(
            _FOUND,
            *_vision_failures(400, 404, 413, 500, 503),
        ),
    ),
    *(
        Operation(method="GET", path=f"/v1/{path}", handler=handler, tag=_CAMERAS, answers=(answer,))
        for path, handler, answer in (
            ("status/ping", status_ping, _RUNS),
            ("status/version", status_version, _VERSION),
            ("status/updateavailable", status_update, _NO_UPDATE),
            ("server/status/ping", server_status_ping, _RUNS),
            ("server/status/version", server_status_version, _VERSION),
            ("server/status/updateavailable", server_status_update, _NO_UPDATE),
        )
    ),
    *(_not_done("face", path) for path in ("face", *(f"face/{each}" for each in _FACES))),
    _not_done("scene", "scene"),
    _not_done("enhance", "enhance"),
]
