"""Who waits for which tasks, inside of one process."""

import asyncio
from collections import defaultdict
from typing import Self

# Task id → those to whom each of its changes is handed.
Waiting = defaultdict[str, set["asyncio.Queue[bytes | None]"]]


class Watch:
    """Hears of the changes of some tasks for as long as it is entered."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._changes: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._task_ids: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for task_id in self._task_ids:
            self._waiting[task_id].discard(self._changes)
            if not self._waiting[task_id]:
                del self._waiting[task_id]

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._task_ids

    def on(self, task_id: str) -> Self:
        """Listen for this task too."""
        self._task_ids.add(task_id)
        self._waiting[task_id].add(self._changes)
        return self

    async def change(self) -> bytes | None:
        """Wait for the next change: of an end the TaskView as JSON, else empty; None when only a look can tell."""
        return await self._changes.get()

    async def end(self) -> bytes | None:
        """Wait for the next end: the TaskView as JSON; None when only a look can tell."""
        while (change := await self.change()) == b"":
            pass
        return change
