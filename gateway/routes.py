"""The endpoints: parse → queue → respond."""

from typing import Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.detections import TaskView
from gateway.errors import InvalidParameter
from gateway.images import probe
from gateway.queue import TaskQueue
from gateway.readiness import Readiness
from gateway.responses import JSON
from gateway.results import Results
from gateway.settings import Settings
from gateway.uploads import read_image

LONGEST_WAIT_SECONDS = 60.0


class Services(Protocol):
    """What the lifespan puts into `app.state`."""

    settings: Settings
    queue: TaskQueue
    results: Results
    readiness: Readiness


async def predict(request: Request) -> Response:
    """Accept one image; 202 with the task's id and place."""
    services: Services = request.app.state
    settings = services.settings
    image = await read_image(request, settings.max_image_bytes)
    probe(image, max_pixels=settings.max_image_pixels, max_side=settings.max_image_side)
    task_id = await run_in_threadpool(services.queue.submit, image, settings.model)
    return JSON(TaskView(task_id, "PENDING"), 202, {"Location": f"/result/{task_id}"})


async def result(request: Request) -> Response:
    """The task as it stands; with `?wait=seconds` as it stands once it has ended."""
    services: Services = request.app.state
    task_id = request.path_params["task_id"]
    seconds = _wait_seconds(request)
    view = await (services.results.wait(task_id, seconds) if seconds else services.results.read(task_id))
    return JSON(view, headers={"Cache-Control": "no-store"})


async def livez(request: Request) -> Response:
    """The process runs."""
    return JSON({"status": "alive"})


async def readyz(request: Request) -> Response:
    """Redis answers, the model is ready in Triton, a worker is alive; otherwise 503 with what is missing."""
    services: Services = request.app.state
    missing = await services.readiness.missing()
    if missing:
        return JSON({"status": "not ready", "missing": missing}, 503)
    return JSON({"status": "ready"})


def _wait_seconds(request: Request) -> float:
    given = request.query_params.get("wait", "0")
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise InvalidParameter(f"wait={given}: give the seconds to wait, from 0 to {LONGEST_WAIT_SECONDS:g}")
    return min(seconds, LONGEST_WAIT_SECONDS)


routes = [
    Route("/predict", predict, methods=["POST"]),
    Route("/result/{task_id}", result, methods=["GET"]),
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
]
