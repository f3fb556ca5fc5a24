"""Refusing early and cheaply: what is being received is bounded, and a full queue is remembered for a moment."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.errors import Overloaded

_REMEMBERED_SECONDS = 0.5


class Admission:
    """Whether uploads are taken on at the moment; one per web process, used by its event loop only."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held_bytes = 0
        self._refusal: tuple[str, int] = "", 0
        self._remembered_until = float("-inf")

    @contextmanager
    def taking(self) -> Iterator[Callable[[int], None]]:
        """Around reading a body and accepting what is in it; what it yields gets the number of bytes of each chunk.

        Raises Overloaded, before anything is read while the queue was full a moment ago.
        """
        if time.monotonic() < self._remembered_until:
            raise Overloaded(*self._refusal)
        held = 0

        def received(number: int) -> None:
            nonlocal held
            held += number
            self._held_bytes += number
            if self._held_bytes > self._most_bytes:
                raise Overloaded("too much is being uploaded at the moment; try again in a second", 1)

        try:
            yield received
        except Overloaded as error:
            self._refusal = error.detail, error.retry_after or 1
            self._remembered_until = time.monotonic() + _REMEMBERED_SECONDS
            raise
        finally:
            self._held_bytes -= held
