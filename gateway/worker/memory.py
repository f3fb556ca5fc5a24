"""How much memory a worker's tasks decode images into at the same time."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Memory:
    """A budget that the threads share, first come, first served. What is larger than all of it is used alone."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._change = threading.Condition()
        self._queue = deque[object]()
        self._used_bytes = 0

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Waits for so many bytes, and has them until left."""
        size, ticket = min(size, self._most_bytes), object()
        with self._change:
            self._queue.append(ticket)
            self._change.wait_for(lambda: self._queue[0] is ticket and self._used_bytes + size <= self._most_bytes)
            self._queue.popleft()
            self._used_bytes += size
            self._change.notify_all()
        try:
            yield
        finally:
            with self._change:
                self._used_bytes -= size
                self._change.notify_all()
