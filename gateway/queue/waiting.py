"""Who waits for which tasks, inside of one process."""

import asyncio
from collections import defaultdict, deque
from typing import Self

# Task id → those to whom each of its changes is handed.
Waiting = defaultdict[str, set["Watch"]]


class Watch:
    """Hears of the changes of some tasks for as long as it is entered."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._changes: deque[bytes | None] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._ends_only = False
        self._task_ids: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for task_id in self._task_ids:
            self._waiting[task_id].discard(self)
            if not self._waiting[task_id]:
                del self._waiting[task_id]

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._task_ids

    def on(self, task_id: str) -> Self:
        """Listen for this task too."""
        self._task_ids.add(task_id)
        self._waiting[task_id].add(self)
        return self

    def put(self, change: bytes | None) -> None:
        """One of its tasks has changed: as `change` gives it."""
        if change == b"" and self._ends_only:
            return
        self._changes.append(change)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def change(self) -> bytes | None:
        """Wait for the next change: of an end the TaskView as JSON, else empty; None when only a look can tell."""
        while not self._changes:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._changes.popleft()

    async def end(self, until: float) -> bytes | None:
        """Wait for the next end: the TaskView as JSON; None when only a look can tell, and at this time of the loop."""
        self._ends_only = True
        clock = asyncio.get_running_loop().call_at(until, self.put, None)
        try:
            while (change := await self.change()) == b"":
                pass
            return change
        finally:
            clock.cancel()
            self._ends_only = False
