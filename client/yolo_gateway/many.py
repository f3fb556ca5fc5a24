"""Many images through threads: a sliding window, in flat memory."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from os import PathLike
from typing import Any

from yolo_gateway.errors import InvalidInput, YoloGatewayError
from yolo_gateway.prediction import Item, Prediction

One = Callable[[Any, threading.Event], Prediction]


def many(images: Iterable[Any], one: One, concurrency: int, ordered: bool) -> Iterator[Item]:
    """`one` of each image, `concurrency` at a time, as they finish or in their order. Raises what is no own error.

    `one` gets an event too, which says that nobody waits for it any more.
    """
    check_many(images, concurrency)
    return _items(images, one, concurrency, ordered)


def check_many(images: Iterable[Any], concurrency: int) -> None:
    """Raises InvalidInput, for a single path too: it would be taken letter by letter."""
    if isinstance(images, (str, bytes, PathLike)):
        raise InvalidInput(f"images is one {type(images).__name__}; give a list of images, or call predict")
    if not isinstance(concurrency, int) or concurrency < 1:
        raise InvalidInput(f"concurrency={concurrency!r}: give a whole number, 1 or more")


def _items(images: Iterable[Any], one: One, concurrency: int, ordered: bool) -> Iterator[Item]:
    stopped = threading.Event()

    def item(index: int, given: Any) -> Item:
        try:
            return Item(index, given, one(given, stopped))
        except YoloGatewayError as error:
            return Item(index, given, error=error)

    numbered = enumerate(images)
    under_way: deque[Future[Item]] = deque()
    with ThreadPoolExecutor(concurrency, thread_name_prefix="predict") as pool:
        try:
            while True:
                free = concurrency - len(under_way)
                under_way.extend(pool.submit(item, index, given) for index, given in islice(numbered, free))
                if not under_way:
                    return
                first = under_way[0] if ordered else wait(under_way, return_when=FIRST_COMPLETED).done.pop()
                under_way.remove(first)
                yield first.result()
        finally:
            stopped.set()
            for each in under_way:
                each.cancel()
