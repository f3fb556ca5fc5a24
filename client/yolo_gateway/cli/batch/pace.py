"""When to send: at once while the service takes it, later when it asks for that; how long to wait for one away."""

import random
import threading
import time

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0


class GaveUp(Exception):
    """The service was away for longer than was to be waited for."""


class Pace:
    """Shared by all senders of a run. A service that says when to come back is never given up on."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._well_at = time.monotonic()
        self._pause = _FIRST_PAUSE
        self.reason = ""

    def well(self) -> None:
        """An answer came."""
        with self._lock:
            self._well_at, self._pause, self.reason = time.monotonic(), _FIRST_PAUSE, ""

    def busy(self, seconds: float, reason: str) -> None:
        """It asks to come back in `seconds`: nobody sends before."""
        with self._lock:
            now = time.monotonic()
            self._well_at = max(self._well_at, now + seconds)
            self._not_before = max(self._not_before, now + seconds)
            self.reason = reason

    def away(self, reason: str) -> None:
        """No answer. Raises GaveUp when the patience is over."""
        with self._lock:
            now = time.monotonic()
            self.reason = reason
            if now - self._well_at > self._patience:
                raise GaveUp(reason)
            if now >= self._not_before:  # one of the senders that meet the same outage makes the pause longer
                self._not_before = now + self._pause
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def wait(self) -> None:
        """Until it may be sent; spread a little, so that not all senders come back at one instant."""
        while (left := self._not_before - time.monotonic()) > 0:
            time.sleep(left + random.uniform(0, min(left, 1)) / 4)
