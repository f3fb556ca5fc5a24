"""The table of operations, from which the routes and /openapi.json are made."""

import functools
import gzip
from typing import Annotated, Any

import msgspec
from markupsafe import escape
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from werkzeug.http import parse_accept_header

from gateway import errors
from gateway.openapi import document, page
from gateway.openapi.operation import (
    BATCH_ID,
    BINARY,
    IDEMPOTENCY_KEY,
    IMAGE_TYPES,
    MODEL,
    PREFER,
    TASK_ID,
    TEXT,
    Answer,
    Handler,
    Operation,
    Parameter,
    as_json,
    fields_of,
)
from gateway.task import BatchView, TaskView
from gateway.triton.catalogue import ModelList, ModelView
from gateway.web import examples
from gateway.web.checks import guarded, refusals
from gateway.web.endpoints import batches, deepstack, health, home, predict, tasks
from gateway.web.endpoints.health import Alive, Ready, Status
from gateway.web.endpoints.home import Home
from gateway.web.formats import CocoDataset
from gateway.web.parameters import Choices, ResultChoices
from gateway.web.responses import JSON
from gateway.web.services import services_of

_ADDRESS = "https://address.invalid"


async def description(request: Request) -> Response:
    """This description of the API."""
    headers, accepted = {"Vary": "Accept-Encoding"}, parse_accept_header(request.headers.get("accept-encoding"))
    if not accepted["gzip"]:
        return JSON(_description(), headers=headers)
    return JSON(_compressed(), headers=headers | {"Content-Encoding": "gzip"})


async def reference(request: Request) -> Response:
    """The same as a page to read and to try the API on."""
    shown = _page(services_of(request).settings.page).replace(_ADDRESS, str(escape(str(request.base_url).rstrip("/"))))
    return HTMLResponse(shown, headers={"Content-Security-Policy": page.POLICY})


@functools.cache
def _page(home: bool) -> str:
    """With _ADDRESS for the service's own: rendering takes 50 ms of the event loop, and needs no key."""
    return page.page(_document(), errors.error_classes(), _ADDRESS, home)


@functools.cache
def _description() -> bytes:
    return msgspec.json.encode(_document())


@functools.cache
def _compressed() -> bytes:
    return gzip.compress(_description(), mtime=0)


@functools.cache
def _document() -> dict[str, Any]:
    return document.document(operations, refusals)


_IMAGES = {"type": "array", "minItems": 1, "items": BINARY, "description": "one image, or several for a batch"}
_BASE64 = {
    "type": "string",
    "format": "byte",
    "contentEncoding": "base64",
    "description": "the image in base64, as it is or as a data: URL",
}
_URL = Annotated[str, Meta(description="https address of the image, where the operator has switched that on")]
_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"const": "state"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/TaskView"},
        },
    },
}
_OF_TASK = {"result": "task_id", "delete": "task_id", "events": "task_id", "picture": "task_id"}
_UNSEEN = (errors.TaskNotFound, errors.ServiceUnavailable)

