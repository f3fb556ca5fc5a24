"""How many of a worker's tasks are under way at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

LARGE_PLACES = 2


class Places:
    """A `number` of tasks, and LARGE_PLACES more whose pictures are so large that decoding them takes seconds.

    Such a task leaves its place to another one: whoever sends many of them holds up nobody else's.
    """

    def __init__(self, number: int) -> None:
        self.threads = number + LARGE_PLACES
        self._usual, self._large = threading.Semaphore(number), threading.Semaphore(LARGE_PLACES)
        self._mine = _OfThread()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Waits for one of the usual places, and has a place until left."""
        self._usual.acquire()
        self._mine.place = self._usual
        try:
            yield
        finally:
            self._mine.place.release()
            self._mine.place = None

    @property
    def is_usual(self) -> bool:
        """Whether this thread may go on to another task."""
        return self._mine.place is self._usual

    def leave_to_others(self) -> None:
        """Take one of the places for large pictures instead, if there is one."""
        if self.is_usual and self._large.acquire(blocking=False):
            self._mine.place = self._large
            self._usual.release()


class _OfThread(threading.local):
    place: threading.Semaphore | None = None
