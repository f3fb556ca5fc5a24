"""What each request is checked for before its handler sees it: host, origin, key, rate, owner of the task."""

from functools import lru_cache
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import (
    CrossSite,
    GatewayError,
    MalformedRequest,
    PriorityNotAllowed,
    RateLimited,
    ServiceUnavailable,
    ShuttingDown,
    TaskNotFound,
    Unauthorized,
    UnknownHost,
)
from gateway.openapi.operation import Handler
from gateway.security.rate_limit import client_of as client_of_address
from gateway.security.task_ids import is_owner
from gateway.server.headers import answer_headers
from gateway.web.services import Services, services_of

_LONGEST_HOST = 300  # names have 253 characters at most
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def guarded(handler: Handler) -> Handler:
    """The handler, behind all checks."""

    async def endpoint(request: Request) -> Response:
        services = services_of(request)
        _check_host(request, services)
        _check_origin(request, services)
        await _check_client(request, services)
        _check_owner(request)
        return await handler(request)

    return endpoint


def refusals(method: str) -> tuple[type[GatewayError], ...]:
    """The errors that come from here, for operations of this method."""
    own = () if method in _SAFE else (CrossSite, ShuttingDown) if method == "POST" else (CrossSite,)
    return (Unauthorized, UnknownHost, RateLimited, ServiceUnavailable, *own)


def owner_of(request: Request) -> str:
    """The name of the key that was given; empty where no keys are asked for."""
    owner: str = request.scope["state"].get("owner", "")
    return owner


def has_key(request: Request) -> bool:
    """Whether a key of this service came with a request that needs none."""
    return services_of(request).keys.find(_presented(request)) is not None


def client_of(request: Request) -> str:
    """Whose the request is, for what is shared between clients: a key's, or an address'."""
    client: str = request.scope["state"].get("client", "")
    return client


def check_priority(request: Request, priority: str) -> None:
    """Raises PriorityNotAllowed. Where no keys are asked for nobody has rights that others lack."""
    if priority == "high" and not getattr(request.state, "may_go_first", True):
        raise PriorityNotAllowed(
            "priority=high: your key has no right to it; leave it out, or have the operator add :high to the key's line"
        )


def _check_host(request: Request, services: Services) -> None:
    """A page of another site could otherwise reach this service through a name that it lets point here."""
    given = [value for name, value in request.scope["headers"] if name == b"host"]
    if len(given) > 1:
        raise MalformedRequest("the request has several Host headers; send one")
    allowed = services.hosts
    if "*" in allowed:
        return
    name = _name_of(given[0].decode("latin-1")) if given and len(given[0]) <= _LONGEST_HOST else ""
    if name not in allowed and not any(each.startswith("*.") and name.endswith(each[1:]) for each in allowed):
        raise UnknownHost("this service has another host name; its operator lists those it has in TRUSTED_HOSTS")


@lru_cache(maxsize=256)
def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _check_origin(request: Request, services: Services) -> None:
    """Without keys any page in a browser on this machine could send requests; browsers say where they come from."""
    origin = request.headers.get("origin")
    if request.method in _SAFE or services.keys or origin in services.origins or "*" in services.origins:
        return
    site = request.headers.get("sec-fetch-site")
    if site is None:
        same = origin is None or origin.partition("://")[2] == request.headers.get("host", "")
    else:
        same = site in ("same-origin", "none")
    if not same:
        raise CrossSite("a page of another site sent this; the operator lists those that may in CORS_ORIGINS")


async def _check_client(request: Request, services: Services) -> None:
    rate = services.settings.rate_limit
    client = f"address:{client_of_address(request.client.host)}" if request.client else "address:unknown"
    if services.keys:
        key = services.keys.find(_presented(request))
        if key is None:
            raise Unauthorized("give a key of this service as `Authorization: Bearer KEY` or as `X-API-Key: KEY`")
        request.state.owner, request.state.may_go_first = key.name, key.high
        client, rate = f"key:{key.name}", key.rate or rate
    request.scope["state"]["client"] = client
    if rate:
        standing = await services.limiter.ask(client, rate)
        answer_headers(request.scope).update(standing.headers)
        if standing.refusal:
            raise standing.refusal


def _presented(request: Request) -> str:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


def _check_owner(request: Request) -> None:
    """Where the id of a task or a batch is in the path: another owner's is answered as if it did not exist."""
    if not services_of(request).keys:
        return
    for name, what in (("task_id", "task"), ("batch_id", "batch")):
        identity = request.path_params.get(name)
        if identity is not None and not is_owner(owner_of(request), identity):
            raise TaskNotFound.of(what, identity)
