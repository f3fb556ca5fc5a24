"""How long a client wants to wait, and waiting that ends with its connection."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from gateway.web.parameters import LONGEST_WAIT_SECONDS

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


async def while_connected(request: Request, waiting: Coroutine[Any, Any, _T]) -> _T:
    """What is waited for, whose body has been read. Raises ClientDisconnect as soon as the client has left."""
    task, leaving = asyncio.ensure_future(waiting), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        leaving.cancel()
        while not task.done():  # redis-py loses a cancellation that comes while it connects
            task.cancel()
            await asyncio.wait([task], timeout=0.2)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
