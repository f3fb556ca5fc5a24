"""An orderly end: say so first and go on as ever, then take nothing new, then let what runs end."""

import asyncio
import math
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

import uvicorn

_LAST_SECONDS = 1  # for connections that get a last answer


class Stop(NamedTuple):
    """What is done once a signal has come; all seconds are from the signal.

    `drain` at once: balancers are to go elsewhere. `release` who waits once the port is closed. `cut` what runs still.
    """

    drain: Callable[[], None]
    drain_seconds: float
    release: Callable[[], None]
    cut: Callable[[], None]
    stop_seconds: float


class Server(uvicorn.Server):
    """Goes on answering while it drains; a second signal ends that time.

    uvicorn alone would close its door at once, cut what runs with a traceback, and end by the signal instead of with
    exit status 0.
    """

    def __init__(self, config: uvicorn.Config, stop: Stop) -> None:
        super().__init__(config)
        self._stop = stop
        self._told_at: float | None = None
        self._draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._told_at is None:
            self._told_at = time.monotonic()
        else:
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if self._told_at is not None:
            if not self._draining:
                self._draining = True
                self._stop.drain()
            if time.monotonic() - self._told_at >= self._stop.drain_seconds:
                self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stop.release()
        passed = time.monotonic() - (self._told_at or time.monotonic())
        left = max(0.0, self._stop.stop_seconds - _LAST_SECONDS - passed)
        cutting = asyncio.get_running_loop().call_later(left, self._stop.cut)
        self.config.timeout_graceful_shutdown = math.ceil(left + _LAST_SECONDS)
        await super().shutdown(sockets)
        cutting.cancel()
