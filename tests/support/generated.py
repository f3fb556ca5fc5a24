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
def filter_case(context: schemathesis.HookContext, case: "schemathesis.Case[Any]") -> bool:
    """Leave out wrong requests that a query or a form cannot say.

    What is empty counts as not given. An object would be sent as parameters of its members, such as the right one.
    """
    if not case.meta or case.meta.generation.mode.is_positive:
        return True
    parts = [case.query] if case.media_type == "application/json" else [case.query, case.body]
    return not any(_empty(*item) for part in parts if isinstance(part, dict) for item in part.items())


def _empty(name: str, value: object) -> bool:
    return isinstance(value, dict) or value in ([], [""]) or (value == "" and name not in TEXTS)


@schemathesis.hook
def map_case(context: schemathesis.HookContext, case: "schemathesis.Case[Any]") -> "schemathesis.Case[Any]":
    """Let most requests that are right by the document be right by what is served."""
    if case.meta and case.meta.generation.mode.is_positive:
        for values in (case.query, case.body):
            if isinstance(values, dict):
                make_known(values)
    return case


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
