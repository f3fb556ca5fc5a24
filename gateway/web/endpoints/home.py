"""`GET /`: the page for browsers, and for everything else what answers here."""

import functools

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

import gateway
from gateway.page import page
from gateway.web.responses import JSON
from gateway.web.services import services_of

_OFFERED = ["application/json", "text/html"]  # who takes both alike gets the first


class Home(msgspec.Struct):
    """What answers here, and its doors."""

    service: str
    version: str
    docs: str = "/docs"
    openapi: str = "/openapi.json"
    predict: str = "/predict"
    models: str = "/models"
    vision: str = "/v1/vision/detection"


async def home(request: Request) -> Response:
    """The page to try the models on, for a browser; for others, such as camera software, what answers here."""
    services = services_of(request)
    headers = {"Vary": "Accept"}
    if services.settings.page and _wants_html(request.headers.get("accept")):
        shown = _page(services.settings, bool(services.keys))
        return HTMLResponse(shown, headers=headers | page.HEADERS)
    return JSON(Home("YOLOv5 gateway", gateway.__version__), headers=headers)


_page = functools.lru_cache(maxsize=4)(page.page)


def _wants_html(accept: str | None) -> bool:
    return parse_accept_header(accept, MIMEAccept).best_match(_OFFERED) == "text/html"
