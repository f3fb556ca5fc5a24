"""The run itself: senders in threads, each with one file at a time; the main thread keeps the journal."""

import os
import queue
import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from yolo_gateway.cli.batch.files import Content, Files, read
from yolo_gateway.cli.batch.journal import Entry, Failure, Journal, Result
from yolo_gateway.cli.batch.progress import Progress
from yolo_gateway.cli.text import is_valid_name, reason_of

Outcome = Result | Failure
Send = Callable[[bytes, str, int], Outcome]  # content, name, attempts before → what came of it
_TICK_SECONDS = 0.2


@dataclass
class Run:
    """Files and what has finished of them; `positions` are those of the journal, -1 for what is open."""

    files: Files
    journal: Journal
    progress: Progress
    positions: "array[int]"
    attempts: dict[int, int] = field(default_factory=dict)

    def entries(self) -> Iterator[Entry]:
        """The finished ones in the order of their names, and the folders that could not be read."""
        yield from self.journal.at(self.positions)
        for name, reason in self.files.unreadable:
            yield Entry(name, 0, 0, Failure("unreadable", reason))

    def go(self, send: Send, senders: int) -> None:
        """Send all that is open. Raises Unusable, OSError of the journal."""
        waiting = (index for index, position in enumerate(self.positions) if position < 0)
        team = _Team(self, send, waiting)
        team.start(senders)
        try:
            for index, entry in team.finished():
                self.positions[index] = self.journal.add(entry)
                self.progress.count(isinstance(entry.outcome, Failure))
        finally:
            team.stop()
            self.journal.sync()


def begin(files: Files, journal: Journal, progress: Callable[[int], Progress], has_extra: Callable[[str], bool]) -> Run:
    """What the journal says of these files counts where a file is as it was, and `has_extra` has what belongs to it."""
    positions = array("q", [-1]) * len(files.names)
    attempts: dict[int, int] = {}
    index_of = {name: index for index, name in enumerate(files.names)}
    for position, entry in journal.entries():
        index = index_of.get(entry.name)
        if index is None or not _is_as_it_was(files.path(entry.name), entry):
            continue
        if isinstance(entry.outcome, Failure) and entry.outcome.passing:
            attempts[index] = entry.outcome.attempts
            positions[index] = -1
        elif isinstance(entry.outcome, Failure) or has_extra(entry.name):
            positions[index] = position
    done = sum(position >= 0 for position in positions)
    return Run(files, journal, progress(done), positions, attempts)


def _is_as_it_was(path: str, entry: Entry) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (entry.size, entry.mtime_ns)


class _Team:
    """The threads. They are daemons: Ctrl-C does not wait for answers that are on their way."""

    def __init__(self, run: Run, send: Send, waiting: Iterator[int]) -> None:
        self._run, self._send, self._waiting = run, send, waiting
        self._lock = threading.Lock()
        self._results: queue.Queue[tuple[int, Entry] | Exception | None] = queue.Queue(maxsize=256)
        self._stopping = threading.Event()
        self._at_work = 0

    def start(self, senders: int) -> None:
        self._at_work = senders
        for _ in range(senders):
            threading.Thread(target=self._work, daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def finished(self) -> Iterator[tuple[int, Entry]]:
        """Files as they finish. Raises Unusable."""
        while self._at_work:
            self._run.progress.tick()
            try:
                result = self._results.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                continue
            if result is None:
                self._at_work -= 1
            elif isinstance(result, Exception):
                raise result
            else:
                yield result

    def _work(self) -> None:
        try:
            while not self._stopping.is_set() and (index := self._next()) is not None:
                self._results.put((index, self._one(index)))
            self._results.put(None)
        except Exception as error:  # it is raised in the main thread
            self._results.put(error)

    def _next(self) -> int | None:
        with self._lock:
            return next(self._waiting, None)

    def _one(self, index: int) -> Entry:
        name = self._run.files.names[index]
        if not is_valid_name(name):
            return Entry(
                name, 0, 0, Failure("bad_name", "the name is not UTF-8, no annotation format has it; rename it")
            )
        try:
            content = read(self._run.files.path(name))
        except OSError as error:
            return Entry(name, 0, 0, Failure("unreadable", reason_of(error)))
        if not content.data:
            return Entry(name, 0, content.mtime_ns, Failure("no_image", "the file is empty"))
        return self._sent(name, content, self._run.attempts.get(index, 0))

    def _sent(self, name: str, content: Content, attempts: int) -> Entry:
        return Entry(name, content.size, content.mtime_ns, self._send(content.data, name, attempts))
