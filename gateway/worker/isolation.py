"""Which of a worker's tasks run at the same time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """Tasks share it, but one that was lost before has it to itself: it may be what killed the last worker."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._inside = 0
        self._closed = False

    def wait_until_shared(self) -> None:
        """Wait until no task runs alone, or waits to."""
        with self._change:
            self._change.wait_for(lambda: not self._closed)

    @property
    def is_shared(self) -> bool:
        """Whether no task runs alone, or waits to."""
        return not self._closed

    @contextmanager
    def entered(self, *, alone: bool) -> Iterator[bool]:
        """Gives whether the task may run. One that is to be `alone` waits until all others have left."""
        with self._change:
            may_run = not self._closed
            if may_run:
                self._closed = alone
                self._inside += 1
                if alone:
                    self._change.wait_for(lambda: self._inside == 1)
        try:
            yield may_run
        finally:
            with self._change:
                if may_run:
                    self._inside -= 1
                    self._closed = self._closed and not alone
                self._change.notify_all()
