"""The request that sends an image, from what a call was given."""

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from yolo_gateway.errors import InvalidInput
from yolo_gateway.messages import Request

_IMAGE = {"Content-Type": "application/octet-stream"}  # the service looks at the bytes


class Options(TypedDict, total=False):
    """The choices of a request: `conf` and `iou` from 0 to 1, `classes` labels or ids, `priority` "high"."""

    model: str
    version: str | int
    conf: float
    iou: float
    max_det: int
    classes: Iterable[str | int] | str
    agnostic_nms: bool
    annotate: bool
    priority: str
    callback_url: str


_NAMES = Options.__annotations__.keys()


def params_of(options: Options) -> dict[str, str]:
    """As the query takes them; None is left out. Raises InvalidInput for an option that the service does not know."""
    for name in options:
        if name not in _NAMES:
            raise InvalidInput(f"{name} is no option; there are: {', '.join(_NAMES)}")
    given = {name: value for name, value in options.items() if value is not None}
    return {name: _text(name, value) for name, value in given.items()}


def upload(body: bytes, options: Options, key: str | None, traceparent: str | None) -> Request:
    """`key` is the Idempotency-Key, by default a new one, so that a try whose answer was lost can be made again."""
    headers = {**_IMAGE, "Idempotency-Key": key or uuid.uuid4().hex, **trace(traceparent)}
    return Request("POST", "/predict", params_of(options), headers, body)


def trace(traceparent: str | None) -> Mapping[str, str]:
    return {"traceparent": traceparent} if traceparent else {}


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if name == "classes" and not isinstance(value, str):
        many: list[Any] = list(value) if isinstance(value, Iterable) else [value]
        return json.dumps([each if isinstance(each, str) else int(each) for each in many])
    return str(value).lower()
    if name == "classes" and not isinstance(value, str):
        if not isinstance(value, Iterable):
            value = [value]
        return json.dumps([each if isinstance(each, str) else int(each) for each in value])
    return str(value)
