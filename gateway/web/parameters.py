"""What a client may choose per request: parsed and checked."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from gateway.errors import InvalidParameter
from gateway.settings import Settings
from gateway.values import NotAllowed, checked, remembered
from gateway.web.classes import shown
from gateway.web.formats import Format

LONGEST_WAIT_SECONDS = 60

_Fraction = Annotated[float, Meta(ge=0, le=1)]
_Count = Annotated[int, Meta(ge=1, le=1000)]
_Seconds = Annotated[float, Meta(ge=0, le=LONGEST_WAIT_SECONDS)]
_Wait = Annotated[_Seconds | None, Meta(description="seconds to wait for the result, from 0 to 60")]


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of `POST /predict`, from the query, from form fields or from a JSON body."""

    model: Annotated[str, Meta(max_length=200, description="a model that Triton serves")] = ""
    version: Annotated[
        str,
        Meta(
            pattern="^[0-9]{0,18}$",
            description="a version of the model",
            extra={"give": "a version of the model: digits, in JSON a string of digits"},
        ),
    ] = ""
    conf: Annotated[_Fraction | None, Meta(description="minimum detection score, from 0 to 1")] = None
    iou: Annotated[
        _Fraction | None,
        Meta(description="NMS removes the weaker of two boxes that overlap more than this, from 0 to 1"),
    ] = None
    max_det: Annotated[_Count | None, Meta(description="maximum detections, from 1 to 1000")] = None
    classes: Annotated[
        str | list[str | int],
        Meta(
            description="labels or class ids, separated by commas or as a JSON list; quote a label that has a comma",
            extra={"give": "labels or class ids, separated by commas or as a JSON list"},
        ),
    ] = ""
    agnostic_nms: Annotated[
        bool, Meta(description="true or false: boxes of different classes suppress each other too")
    ] = False
    annotate: Annotated[bool, Meta(description="true or false: draw the detections into a picture")] = False
    priority: Annotated[
        Literal["normal", "high"],
        Meta(description="normal, or high: begins before normal ones; needs a key with that right"),
    ] = "normal"
    wait: _Wait = None
    callback_url: Annotated[str, Meta(max_length=2000, description="https URL notified when the task finishes")] = ""


class ResultChoices(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of `GET /result/<task_id>`."""

    wait: _Wait = None
    format: Annotated[Format, Meta(description="the format of a result; errors and unfinished tasks stay JSON")] = (
        "json"
    )


class CameraChoices(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of camera software."""

    min_confidence: Annotated[_Fraction, Meta(description="minimum confidence of a prediction, from 0 to 1")] = 0.4


PARAMETERS = frozenset({*Choices.__struct_fields__, *CameraChoices.__struct_fields__})
_Parameters = TypeVar("_Parameters", Choices, ResultChoices, CameraChoices)


class Given(NamedTuple):
    """Values by name from one part of a request: text, or the `typed` values of a JSON object."""

    values: Mapping[str, object]
    typed: bool = False


NOTHING = Given({})


def joined(pairs: Iterable[tuple[str, str]]) -> Given:
    """The pairs of a query or a form; the values of one that is given several times with commas between.

    An empty value counts as not given.
    """
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        if value:
            values.setdefault(name, []).append(value)
    return Given({name: ",".join(several) for name, several in values.items()})


def parse(kind: type[_Parameters], *parts: Given) -> _Parameters:
    """The parameters of this kind; those of a later part count more. Other names are ignored.

    Raises InvalidParameter, which names the parameter and what is allowed.
    """
    found: dict[str, object] = {}
    for part in parts:
        given = {name: _whole(part.values[name]) for name in kind.__struct_fields__ if name in part.values}
        given = {name: value for name, value in given.items() if value is not None}
        try:
            values = checked(given, kind, strict=part.typed)
        except NotAllowed as error:
            shown = _shown(part.values[error.name], part.typed)
            raise InvalidParameter(f"{error.name}={shown}: give {error.expected}") from error
        found |= {name: getattr(values, name) for name in given}
    return msgspec.convert(found, kind)


@remembered(longest=300, most=256)
def of_query(query: str) -> Given:
    """What a query gives."""
    return joined(parse_qsl(query, keep_blank_values=True))


def with_defaults(choices: Choices, settings: Settings) -> tuple[str, float, float, int]:
    """Model, confidence, IoU and most detections, with the settings where nothing was chosen."""
    return (
        choices.model or settings.model,
        settings.confidence if choices.conf is None else choices.conf,
        settings.iou if choices.iou is None else choices.iou,
        settings.max_detections if choices.max_det is None else choices.max_det,
    )


def _whole(value: object) -> object:
    """JSON has one kind of number: 3.0 is 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(value: object, typed: bool = False) -> str:
    """No longer than is needed to know it again."""
    if isinstance(value, list | dict):
        return "[…]" if isinstance(value, list) else "{…}"  # of any depth
    return shown(json.dumps(value, ensure_ascii=False) if typed else value)
