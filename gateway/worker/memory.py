"""How much memory a worker's tasks decode images into at the same time."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SMALL_SHARE = 10  # one in ten bytes is for images of which two fit into that: they do not wait for large ones


class Memory:
    """A budget that the threads share, in two lanes; what is larger than its lane has all of that.

    `note` is told of each change, in bytes.
    """

    def __init__(self, most_bytes: int, note: Callable[[int], None] = lambda _: None) -> None:
        small_bytes = most_bytes // _SMALL_SHARE
        self._small_bytes = small_bytes // 2
        self._small, self._large = _Lane(small_bytes, note), _Lane(most_bytes - small_bytes, note)

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Waits for so many bytes, and has them until left."""
        with (self._small if size <= self._small_bytes else self._large).taken(size):
            yield


class _Lane:
    """First come, first served."""

    def __init__(self, most_bytes: int, note: Callable[[int], None]) -> None:
        self._most_bytes, self._note = most_bytes, note
        self._change = threading.Condition()
        self._queue = deque[object]()
        self._used_bytes = 0

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        size, ticket = min(size, self._most_bytes), object()
        with self._change:
            self._queue.append(ticket)
            self._change.wait_for(lambda: self._queue[0] is ticket and self._used_bytes + size <= self._most_bytes)
            self._queue.popleft()
            self._used_bytes += size
            self._note(size)
            self._change.notify_all()
        try:
            yield
        finally:
            with self._change:
                self._used_bytes -= size
                self._note(-size)
                self._change.notify_all()
