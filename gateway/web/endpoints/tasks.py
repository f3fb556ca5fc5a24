"""A task after it was accepted: read it, wait for it, follow it, see its picture, delete it."""

from collections.abc import AsyncIterator

import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import NotAcceptable
from gateway.task import TaskView
from gateway.web.formats import document, picture_type
from gateway.web.parameters import ResultChoices, joined, parse
from gateway.web.responses import JSON, server_timing
from gateway.web.services import services_of
from gateway.web.wait import wait_seconds

_PRIVATE = {"Cache-Control": "no-store"}
_PING_SECONDS = 15


async def result(request: Request) -> Response:
    """The task as it is now, or with `wait` once it has finished; its result in the asked-for `format`."""
    results = services_of(request).results
    task_id = request.path_params["task_id"]
    choices = parse(ResultChoices, joined(request.query_params.multi_items()))
    seconds, preferred = wait_seconds(request, choices.wait)
    request.state.waits = bool(seconds)
    headers = {**_PRIVATE, **({"Preference-Applied": f"wait={seconds:g}"} if preferred else {})}
    if seconds:
        ended, view = await results.wait(task_id, seconds)
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
    """Server-sent events: the task now and at each change of its state; the stream ends with the task."""
    following = services_of(request).results.follow(request.path_params["task_id"])
    first = await anext(following)  # an unknown task is a 404, not an empty stream

    async def stream() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(first.decode(), event="state")
        async for view in following:
            yield ServerSentEvent(view.decode(), event="state")

    return EventSourceResponse(stream(), headers=_PRIVATE, ping=_PING_SECONDS)


async def picture(request: Request) -> Response:
    """The annotated picture, JPEG or PNG by the Accept header."""
    media_type = picture_type(request.headers.get("accept"))
    if media_type is None:
        raise NotAcceptable("the picture comes as image/jpeg or image/png; the Accept header allows neither")
    data = await services_of(request).results.picture(request.path_params["task_id"], media_type)
    return Response(data, media_type=media_type, headers={**_PRIVATE, "Vary": "Accept"})


async def delete(request: Request) -> Response:
    """Cancel what has not begun (200 with its end), forget what has ended (204)."""
    view = await services_of(request).submission.cancel(request.path_params["task_id"])
    return JSON(view) if view else Response(status_code=204)
