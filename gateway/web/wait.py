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
_UNWATCHED_SECONDS = 0.1


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
    """What is waited for, by a request that has come whole. Raises ClientDisconnect soon after the client has left."""
    task = asyncio.current_task()
    assert task is not None
    leaving = _Leaving(request, task)
    try:
        return await waiting
    except asyncio.CancelledError:
        if not leaving.has_left:
            raise
        while task.uncancel():
            pass
        raise ClientDisconnect from None
    finally:
        leaving.end()


class _Leaving:
    """Cancels the task of a request whose client leaves. Most are answered before it is worth a task to look."""

    has_left = False

    def __init__(self, request: Request, task: "asyncio.Task[object]") -> None:
        self._request, self._task = request, task
        self._clock = asyncio.get_running_loop().call_later(_UNWATCHED_SECONDS, self._begin)
        self._looking: asyncio.Task[None] | None = None

    def _begin(self) -> None:
        self._looking = asyncio.create_task(self._cancel_when_left())

    async def _cancel_when_left(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        while True:  # redis-py loses a cancellation that comes while it connects
            self._task.cancel()
            await asyncio.sleep(0.2)

    def end(self) -> None:
        self._clock.cancel()
        if self._looking is not None:
            self._looking.cancel()


async def forget(request: Request, task_id: str) -> None:
    """Nobody waits for the task any more. One that a worker has begun ends by itself."""
    with contextlib.suppress(TaskRunning, TaskNotFound):
        await services_of(request).submission.cancel(task_id)
