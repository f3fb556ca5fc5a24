"""The table of endpoints, and the small ones."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway import accept, batches, tasks
from gateway.responses import JSON, services_of

Handler = Callable[[Request], Awaitable[Response]]


async def models(request: Request) -> Response:
    """The models that Triton serves."""
    services = services_of(request)
    return JSON(await services.models.listing(services.settings.model))


async def model(request: Request) -> Response:
    """One model: versions, state, labels, input, batch limit."""
    return JSON(await services_of(request).models.view(request.path_params["name"]))


async def livez(request: Request) -> Response:
    """The process runs."""
    return JSON({"status": "alive"})


async def readyz(request: Request) -> Response:
    """Redis answers, the model is ready in Triton, a worker is alive; otherwise 503 with what is missing."""
    missing = await services_of(request).readiness.missing()
    if missing:
        return JSON({"status": "not ready", "missing": missing}, 503)
    return JSON({"status": "ready"})


operations = [
    ("POST", "/predict", accept.predict),
    ("GET", "/result/{task_id}", tasks.result),
    ("DELETE", "/result/{task_id}", tasks.delete),
    ("GET", "/result/{task_id}/events", tasks.events),
    ("GET", "/result/{task_id}/image", tasks.picture),
    ("GET", "/batches/{batch_id}", batches.batch),
    ("GET", "/models", models),
    ("GET", "/models/{name}", model),
    ("GET", "/livez", livez),
    ("GET", "/readyz", readyz),
]


def routes() -> list[Route]:
    """One route for each path, so that a wrong method is told all the right ones."""
    by_path: dict[str, dict[str, Handler]] = {}
    for method, path, handler in operations:
        by_path.setdefault(path, {})[method] = handler
    return [Route(path, _dispatch(handlers), methods=list(handlers)) for path, handlers in by_path.items()]


def _dispatch(handlers: dict[str, Handler]) -> Handler:
    async def endpoint(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return endpoint
