"""What the parts of the stack say, line by line on one terminal."""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO

_NAME_WIDTH = len("worker.10")
_COLOURS = (36, 33, 32, 35, 34, 31)  # cyan, yellow, green, magenta, blue, red
_EOF_SECONDS = 2.0


class Console:
    """Prints each line with the time and the part that says it, and keeps the last of each part.

    `when_unread` is called when nobody reads the output any more; from then on it is dropped.
    """

    def __init__(self, when_unread: Callable[[], None]) -> None:
        self._when_unread = when_unread
        self._lock = threading.Lock()
        self._last: dict[str, str] = {}
        self._readers: dict[str, threading.Thread] = {}
        self._coloured = sys.stdout.isatty()

    def open(self, name: str) -> IO[bytes]:
        """A pipe for a part to write to."""
        reading, writing = os.pipe()
        colour = _COLOURS[len(self._readers) % len(_COLOURS)]
        self._readers[name] = threading.Thread(target=self._read, args=(name, colour, reading), daemon=True)
        self._readers[name].start()
        return os.fdopen(writing, "wb")

    def say(self, line: str) -> None:
        with self._lock:
            try:
                print(line, flush=True)
            except OSError:  # `make run | tee log` and Ctrl-C, which ends tee too; or a terminal that was closed
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, sys.stdout.fileno())
                os.close(nowhere)
                self._when_unread()

    def last_words(self, name: str) -> str:
        """The last line of a part that has ended."""
        with suppress(KeyError):
            self._readers[name].join(_EOF_SECONDS)
        return self._last.get(name, "")

    def _read(self, name: str, colour: int, pipe: int) -> None:
        with os.fdopen(pipe, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.strip():
                    self._last[name] = line.strip()
                head = f"{time.strftime('%H:%M:%S')} {name:<{_NAME_WIDTH}} | "
                self.say((f"\033[{colour}m{head}\033[0m" if self._coloured else head) + line.rstrip("\n"))
