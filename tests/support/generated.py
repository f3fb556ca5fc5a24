"""What schemathesis cannot know: how a picture looks. Loaded by it as SCHEMATHESIS_HOOKS."""

import base64
from typing import Any

import schemathesis
from hypothesis import strategies as st

from tests.support.pictures import encoded

PICTURES = [
    encoded(width, height, suffix)
    for suffix in (".jpg", ".png", ".webp", ".bmp", ".gif")
    for width, height in [(64, 48), (1, 1)]
]
pictures = st.sampled_from(PICTURES)

schemathesis.openapi.format("binary", pictures)
schemathesis.openapi.format("byte", pictures.map(lambda data: base64.b64encode(data).decode()))
for media_type in ("image/jpeg", "image/png", "image/webp", "image/bmp", "image/gif", "application/octet-stream"):
    schemathesis.openapi.media_type(media_type, pictures)

# Names that the running service knows; half of the generated ones give way to them, so that requests come through.
KNOWN = {"model": "finder", "version": "1", "classes": "bicycle,0"}
TEXTS = {"model", "version", "classes", "callback_url"}
SWITCHED_OFF = ("url", "callback_url")


@schemathesis.hook
def map_case(context: schemathesis.HookContext, case: "schemathesis.Case[Any]") -> "schemathesis.Case[Any]":
    """Let most requests that are right by the document be right by what is served, and the wrong ones wrong."""
    if case.meta:
        positive = case.meta.generation.mode.is_positive
        for values in (case.query, case.body):
            if isinstance(values, dict) and positive:
                make_known(values)
            elif isinstance(values, dict) and not (values is case.body and case.media_type == "application/json"):
                give_something(values)
    return case


def give_something(values: dict[str, Any]) -> None:
    """What is empty in a query or a form counts as not given; the document cannot say that.

    An object would be sent as parameters of its members' names, such as the right one.
    """
    for name, value in values.items():
        if isinstance(value, dict) or value in ([], [""]) or (value == "" and name not in TEXTS):
            values[name] = "?"


def make_known(values: dict[str, Any]) -> None:
    for name, known in KNOWN.items():
        if len(str(values.get(name, "-"))) % 2 == 0:
            values[name] = known
    if values.get("url") == "":
        values["url"] = "https://example.com/"  # the empty one counts as not given, which the document cannot say
    if "image" in values or "url" not in values:
        for name in SWITCHED_OFF:
            if len(str(values.get(name, ""))) % 4:
                del values[name]
