"""honcho's Manager, with a calm console and an orderly stop."""

import os
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from honcho.manager import SYSTEM_PRINTER_NAME, Manager
from honcho.printer import Message, Printer

STOP_SECONDS = 15
SERVERS = ("triton", "redis")
_EVENT = re.compile(r"(?P<name>\S+) (?:started \(pid=(?P<pid>\d+)\)|stopped \(rc=(?P<status>-?\d+)\))\s*")


class Console(Printer):  # type: ignore[misc]
    """Prints what the processes say; what honcho says of itself goes to `report` instead.

    `when_unread` is called when nobody reads the output any more; from then on it is dropped.
    """

    def __init__(self, report: Callable[[str], None], when_unread: Callable[[], None]) -> None:
        super().__init__()
        self._report = report
        self._when_unread = when_unread
        self._said: dict[str, deque[str]] = {}

    def write(self, message: Message) -> None:
        data = message.data
        text = data.decode(errors="replace") if isinstance(data, bytes) else str(data)
        if message.name == SYSTEM_PRINTER_NAME:
            return self._report(text)
        if text.strip():
            self._said.setdefault(message.name, deque(maxlen=1)).append(text.strip())
        with self._readers():
            super().write(message)

    def say(self, line: str) -> None:
        with self._readers():
            print(line, file=self.output, flush=True)

    @contextmanager
    def _readers(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # `make run | tee log` and Ctrl-C, which ends tee too; or a terminal that was closed
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.output.fileno())
            os.close(nowhere)
            self._when_unread()

    def last_words(self, name: str) -> str:
        return "".join(self._said.get(name, ()))


class Supervisor(Manager):  # type: ignore[misc]
    """Runs processes until a signal comes, one of them ends or nobody reads what they say; then stops all.

    First the users are stopped, then the servers.
    """

    def __init__(self, when_started: Callable[[], None]) -> None:
        self.console = Console(self._note, when_unread=self.terminate)
        super().__init__(self.console)
        self.ended: tuple[str, int] | None = None  # the process that ended by itself, and its exit status
        self.stopping = threading.Event()
        self._when_started = when_started
        self._running: dict[str, int] = {}
        self._expected = 0
        self._told: set[str] = set()

    def add_process(self, name: str, cmd: str, *arguments: object, **options: object) -> object:
        self._expected += 1
        return super().add_process(name, cmd, *arguments, **options)

    def terminate(self) -> None:
        """Stop all; what has not ended after STOP_SECONDS is killed."""
        if not self.stopping.is_set():
            self.stopping.set()
            timer = threading.Timer(STOP_SECONDS, self._signal_all, [signal.SIGKILL])
            timer.daemon = True
            timer.start()
        self._stop_next()

    def kill(self) -> None:
        """honcho calls this five seconds after the first end, too early for Triton; `terminate` has its own bound."""

    def _note(self, text: str) -> None:
        event = _EVENT.fullmatch(text)
        if event is None:
            return
        if event["pid"]:
            self._started(event["name"], int(event["pid"]))
        else:
            self._stopped(event["name"], int(event["status"]))

    def _started(self, name: str, pid: int) -> None:
        self._running[name] = pid
        self._expected -= 1
        if self.stopping.is_set():
            self._stop_next()
        elif self._expected == 0:
            self._when_started()

    def _stopped(self, name: str, status: int) -> None:
        # Each process leads a group of its own: nothing of it may outlive it.
        send(self._running.pop(name), signal.SIGKILL)
        if self.stopping.is_set():
            self._stop_next()
        elif self.ended is None:
            self.ended = name, status

    def _stop_next(self) -> None:
        users = [name for name in self._running if not name.startswith(SERVERS)]
        for name in users or list(self._running):
            if name not in self._told:
                self._told.add(name)
                send(self._running[name], signal.SIGTERM)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in list(self._running.values()):
            send(pid, number)


def send(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
