"""The one error shape and the one task shape."""

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.detections import Problem
from gateway.errors import GatewayError

_CODES = {404: "not_found", 405: "method_not_allowed"}


class JSON(Response):
    """A JSON body from an object msgspec can encode, or from bytes that are JSON already."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return content if isinstance(content, bytes) else msgspec.json.encode(content)


class ProblemJSON(JSON):
    media_type = "application/problem+json"


def gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)
    headers = {"Retry-After": "5"} if error.status == 503 else None
    problem = Problem(title=error.title, status=error.status, detail=error.detail, code=error.code)
    return ProblemJSON(problem, error.status, headers)


def http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "http_error")
    detail = f"{request.method} {request.url.path}: {error.detail}"
    problem = Problem(title=error.detail, status=error.status_code, detail=detail, code=code)
    return ProblemJSON(problem, error.status_code, error.headers)


def internal_error(request: Request, error: Exception) -> Response:
    detail = "a defect of this service; its log has the traceback"
    return ProblemJSON(Problem(title="Internal error", status=500, detail=detail, code="internal_error"), 500)


def client_gone(request: Request, error: Exception) -> Response:
    assert isinstance(error, ClientDisconnect)
    return Response(status_code=400)  # nobody reads it
