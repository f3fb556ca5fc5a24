"""What the parts of the stack say, line by line on one terminal."""

import codecs
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
_READ_BYTES, _GATHER_SECONDS = 1 << 16, 0.1  # a pipe holds no more


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
        decoder, begun = codecs.getincrementaldecoder("utf-8")("replace"), ""
        while read := os.read(pipe, _READ_BYTES):
            *lines, begun = (begun + decoder.decode(read)).split("\n")
            self._show(name, colour, lines)
            time.sleep(_GATHER_SECONDS)  # a busy part says hundreds of lines a second: a wake for each is dear
        os.close(pipe)
        self._show(name, colour, [last] if (last := begun + decoder.decode(b"", final=True)) else [])

    def _show(self, name: str, colour: int, lines: list[str]) -> None:
        head = f"{time.strftime('%H:%M:%S')} {name:<{_NAME_WIDTH}} | "
        shown = f"\033[{colour}m{head}\033[0m" if self._coloured else head
        self._last.update((name, line.strip()) for line in lines if line.strip())
        if lines:
            self.say("\n".join(shown + line for line in lines))
