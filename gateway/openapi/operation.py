"""What an operation of the API is: the one row from which its route and its part of /openapi.json are made."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import GatewayError

Handler = Callable[[Request], Awaitable[Response]]


class Parameter(NamedTuple):
    """One value that a request carries; `kind` is a type that msgspec can describe, or a JSON schema.

    Of the fields of a body that are required as "one of", one is enough.
    """

    name: str
    kind: Any
    where: Literal["query", "header", "path", "body"] = "query"
    default: Any = None
    required: bool | Literal["one of"] = False


class Answer(NamedTuple):
    """One way to answer well: the `content` by media type, each a type as for `Parameter`, or a tuple of alternatives.

    `headers` are names of `document.ANSWER_HEADERS`; a name that ends with ? is not in every such answer.
    `links` map the name of a handler to the parameter that it can take from this answer's body. `examples` are of the
    first media type.
    """

    status: int
    description: str
    content: Mapping[str, Any] = {}
    headers: tuple[str, ...] = ()
    links: Mapping[str, str] = {}
    examples: Mapping[str, Any] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One method of one path. Its summary is the first line of the handler's docstring.

    A `public` one is open to everybody; all others are behind `gateway.web.checks`.
    `body` maps each media type that is taken to its fields, None for the plain bytes of an image. `errors` are those of
    this operation; what any request can meet is added by `gateway.openapi.document`.
    """

    method: str
    path: str
    handler: Handler
    tag: str
    public: bool = False
    answers: tuple[Answer, ...]
    errors: tuple[type[GatewayError], ...] = ()
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, tuple[Parameter, ...] | None] = field(default_factory=dict)


def as_json(kind: Any) -> dict[str, Any]:
    """The content of an answer that is JSON only."""
    return {"application/json": kind}


def fields_of(kind: type[msgspec.Struct], where: Literal["query", "body"] = "query") -> tuple[Parameter, ...]:
    """A parameter for each field of a struct."""
    return tuple(Parameter(row.name, row.type, where, row.default) for row in msgspec.structs.fields(kind))


TASK_ID = Parameter("task_id", Annotated[str, Meta(description="as `POST /predict` gave it")], "path")
BATCH_ID = Parameter("batch_id", Annotated[str, Meta(description="as `POST /predict` gave it")], "path")
MODEL = Parameter("name", Annotated[str, Meta(description="the name of a model that Triton serves")], "path")
PREFER = Parameter(
    "Prefer",
    Annotated[
        str,
        Meta(
            description="`wait=N`: seconds to wait for the result (RFC 7240), of which at most 60 are granted",
            examples=["wait=10"],
        ),
    ],
    "header",
)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    Annotated[str, Meta(max_length=255, description="the same key and request give the same task, not a second one")],
    "header",
)

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/gif", "application/octet-stream")
TEXT = {"type": "string"}
BINARY = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
