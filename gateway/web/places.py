"""Requests that stay for long: how many at a time, in all and of each client."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import RateLimited
from gateway.web.admission import ProcessFull

_RETRY_SECONDS = 5


class Places:
    """Of one web process, used by its event loop only."""

    def __init__(self, what: str, most: int, most_each: int) -> None:
        self._what, self._most, self._most_each = what, most, most_each
        self._taken = Counter[str]()

    def __len__(self) -> int:
        return sum(list(self._taken.values()))

    @contextmanager
    def taken(self, client: str) -> Iterator[None]:
        """Around the stay of a request. Raises RateLimited, Overloaded."""
        if self._taken.get(client, 0) >= self._most_each:
            raise RateLimited(
                f"{self._most_each} {self._what} of this client are open, the most that one may have; end some first",
                _RETRY_SECONDS,
            )
        if len(self) >= self._most:
            raise ProcessFull(
                f"{self._most} {self._what} are open, the most that this process takes; try again in "
                f"{_RETRY_SECONDS} s, or ask without waiting",
                _RETRY_SECONDS,
            )
        self._taken[client] += 1
        try:
            yield
        finally:
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]
