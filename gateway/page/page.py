"""The page at `/`: one static file, with the facts of this service in it. The rest is static/page/*.js."""

from functools import cache
from importlib.resources import files

import msgspec

import gateway
from gateway.page.colours import palette
from gateway.settings import Settings

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
HEADERS = {"Content-Security-Policy": POLICY, "Permissions-Policy": "camera=(self), microphone=(), geolocation=()"}


class Facts(msgspec.Struct, rename="camel"):
    """What the page has to know before its first request: nothing that a key protects, such as names of models."""

    version: str
    needs_key: bool
    confidence: float
    iou: float
    max_detections: int
    max_image_bytes: int
    result_seconds: int
    colours: list[tuple[str, str]]


def facts(settings: Settings, needs_key: bool) -> Facts:
    return Facts(
        version=gateway.__version__,
        needs_key=needs_key,
        confidence=settings.confidence,
        iou=settings.iou,
        max_detections=settings.max_detections,
        max_image_bytes=settings.max_image_bytes,
        result_seconds=settings.result_ttl,
        colours=palette(),
    )


def page(settings: Settings, needs_key: bool) -> str:
    """The whole page. The facts are JSON in a block of data, which no browser runs."""
    data = msgspec.json.encode(facts(settings, needs_key)).decode().replace("<", "\\u003c")
    return _template().replace("{{ version }}", gateway.__version__).replace("{{ facts }}", data)


@cache
def _template() -> str:
    return (files("gateway.page") / "templates" / "index.html").read_text()
