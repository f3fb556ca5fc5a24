"""Places for what takes long at other hosts: some in all, fewer for each client, the rest waits its turn."""

import asyncio
from collections import Counter


class Turns:
    """Used by one event loop. A place that was given up by who waited is kept until `free` says that it is over."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most, self._most_each = most, most_each
        self._taken = Counter[str]()
        self._changed: asyncio.Event | None = None

    async def take(self, client: str) -> None:
        """Wait for a place; the caller bounds the time."""
        while self._taken.total() >= self._most or self._taken[client] >= self._most_each:
            self._changed = self._changed or asyncio.Event()
            await self._changed.wait()
        self._taken[client] += 1

    def free(self, client: str) -> None:
        self._taken[client] -= 1
        if not self._taken[client]:
            del self._taken[client]
        if self._changed is not None:
            self._changed.set()
            self._changed = None
