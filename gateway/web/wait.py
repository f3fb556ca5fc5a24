"""How long a client wants to wait, and waiting that ends with its connection."""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from gateway.errors import TaskNotFound, TaskRunning
from gateway.web.parameters import LONGEST_WAIT_SECONDS
from gateway.web.services import services_of

_T = TypeVar("_T")


def wait_seconds(request: Request, wanted: float | None) -> tuple[float, bool]:
    """How long to wait, and whether a Prefer header (RFC 7240) said so: a hint, of which at most 60 s are granted."""
    if wanted is not None:
        return wanted, False
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        seconds = value.strip('" ')
        if name.strip().lower() == "wait" and seconds.isdecimal():
            return min(float(seconds), LONGEST_WAIT_SECONDS), True
    return 0.0, False


async def while_connected(request: Request, waiting: Awaitable[_T]) -> _T:
    """What is waited for, by a request that has come whole. Raises ClientDisconnect as soon as the client leaves."""
    task, has_left = asyncio.current_task(), asyncio.Event()
    assert task is not None
    leaving = asyncio.ensure_future(_cancel_when_left(request, task, has_left))
    try:
        return await waiting
    except asyncio.CancelledError:
        if not has_left.is_set():
            raise
        while task.uncancel():
            pass
        raise ClientDisconnect from None
    finally:
        leaving.cancel()


async def _cancel_when_left(request: Request, task: "asyncio.Task[object]", has_left: asyncio.Event) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    has_left.set()
    while True:  # redis-py loses a cancellation that comes while it connects
        task.cancel()
        await asyncio.sleep(0.2)


async def forget(request: Request, task_id: str) -> None:
    """Nobody waits for the task any more. One that a worker has begun ends by itself."""
    with contextlib.suppress(TaskRunning, TaskNotFound):
        await services_of(request).submission.cancel(task_id)
