"""The request that sends an image, from what a call was given."""

import json
import operator
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from yolo_gateway.errors import InvalidInput
from yolo_gateway.messages import Request

_NO_CLASSES = "classes is empty; give labels or ids, or leave it out for all of them"
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
    headers = {**_IMAGE, "Idempotency-Key": _header("idempotency_key", key or uuid.uuid4().hex), **trace(traceparent)}
    return Request("POST", "/predict", params_of(options), headers, body)


def trace(traceparent: str | None) -> Mapping[str, str]:
    return {"traceparent": _header("traceparent", traceparent)} if traceparent else {}


def _header(name: str, value: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is a {type(value).__name__}; give a str")
    if not (value.isascii() and value.isprintable()):
        raise InvalidInput(f"{name} {value!r} has characters that no header can carry; give ASCII letters and digits")
    return value


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if name == "classes":
        if not isinstance(value, str):
            return json.dumps(_classes(value if isinstance(value, Iterable) else [value]))
        if not has_classes(value):
            raise InvalidInput(_NO_CLASSES)
    return str(value)


def has_classes(text: str) -> bool:
    """Whether there is one between the commas."""
    return bool(text.strip(", "))


def _classes(given: Iterable[Any]) -> list[str | int]:
    """The service takes an empty list as all classes, which is not what a list that came out empty means."""
    if classes := [_class(each) for each in given]:
        return classes
    raise InvalidInput(_NO_CLASSES)


def _class(given: Any) -> str | int:
    """A label or an id, numpy's integers too."""
    if isinstance(given, str):
        return given
    try:
        if not isinstance(given, bool):
            return operator.index(given)
    except TypeError:
        pass
    raise InvalidInput(f"classes has {given!r}; give labels or whole numbers")
