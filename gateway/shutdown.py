"""An orderly end: say so first, then take nothing new, then let what runs end."""

import signal
import time
from collections.abc import Callable
from types import FrameType

import uvicorn


class Server(uvicorn.Server):
    """On the first signal calls `drain` and goes on answering for `drain_seconds`; a second one ends that time.

    uvicorn alone would close its door at once, and end by the signal instead of with exit status 0.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None], drain_seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_seconds = drain_seconds
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
                self._drain()
            if time.monotonic() - self._told_at >= self._drain_seconds:
                self.should_exit = True
        return await super().on_tick(counter)