operations = [
    Operation(
        method="POST",
        path="/predict",
        handler=predict.predict,
        tag="Tasks",
        parameters=(*fields_of(Choices), PREFER, IDEMPOTENCY_KEY),
        body={
            "multipart/form-data": (
                Parameter("image", _IMAGES, "body", required="one of"),
                Parameter("url", _URL, "body", required="one of"),
                *fields_of(Choices, "body"),
            ),
            "application/json": (
                Parameter("image", _BASE64, "body", required="one of"),
                Parameter("url", _URL, "body", required="one of"),
                *fields_of(Choices, "body"),
            ),
            **dict.fromkeys(IMAGE_TYPES),
        },
        answers=(
            Answer(
                200,
                "Waited for, and ended: the task, or the batch when several images were sent.",
                as_json((TaskView, BatchView)),
                ("Content-Location?", "Location?", "Preference-Applied?", "Server-Timing?"),
                _OF_TASK,
                {"task": examples.SUCCESS},
            ),
            Answer(
                202,
                "Accepted: the task, or the batch when several images were sent.",
                as_json((TaskView, BatchView)),
                ("Location", "Preference-Applied?"),
                _OF_TASK,
                {"task": examples.PENDING, "batch": examples.BATCH},
            ),
        ),
        errors=(
            *(errors.BadMultipart, errors.NoImage, errors.BadJSON, errors.SwitchedOff, errors.TaskNotFound),
            errors.PriorityNotAllowed,
            *(errors.ImageTooLarge, errors.TooManyImages, errors.UnsupportedImage, errors.InvalidParameter),
            *(errors.IdempotencyConflict, errors.UrlNotAllowed, errors.FetchFailed),
            *(errors.TooManyOpenTasks, errors.ModelMismatch, errors.ServiceUnavailable, errors.Overloaded),
        ),
    ),
    Operation(
        method="GET",
        path="/result/{task_id}",
        handler=tasks.result,
        tag="Tasks",
        parameters=(TASK_ID, *fields_of(ResultChoices), PREFER),
        answers=(
            Answer(
                200,
                "The task; once it has succeeded, its result in the asked-for form.",
                {"application/json": (TaskView, CocoDataset), "text/plain": TEXT, "text/csv": TEXT},
                ("Cache-Control", "Preference-Applied?", "Server-Timing?", "Content-Disposition?"),
                examples={"succeeded": examples.SUCCESS},
            ),
        ),
        errors=(*_UNSEEN, errors.InvalidParameter, errors.Overloaded),
    ),
    Operation(
        method="DELETE",
        path="/result/{task_id}",
        handler=tasks.delete,
        tag="Tasks",
        parameters=(TASK_ID,),
        answers=(
            Answer(
                200, "Canceled before it began: its end.", as_json(TaskView), examples={"canceled": examples.CANCELED}
            ),
            Answer(204, "It had ended, and is forgotten."),
        ),
        errors=(*_UNSEEN, errors.TaskRunning, errors.Overloaded),
    ),
    Operation(
        method="GET",
        path="/result/{task_id}/events",
        handler=tasks.events,
        tag="Tasks",
        parameters=(TASK_ID,),
        answers=(
            Answer(
                200,
                "An event for each state of the task and each place in the queue; comments keep the connection open.",
                {"text/event-stream": _EVENT},
                ("Cache-Control", "X-Accel-Buffering"),
                examples={"started": examples.EVENT},
            ),
        ),
        errors=(*_UNSEEN, errors.Overloaded),
    ),
    Operation(
        method="GET",
        path="/result/{task_id}/image",
        handler=tasks.picture,
        tag="Tasks",
        parameters=(TASK_ID,),
        answers=(Answer(200, "The picture.", {"image/jpeg": BINARY, "image/png": BINARY}, ("Cache-Control", "Vary")),),
        errors=(*_UNSEEN, errors.NoPicture, errors.NotAcceptable, errors.Overloaded),
    ),
    Operation(
        method="GET",
        path="/batches/{batch_id}",
        handler=batches.batch,
        tag="Tasks",
        parameters=(BATCH_ID,),
        answers=(
            Answer(200, "The batch.", as_json(BatchView), ("Cache-Control",), examples={"batch": examples.BATCH}),
        ),
        errors=_UNSEEN,
    ),
    Operation(
        method="GET",
        path="/models",
        handler=health.models,
        tag="Models",
        answers=(Answer(200, "Those that are ready.", as_json(ModelList), examples={"models": examples.MODELS}),),
        errors=(errors.ServiceUnavailable,),
    ),
    Operation(
        method="GET",
        path="/models/{name}",
        handler=health.model,
        tag="Models",
        parameters=(MODEL,),
        answers=(Answer(200, "The model.", as_json(ModelView), examples={"model": examples.MODEL}),),
        errors=(errors.ModelNotFound, errors.InvalidParameter, errors.ModelMismatch, errors.ServiceUnavailable),
    ),
    *deepstack.operations,
    Operation(
        method="GET",
        path="/",
        handler=home.home,
        tag="Service",
        public=True,
        answers=(
            Answer(
                200,
                "The page, or the doors of this service.",
                {**as_json(Home), "text/html": TEXT},
                ("Permissions-Policy?", "Vary"),
            ),
        ),
    ),
    Operation(
        method="GET",
        path="/livez",
        handler=health.livez,
        tag="Service",
        public=True,
        answers=(Answer(200, "It runs.", as_json(Alive), examples={"alive": Alive()}),),
    ),
    Operation(
        method="GET",
        path="/readyz",
        handler=health.readyz,
        tag="Service",
        public=True,
        answers=(
            Answer(200, "It can accept.", as_json(Ready), examples={"ready": Ready("ready")}),
            Answer(
                503, "It cannot: Redis is away, or it stops.", as_json(Ready), examples={"not ready": examples.NO_REDIS}
            ),
        ),
    ),
    Operation(
        method="GET",
        path="/status",
        handler=health.status,
        tag="Service",
        public=True,
        answers=(
            Answer(200, "Nothing is missing.", as_json(Status), examples={"ready": examples.ALL_WELL}),
            Answer(503, "Something is missing.", as_json(Status), examples={"not ready": examples.NO_WORKER}),
        ),
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        handler=description,
        tag="Service",
        public=True,
        answers=(Answer(200, "OpenAPI 3.1.", as_json({"type": "object"}), ("Content-Encoding?", "Vary")),),
    ),
    Operation(
        method="GET",
        path="/docs",
        handler=reference,
        tag="Service",
        public=True,
        answers=(Answer(200, "A page.", {"text/html": TEXT}),),
    ),
]


class _Files(StaticFiles):
    """Files that a browser asks for again: after an update none is of the old version."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        answer = super().file_response(*args, **kwargs)
        answer.headers.update({"Cache-Control": "no-cache"})
        return answer


def routes(home: bool = True) -> list[BaseRoute]:
    """One route for each path, so that a 405 lists every allowed method; and the files of the pages.

    `home`: those of the page at `/` too.
    """
    by_path: dict[str, dict[str, Handler]] = {}
    for operation in operations:
        handler = operation.handler if operation.public else guarded(operation.handler)
        by_path.setdefault(operation.path, {})[operation.method] = handler
    made = [Route(path, _Endpoint(handlers), methods=list(handlers)) for path, handlers in by_path.items()]
    packages: list[str | tuple[str, str]] = [("gateway.openapi", "static")]
    if home:
        packages.append(("gateway.page", "static"))
    return [*made, Mount("/static", _Files(packages=packages), name="static")]


class _Endpoint:
    """An ASGI application of handlers by method. Starlette would wrap a function once more, for its exceptions."""

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        answer = await self._handlers["GET" if method == "HEAD" else method](Request(scope, receive, send))
        await answer(scope, receive, send)
