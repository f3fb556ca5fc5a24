"""The API's description, OpenAPI 3.1, made from the table of operations and from the types that the code runs on."""

import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

import gateway
from gateway.errors import (
    GatewayError,
    HeadersTooLarge,
    InternalError,
    MalformedRequest,
    PathNotFound,
    RequestTimeout,
    TaskFailed,
    error_classes,
)
from gateway.openapi.operation import Answer, Operation, Parameter
from gateway.server.request_id import HEADER
from gateway.task import Problem, TaskView

Schema = dict[str, Any]
Refusals = Callable[[str], tuple[type[GatewayError], ...]]

_TEMPLATE = "#/components/schemas/{name}"
_TITLE = "YOLOv5 gateway"
_ABOUT = """Upload an image, get a task, read the detections.

Every error is problem details (RFC 9457) with a `code`. Paths and methods that are not listed here are answered with
404 `not_found` and 405 `method_not_allowed`. Every answer carries an `X-Request-ID`: yours, or a new one.

A parameter counts as not given where it is empty in a query or a form, or null in JSON.

If the operator has set up API keys, everything but the health checks and this description needs one."""

ANSWER_HEADERS: dict[str, Any] = {
    HEADER: Annotated[str, Meta(description="the id of this request, also in the logs of gateway and worker")],
    "Location": Annotated[str, Meta(description="where the task or the batch can be read")],
    "Content-Location": Annotated[str, Meta(description="where the task can be read again")],
    "Preference-Applied": Annotated[str, Meta(description="the `wait` of the Prefer header that was granted")],
    "Server-Timing": Annotated[str, Meta(description="the milliseconds of each step, as in `timings_ms`")],
    "RateLimit-Policy": Annotated[str, Meta(description="where there is a rate limit: `q` requests in `w` seconds")],
    "RateLimit": Annotated[str, Meta(description="`r` requests are left, all `q` are again in `t` seconds")],
    "WWW-Authenticate": Annotated[str, Meta(description="`Bearer`: how to give the key")],
    "Retry-After": Annotated[str, Meta(description="seconds after which to try again")],
    "Cache-Control": Annotated[str, Meta(description="`no-store`: the next answer may differ")],
    "Content-Encoding": Annotated[str, Meta(description="`gzip` for who accepts that")],
    "Content-Disposition": Annotated[str, Meta(description="the name to save the file under")],
    "X-Accel-Buffering": Annotated[str, Meta(description="`no`: tells nginx to pass each event on at once")],
    "Permissions-Policy": Annotated[str, Meta(description="what the page may use of the browser: the camera")],
    "Vary": Annotated[str, Meta(description="the header of the request that the answer depends on")],
}
_ANY_REQUEST = (MalformedRequest, RequestTimeout, HeadersTooLarge, InternalError)
_SECURITY: list[Schema] = [{}, {"bearer": []}, {"header": []}]
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "a key of this service, if it asks for one"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "the same, in another header"},
}
_OF_STATUS = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
_REQUEST_ID = Parameter(
    HEADER, Annotated[str, Meta(description="an id of your own: 1 to 64 letters, digits, dots, _ and -")], "header"
)


def document(operations: Sequence[Operation], refusals: Refusals) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these operations.

    `refusals` gives the errors of the checks before an operation of that method that is not public.
    """
    components = _Components()
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for operation in operations:
        paths[operation.path][operation.method.lower()] = _operation(operation, components, refusals)
    components.schema(Problem)
    components.schemas["Problem"]["properties"]["code"]["enum"] = sorted(error.code for error in error_classes())
    if "TaskView" in components.schemas:
        components.schemas["TaskView"]["properties"]["error"] = _problem(error_classes(TaskFailed))
    tags = list(dict.fromkeys(operation.tag for operation in operations))
    return {
        "openapi": "3.1.1",
        "info": {"title": _TITLE, "version": gateway.__version__, "description": _ABOUT, "license": {"name": "MIT"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in tags],
        "security": _SECURITY,
        "paths": dict(paths),
        "webhooks": {"taskEnded": {"post": _webhook(components)}},
        "components": {"schemas": dict(sorted(components.schemas.items())), "securitySchemes": _SECURITY_SCHEMES},
    }


class _Components:
    """Collects the schemas that others refer to."""

    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = {}

    def schema(self, kind: Any) -> Schema:
        """The schema of a type, a reference if the type has a name; a tuple has alternatives, a dict is a schema."""
        if isinstance(kind, dict):
            return kind
        if isinstance(kind, tuple):
            return {"oneOf": [self.schema(alternative) for alternative in kind]}
        (schema,), found = msgspec.json.schema_components([kind], ref_template=_TEMPLATE)
        for name, component in found.items():
            if "description" in component:
                component["description"] = _unwrapped(component["description"])
            self.schemas.setdefault(name, component)
        return schema


def _webhook(components: _Components) -> dict[str, Any]:
    """What a `callback_url` gets, https://www.standardwebhooks.com."""
    headers = {
        "webhook-id": "the task id; the same at every try",
        "webhook-timestamp": "when this try was made, seconds since the epoch",
        "webhook-signature": "`v1,` and the base64 of HMAC-SHA256 over id, timestamp and body, with dots between",
    }
    parameters = [Parameter(name, Annotated[str, Meta(description=text)], "header") for name, text in headers.items()]
    return {
        "operationId": "taskEnded",
        "summary": "A task that was sent with `callback_url` has ended, well or badly",
        "parameters": [_parameter(each, components) | {"required": True} for each in parameters],
        "requestBody": {"required": True, "content": {"application/json": {"schema": components.schema(TaskView)}}},
        "responses": {
            "2XX": {"description": "Delivered."},
            "410": {"description": "Not wanted any more."},
            "default": {"description": "Tried again later, several times."},
        },
    }


