"""How far a batch is, on standard error: one line that is written over on a terminal, a line now and then elsewhere."""

import sys
import time
from collections import deque
from collections.abc import Callable

from yolo_gateway.cli.text import counted, duration

_TERMINAL_SECONDS, _LOG_SECONDS = 0.2, 30.0
_RATE_SECONDS = 30.0


class Progress:
    """Counts finished files; `done` of `total` were finished by an earlier run."""

    def __init__(self, total: int, done: int, quiet: bool = False) -> None:
        self._total, self._earlier, self._quiet = total, done, quiet
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()
        self._next_at = self._began if self._terminal else self._began + _LOG_SECONDS
        self._samples: deque[tuple[float, int]] = deque([(self._began, 0)])
        self.finished = self.failed = 0
        self.note: Callable[[], str] = str

    def count(self, failed: bool) -> None:
        self.finished += 1
        self.failed += failed

    def tick(self) -> None:
        """Show where it is, if it is time to."""
        now = time.monotonic()
        if self._quiet or now < self._next_at:
            return
        self._next_at = now + (_TERMINAL_SECONDS if self._terminal else _LOG_SECONDS)
        if now > self._samples[-1][0] + 1:
            self._samples.append((now, self.finished))
        while len(self._samples) > 2 and self._samples[1][0] < now - _RATE_SECONDS:
            self._samples.popleft()
        self._show(self.line(now))

    def line(self, now: float) -> str:
        """`1,200 of 20,000 files, 41.2/s, about 8 min left, 3 failed`."""
        done = self._earlier + self.finished
        since, before = self._samples[0]
        rate = (self.finished - before) / (now - since) if now > since else 0.0
        parts = [f"{done:,} of {counted(self._total, 'file')}"]
        if rate:
            parts += [f"{rate:.1f}/s", f"about {duration((self._total - done) / rate)} left"]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        return ", ".join(parts) + (f"; {note}" if (note := self.note()) else "")

    def close(self) -> None:
        """Leave the line of a terminal empty for what is written next."""
        if self._terminal and not self._quiet:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def summary(self) -> str:
        """Of this run: `200 files in 12 s, 16.7/s`."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        return f"{counted(self.finished, 'file')} in {duration(seconds)}, {self.finished / seconds:.1f}/s"

    def _show(self, line: str) -> None:
        print(
            f"\r{line}\033[K" if self._terminal else line,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )
