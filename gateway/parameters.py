"""What a client may choose per request: parsed, checked, and resolved against the model."""

import functools
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.errors import InvalidParameter
from gateway.modelspec import ModelSpec
from gateway.settings import Settings

LONGEST_WAIT_SECONDS = 60
_LONGEST_ID = 18  # digits; Python itself refuses to read a number of some thousands

_Fraction = Annotated[float, Meta(ge=0, le=1)]
_Count = Annotated[int, Meta(ge=1, le=1000)]


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of `POST /predict`, from the query, from form fields or from a JSON body."""

    model: Annotated[str, Meta(max_length=200, description="a model that Triton serves")] = ""
    version: Annotated[str, Meta(pattern="^[0-9]{0,18}$", description="a version of the model")] = ""
    conf: Annotated[_Fraction | None, Meta(description="least score of a detection, from 0 to 1")] = None
    iou: Annotated[_Fraction | None, Meta(description="overlap above which NMS suppresses, from 0 to 1")] = None
    max_det: Annotated[_Count | None, Meta(description="most detections, from 1 to 1000")] = None
    classes: Annotated[str, Meta(description="labels or class ids, separated by commas")] = ""
    agnostic_nms: Annotated[bool, Meta(description="true or false: boxes of different classes suppress too")] = False
    annotate: Annotated[bool, Meta(description="true or false: draw the detections into a picture")] = False
    priority: Annotated[Literal["normal", "high"], Meta(description="normal, or high: to the front")] = "normal"
    wait: Annotated[float, Meta(ge=0, description="seconds to wait for the result, at most 60")] = 0.0
    callback_url: Annotated[str, Meta(max_length=2000, description="https address that is told the end")] = ""


_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}


@functools.cache
def describe() -> dict[str, str]:
    """What is allowed, by parameter."""
    return {field.name: _description(field.type) for field in _fields()}


def parse(given: Mapping[str, str]) -> Choices:
    """Check the parameters among `given`; other names are no concern of this service.

    Raises InvalidParameter, which names the parameter and what is allowed.
    """
    values: dict[str, object] = {}
    for field in _fields():
        text = given.get(field.name, "").strip()
        if text:
            values[field.name] = text.lower() in _TRUE if text.lower() in _TRUE | _FALSE and _is_flag(field) else text
    for name, value in values.items():
        try:
            msgspec.convert({name: value}, Choices, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidParameter(f"{name}={given[name]} is not allowed; {name} is: {describe()[name]}") from error
    return msgspec.convert(values, Choices, strict=False)


def class_ids(choices: Choices, spec: ModelSpec) -> list[int] | None:
    """The ids of the wanted classes; None means all. Raises InvalidParameter for a class that the model lacks."""
    if not choices.classes:
        return None
    by_label = {label.lower(): index for index, label in enumerate(spec.labels)}
    ids = []
    for name in (part.strip() for part in choices.classes.split(",")):
        if name.lower() in by_label:
            ids.append(by_label[name.lower()])
        elif name.isdecimal() and len(name) <= _LONGEST_ID and int(name) < len(spec.labels):
            ids.append(int(name))
        else:
            known = ", ".join(spec.labels[:20]) + (", …" if len(spec.labels) > 20 else "")
            raise InvalidParameter(f"classes={name}: {spec.name} knows 0 to {len(spec.labels) - 1}: {known}")
    return ids


def with_defaults(choices: Choices, settings: Settings) -> tuple[str, float, float, int]:
    """Model, confidence, IoU and most detections, with the settings where nothing was chosen."""
    return (
        choices.model or settings.model,
        settings.confidence if choices.conf is None else choices.conf,
        settings.iou if choices.iou is None else choices.iou,
        settings.max_detections if choices.max_det is None else choices.max_det,
    )


@functools.cache
def _fields() -> tuple[msgspec.inspect.Field, ...]:
    info = msgspec.inspect.type_info(Choices)
    assert isinstance(info, msgspec.inspect.StructType)
    return info.fields


def _is_flag(field: msgspec.inspect.Field) -> bool:
    return isinstance(field.default, bool)


def _description(kind: msgspec.inspect.Type) -> str:
    assert isinstance(kind, msgspec.inspect.Metadata)
    return str((kind.extra_json_schema or {})["description"])
