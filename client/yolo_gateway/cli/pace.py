"""When to send: at once while the service takes it, later when it asks for that; how long to wait for one away."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from yolo_gateway.cli.service import NoAnswer, Refused
from yolo_gateway.cli.text import Unusable

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_OWN_PAUSE = 1.0


_T = TypeVar("_T")
_BUSY = frozenset({"rate_limited", "too_many_open_tasks", "overloaded"})
# What another image, or another try, may change; all other errors are of the whole run.
_OF_THE_IMAGE = frozenset({"url_not_allowed", "fetch_failed", "switched_off"})
_OF_THE_BODY = frozenset({400, 413, 415})  # a proxy's too, which has no code
PASSING = frozenset({"task_not_found", "no_picture", "idempotency_conflict"})


class GaveUp(Unusable):
    """The service was away for longer than was to be waited for."""


class Pace:
    """Shared by all senders of a run. A service that says when to come back is never given up on.

    `patience` is in seconds without any answer; with 0 an outage is given up on at once.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._well_at = time.monotonic()
        self._pause = _FIRST_PAUSE
        self.reason = ""

    def ask(self, question: Callable[[], _T]) -> _T:
        """The answer, after as many tries as it takes. Raises GaveUp, Refused, Unusable."""
        while True:
            self.wait()
            try:
                answer = question()
            except NoAnswer as error:
                self.away(str(error))
            except Refused as error:
                self._refused(error)
            else:
                self.well()
                return answer

    def _refused(self, error: Refused) -> None:
        if error.status == 429 or error.code in _BUSY:
            own = error.code == "too_many_open_tasks"  # room comes as soon as one of this run's tasks finishes
            seconds = error.retry_after or 1
            self.busy(min(seconds, _OWN_PAUSE) if own else seconds, f"slowed down: {error.detail}")
        elif error.status >= 500 or error.status == 408:
            self.away(error.detail)
        elif error.status in _OF_THE_BODY or error.code in _OF_THE_IMAGE | PASSING:
            self.well()
            raise error
        elif error.code == "unauthorized":
            hint = "the service wants its key; give the right one by --key or in YOLO_GATEWAY_KEY"
            raise Unusable(f"{hint} (unauthorized)") from error
        else:
            raise Unusable(f"{error.detail} ({error.code})") from error

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
                raise GaveUp(f"the service is away: {reason}")
            if now >= self._not_before:  # one of the senders that meet the same outage makes the pause longer
                self._not_before = now + self._pause
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def wait(self) -> None:
        """Until it may be sent; spread a little, so that not all senders come back at one instant."""
        while (left := self._not_before - time.monotonic()) > 0:
            time.sleep(left + random.uniform(0, min(left, 1)) / 4)
