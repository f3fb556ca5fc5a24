"""The one error shape, and JSON answers."""

from http import HTTPStatus

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.errors import GatewayError, MethodNotAllowed, PathNotFound
from gateway.server.headers import SECURITY_HEADERS
from gateway.server.request_id import HEADER, request_id
from gateway.task import Problem, problem_of
from gateway.web.services import services_of

_OF_STARLETTE = {each.status: each for each in (PathNotFound, MethodNotAllowed)}


class JSON(Response):
    """A JSON body from an object msgspec can encode, or from bytes that are JSON already."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return content if isinstance(content, bytes) else msgspec.json.encode(content)


class ProblemJSON(JSON):
    media_type = "application/problem+json"


class _Timed(msgspec.Struct):
    timings_ms: dict[str, float]


class _TimedTask(msgspec.Struct):
    result: _Timed | str | None = None


def server_timing(view: bytes) -> dict[str, str]:
    """The Server-Timing header of an ended task, https://www.w3.org/TR/server-timing/."""
    result = msgspec.json.decode(view, type=_TimedTask).result
    if not isinstance(result, _Timed):
        return {}
    return {"Server-Timing": ", ".join(f"{name};dur={value}" for name, value in result.timings_ms.items())}


async def gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    services_of(request).metrics.rejected.labels(error.code).inc()
    return ProblemJSON(problem_of(error, request_id.get()), error.status, error.headers)


async def http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = _OF_STARLETTE.get(error.status_code)
    problem = Problem(
        title=known.title if known else HTTPStatus(error.status_code).phrase,
        status=error.status_code,
        detail=f"{request.method} {request.url.path}: {error.detail}",
        code=known.code if known else "http_error",
        request_id=request_id.get(),
    )
    return ProblemJSON(problem, error.status_code, error.headers)


async def internal_error(request: Request, error: Exception) -> Response:
    problem = Problem(
        title="Internal error",
        status=500,
        detail="a defect of this service; its log has the traceback",
        code="internal_error",
        request_id=request_id.get(),
    )
    # Outside of the middleware that sets these.
    headers = {HEADER: request_id.get(), **SECURITY_HEADERS, "Connection": "close"}  # uvicorn closes after a defect
    return ProblemJSON(problem, 500, headers)


async def client_gone(request: Request, error: Exception) -> Response:
    assert isinstance(error, ClientDisconnect)
    return Response(status_code=400)  # nobody reads it
