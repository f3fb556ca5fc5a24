"""The journal of a batch: a line a finished file, appended as it finishes, so that a killed run can go on."""

import json
import os
import time
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from yolo_gateway.cli.text import Unusable, reason_of, shown

_SYNC_SECONDS = 1.0
_FORMAT = 1
_BEGIN = b'{"yolo-gateway":'

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Header:
    """What a run was started with: the first line. A run goes on only with the same."""

    model: str
    version: str
    labels: list[str]
    options: dict[str, Any]


class Failure(NamedTuple):
    """Why there is no result. `passing` ones are no fault of the file: the next run tries again after `attempts`."""

    code: str
    reason: str
    passing: bool = False
    attempts: int = 0


class Size(NamedTuple):
    """Of the upright image, pixels."""

    width: int
    height: int


class Result(NamedTuple):
    """What was found: rows of class id, score, x1, y1, x2, y2, best first."""

    size: Size
    rows: list[list[float]]
    warnings: list[str]


class Entry(NamedTuple):
    """A finished file. `size` and `mtime_ns` are of the content that was sent, 0 where it could not be read."""

    name: str
    size: int
    mtime_ns: int
    outcome: Result | Failure


class Journal:
    """An open journal; one process at a time. Positions are those of lines in the file, bytes."""

    def __init__(self, path: Path, descriptor: int, end: int) -> None:
        self._path, self._descriptor, self._end = path, descriptor, end
        self._synced_at = time.monotonic()

    @classmethod
    def create(cls, path: Path, header: Header) -> "Journal":
        """Begin one. Raises Unusable where there is one already, OSError."""
        if has_begun(path):
            raise Unusable(
                f"{shown(str(path))}: an earlier run began here; go on with it by --resume, or choose another --out"
            )
        journal = cls(path, _opened(path), 0)
        if not _BEGIN.startswith(os.read(journal._descriptor, len(_BEGIN))):
            journal.close()
            raise Unusable(_no_journal(path))
        journal._begin(header)  # or begun again: it was killed while its first line was written
        return journal

    @classmethod
    def resume(cls, path: Path, header: Header) -> "Journal":
        """Go on with one. Raises Unusable where it is of another run or none, OSError.

        A journal in which no file has finished is begun anew. Perhaps the service refused the first command, and this
        one is corrected.
        """
        descriptor = _opened(path)
        with open(path, "rb") as file:
            first = file.readline()
            end = len(first)
            for line in file:
                end += len(line) if line.endswith(b"\n") else 0
        journal = cls(path, descriptor, end)
        if end == len(first) and first.startswith(_BEGIN):
            journal._begin(header)
            return journal
        _check(path, first, header)
        os.truncate(path, end)  # a line that was cut when the process was killed
        return journal

    def add(self, entry: Entry) -> int:
        """Append a finished file and return its position. Raises OSError when the disk is full."""
        outcome = entry.outcome
        key = "result" if isinstance(outcome, Result) else "failure"
        position = self._append({"file": entry.name, "size": entry.size, "mtime_ns": entry.mtime_ns, key: outcome})
        if time.monotonic() > self._synced_at + _SYNC_SECONDS:
            self.sync()
        return position

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """All finished files with their positions, as they finished. A corrupted line is no entry."""
        with open(self._path, "rb") as file:
            position = len(file.readline())
            for line in file:
                entry = _entry(line)
                if entry is not None:
                    yield position, entry
                position += len(line)

    def at(self, positions: "array[int]") -> Iterator[Entry]:
        """The entries at positions, in that order; -1 is left out."""
        with open(self._path, "rb") as file:
            for position in positions:
                if position >= 0:
                    file.seek(position)
                    entry = _entry(file.readline())
                    assert entry is not None, position
                    yield entry

    def sync(self) -> None:
        """What was added survives a power cut. Raises OSError."""
        os.fsync(self._descriptor)
        self._synced_at = time.monotonic()

    def close(self) -> None:
        os.close(self._descriptor)

    def _begin(self, header: Header) -> None:
        os.ftruncate(self._descriptor, 0)
        self._end = 0
        self._append({"yolo-gateway": _FORMAT, **asdict(header)})
        self.sync()

    def _append(self, value: dict[str, Any]) -> int:
        try:
            line = msgspec.json.encode(value) + b"\n"
        except UnicodeEncodeError:  # a name that is no UTF-8
            line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        position, written = self._end, 0
        while written < len(line):
            written += os.write(self._descriptor, line[written:])
        self._end += len(line)
        return position


def has_begun(path: Path) -> bool:
    """Whether there is a journal with a whole first line."""
    try:
        with open(path, "rb") as file:
            return file.readline().endswith(b"\n")
    except FileNotFoundError:
        return False


def _opened(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise Unusable(f"{shown(str(path))}: another yolo-gateway is writing it; wait until it is done") from error
    return descriptor


def _check(path: Path, first: bytes, header: Header) -> None:
    try:
        known = json.loads(first)
        same = known.pop("yolo-gateway") == _FORMAT
    except (ValueError, KeyError, AttributeError):
        same = False
    if not same:
        raise Unusable(_no_journal(path))
    for name, value in asdict(header).items():
        if known.get(name) != value:
            was, now = _difference(known.get(name), value)
            raise Unusable(
                f"{shown(str(path))}: the run that began here had {name} {was}, now it is {now}; "
                "use the same, or choose another --out"
            )


def _no_journal(path: Path) -> str:
    return f"{shown(str(path))}: is no journal of this version of yolo-gateway; choose another --out"


def _difference(was: Any, now: Any) -> tuple[str, str]:
    if isinstance(was, dict) and isinstance(now, dict):
        names = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
        return tuple(  # type: ignore[return-value]
            " ".join(f"{name}={json.dumps(each.get(name))}" for name in names) for each in (was, now)
        )
    return json.dumps(was), json.dumps(now)


def _entry(line: bytes) -> Entry | None:
    try:
        value = msgspec.json.decode(line) if b"\\u" not in line else json.loads(line)
        outcome: Result | Failure
        if "result" in value:
            size, rows, warnings = value["result"]
            outcome = Result(Size(*size), rows, warnings)
        else:
            outcome = Failure(*value["failure"])
        return Entry(value["file"], value["size"], value["mtime_ns"], outcome)
    except (ValueError, KeyError, TypeError):
        return None


def open_journal(path: Path, header: Header, resume: bool) -> Journal:
    """A new one, or with `resume` the one that is there. Raises Unusable."""
    try:
        if resume and has_begun(path):
            return Journal.resume(path, header)
        return Journal.create(path, header)
    except OSError as error:
        raise Unusable(f"{shown(str(path))}: {reason_of(error)}") from error