def _operation(operation: Operation, components: _Components, refusals: Refusals) -> dict[str, Any]:
    summary, _, more = inspect.cleandoc(operation.handler.__doc__ or "").partition("\n")
    described: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "tags": [operation.tag],
        "summary": summary.rstrip("."),
    }
    if more.strip():
        described["description"] = _unwrapped(more)
    described["parameters"] = [_parameter(each, components) for each in (*operation.parameters, _REQUEST_ID)]
    if operation.body:
        content = {media: _content(media, fields, components) for media, fields in operation.body.items()}
        described["requestBody"] = {"required": True, "content": content}
    if operation.public:
        described["security"] = []
    described["responses"] = _responses(operation, components, refusals)
    return described


def _parameter(parameter: Parameter, components: _Components) -> dict[str, Any]:
    schema = _property(parameter, components)
    described: dict[str, Any] = {"name": parameter.name, "in": parameter.where, "schema": schema}
    if "description" in schema:
        described["description"] = schema.pop("description")
    if parameter.required or parameter.where == "path":
        described["required"] = True
    return described


def _property(parameter: Parameter, components: _Components) -> Schema:
    schema = dict(components.schema(parameter.kind))
    given = [option for option in schema.pop("anyOf", []) if option != {"type": "null"}]
    if given:  # null only means: not given
        schema |= given[0] if len(given) == 1 else {"anyOf": given}
    if parameter.default not in (None, "", msgspec.NODEFAULT):
        schema["default"] = parameter.default
    return schema


def _or_null(schema: Schema) -> Schema:
    notes = {name: schema[name] for name in ("description", "default") if name in schema}
    value = {name: schema[name] for name in schema if name not in notes}
    return notes | {"anyOf": [*value.get("anyOf", [value]), {"type": "null"}]}


def _content(media: str, fields: tuple[Parameter, ...] | None, components: _Components) -> dict[str, Any]:
    if fields is None:
        return {}
    properties = {each.name: _property(each, components) for each in fields}
    if media == "application/json":
        properties |= {each.name: _or_null(properties[each.name]) for each in fields if not each.required}
    schema: Schema = {"type": "object", "properties": properties}
    if required := [each.name for each in fields if each.required is True]:
        schema["required"] = required
    if one_of := [{"required": [each.name]} for each in fields if each.required == "one of"]:
        schema["anyOf"] = one_of
    return {"schema": schema}


def _responses(operation: Operation, components: _Components, refusals: Refusals) -> dict[str, Any]:
    often = () if operation.public else ("RateLimit-Policy?", "RateLimit?")
    refused = () if operation.public else refusals(operation.method)
    responses: dict[str, Any] = {str(each.status): _answer(each, often, components) for each in operation.answers}
    by_status: defaultdict[int, list[type[GatewayError]]] = defaultdict(list)
    anywhere = (*_ANY_REQUEST, PathNotFound) if "{" in operation.path else _ANY_REQUEST
    for error in sorted({*operation.errors, *refused, *anywhere}, key=lambda each: each.code):
        by_status[error.status].append(error)
    for status, errors in sorted(by_status.items()):
        failed = _failure(status, errors, often)
        if good := responses.get(str(status)):
            good["description"] += "\n\n" + failed["description"]
            good["content"] |= failed["content"]
        else:
            responses[str(status)] = failed
    return responses


def _answer(answer: Answer, often: tuple[str, ...], components: _Components) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description, "headers": _headers((*answer.headers, *often))}
    if answer.content:
        described["content"] = {media: {"schema": components.schema(kind)} for media, kind in answer.content.items()}
        if answer.examples:
            shown = {name: {"value": msgspec.to_builtins(example)} for name, example in answer.examples.items()}
            next(iter(described["content"].values()))["examples"] = shown
    if answer.links:
        described["links"] = {
            handler: {"operationId": handler, "parameters": {name: f"$response.body#/{name}"}}
            for handler, name in answer.links.items()
        }
    return described


def _failure(status: int, errors: Sequence[type[GatewayError]], often: tuple[str, ...]) -> dict[str, Any]:
    lines = [f"- `{error.code}`: {_unwrapped(error.__doc__ or error.title)}" for error in errors]
    return {
        "description": "\n".join(lines),
        "headers": _headers((*_OF_STATUS.get(status, ()), *often)),
        "content": {"application/problem+json": {"schema": _problem(errors, status)}},
    }


def _problem(errors: Iterable[type[GatewayError]], status: int | None = None) -> Schema:
    """Problem details narrowed to these errors."""
    narrowed: Schema = {"code": {"enum": sorted(error.code for error in errors)}}
    if status is not None:
        narrowed["status"] = {"const": status}
    return {"allOf": [{"$ref": _TEMPLATE.format(name="Problem")}, {"properties": narrowed}]}


def _headers(names: Iterable[str]) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    for name in (HEADER, *names):
        schema = _Components().schema(ANSWER_HEADERS[name.rstrip("?")])
        described = {"description": schema.pop("description"), "schema": schema, "required": not name.endswith("?")}
        headers[name.rstrip("?")] = described
    return headers


def _unwrapped(docstring: str) -> str:
    """Paragraphs on one line each."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(docstring))
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).strip()
