"""A task after it was accepted: read it, wait for it, follow it, see its picture, delete it."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.errors import NotAcceptable
from gateway.task import TaskView
from gateway.web.checks import client_of
from gateway.web.formats import document, picture_type
from gateway.web.parameters import ResultChoices, joined, parse
from gateway.web.responses import JSON, server_timing
from gateway.web.services import services_of
from gateway.web.wait import wait_seconds, while_connected

_PRIVATE = {"Cache-Control": "no-store"}
_PING_SECONDS = 15


class _Stream(EventSourceResponse):
    """Closes what was opened for it with its end, also where nobody has read any of it."""

    def __init__(self, opened: contextlib.AsyncExitStack, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._opened:
            await super().__call__(scope, receive, send)


async def result(request: Request) -> Response:
    """The task as it is now, or with `wait` once it has finished; its result in the asked-for `format`."""
    results = services_of(request).results
    task_id = request.path_params["task_id"]
    choices = parse(ResultChoices, joined(request.query_params.multi_items()))
    seconds, preferred = wait_seconds(request, choices.wait)
    request.state.waits = bool(seconds)
    headers = {**_PRIVATE, **({"Preference-Applied": f"wait={seconds:g}"} if preferred else {})}
    if seconds:
        with services_of(request).waiting.taken(client_of(request)):
            ended, view = await while_connected(request, results.wait(task_id, seconds))
        if ended:
            headers |= server_timing(view)
        else:
            view = await results.with_outlook(view)
    else:
        view = await results.read(task_id)
    if choices.format != "json":
        shown = document(msgspec.json.decode(view, type=TaskView), choices.format)
        if shown is not None:
            headers["Content-Disposition"] = f'inline; filename="{shown.filename}"'
            return Response(shown.content, media_type=shown.media_type, headers=headers)
    return JSON(view, headers=headers)


async def events(request: Request) -> Response:
    """Server-sent events: the task now, at each change of its state and its place; the stream ends with the task."""
    services = services_of(request)
    async with contextlib.AsyncExitStack() as opened:
        opened.enter_context(services.streams.taken(client_of(request)))
        changes = services.results.follow(request.path_params["task_id"])
        following = await opened.enter_async_context(contextlib.aclosing(changes))
        first = await anext(following)  # an unknown task is a 404, not an empty stream
        staying = opened.pop_all()

    async def stream() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(first.decode(), event="state")
        async for view in following:
            yield ServerSentEvent(view.decode(), event="state")

    return _Stream(staying, stream(), headers=_PRIVATE, ping=_PING_SECONDS)


async def picture(request: Request) -> Response:
    """The annotated picture, JPEG or PNG by the Accept header."""
    media_type = picture_type(request.headers.get("accept"))
    if media_type is None:
        raise NotAcceptable("the picture comes as image/jpeg or image/png; the Accept header allows neither")
    services = services_of(request)
    services.limits.check_untaken(client_of(request))
    data = await services.results.picture(request.path_params["task_id"], media_type)
    return Response(data, media_type=media_type, headers={**_PRIVATE, "Vary": "Accept"})


async def delete(request: Request) -> Response:
    """Cancel what has not begun (200 with its end), forget what has ended (204)."""
    view = await services_of(request).submission.cancel(request.path_params["task_id"])
    return JSON(view) if view else Response(status_code=204)
