"""Refusing early and cheaply: what is being received is bounded, and a full queue is remembered for a moment."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from gateway.errors import Overloaded, RateLimited

_REMEMBERED_SECONDS = 0.5
_RETRY_SECONDS = 1
_T = TypeVar("_T")


class ProcessFull(Overloaded):
    """This process has no room for the request; that says nothing about the queue."""


class Receiving:
    """One upload: what it holds, and whether it can be ended."""

    def __init__(self, admission: "Admission", client: str) -> None:
        self._admission, self.client = admission, client
        self.held_bytes = 0
        self.evicted = False
        self._begun = time.monotonic()
        self._clock: asyncio.Timeout | None = None

    @property
    def weight(self) -> float:
        """Bytes times seconds: what is large or slow weighs most."""
        return self.held_bytes * (time.monotonic() - self._begun + 0.1)

    @property
    def can_end(self) -> bool:
        return self._clock is not None and not self.evicted

    def received(self, number: int) -> None:
        """Count a chunk. Raises Overloaded, RateLimited."""
        if not self.evicted:
            self._admission.count(self, number)
            self._admission.make_room(self)

    async def read(self, reading: Coroutine[Any, Any, _T]) -> _T:
        """What is read from the client, unless its memory goes to others meanwhile. Raises Overloaded then."""
        try:
            async with asyncio.timeout(None) as self._clock:
                return await reading
        except TimeoutError:
            if self.evicted:
                raise _too_much() from None
            raise
        finally:
            self._clock = None

    def end(self) -> None:
        """Its memory is free in the next turn of the loop, and counts as free at once."""
        assert self._clock is not None
        self._admission.count(self, -self.held_bytes)
        self.evicted = True
        self._clock.reschedule(asyncio.get_running_loop().time())


class Admission:
    """Whether uploads are taken on at the moment; one per web process, used by its event loop only."""

    def __init__(self, most_bytes: int, most_bytes_each: int) -> None:
        self._most_bytes, self._most_bytes_each = most_bytes, most_bytes_each
        self._uploads = set[Receiving]()
        self._held = Counter[str]()
        self.held_bytes = 0
        self._refusal: tuple[str, int] = "", 0
        self._remembered_until = float("-inf")

    @contextmanager
    def taking(self, client: str) -> Iterator[Receiving]:
        """Around reading a body and accepting what is in it; what it yields gets the number of bytes of each chunk.

        Raises Overloaded, before anything is read while the queue was full a moment ago.
        """
        if time.monotonic() < self._remembered_until:
            raise Overloaded(*self._refusal)
        upload = Receiving(self, client)
        self._uploads.add(upload)
        try:
            yield upload
        except ProcessFull:
            raise
        except Overloaded as error:
            self._refusal = error.detail, error.retry_after or 1
            self._remembered_until = time.monotonic() + _REMEMBERED_SECONDS
            raise
        finally:
            self.count(upload, -upload.held_bytes)
            self._uploads.discard(upload)

    def count(self, upload: Receiving, number: int) -> None:
        """So many bytes more, or less, are held."""
        upload.held_bytes += number
        self.held_bytes += number
        self._held[upload.client] += number
        if not self._held[upload.client]:
            del self._held[upload.client]

    def make_room(self, upload: Receiving) -> None:
        """End what weighs most until all fits: of the client that weighs most its heaviest upload."""
        if upload.held_bytes < self._held[upload.client] > self._most_bytes_each:  # a single one may have more
            raise RateLimited(
                f"this client's uploads hold more than {self._most_bytes_each} bytes, its share; send fewer at a time",
                _RETRY_SECONDS,
            )
        while self.held_bytes > self._most_bytes:
            heaviest = self._heaviest(upload)
            if heaviest is upload:
                raise _too_much()
            heaviest.end()

    def _heaviest(self, upload: Receiving) -> Receiving:
        weights = defaultdict[str, float](float)
        candidates = [each for each in self._uploads if each.can_end or each is upload]
        for each in candidates:
            weights[each.client] += each.weight
        return max(candidates, key=lambda each: (weights[each.client], each.weight))


def _too_much() -> Overloaded:
    return ProcessFull("too much is being uploaded at the moment; try again in a second", _RETRY_SECONDS)
