"""Which files a batch sends: those of folders, patterns and lists, each under a name of its own."""

import errno
import glob
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from yolo_gateway.cli.text import Unusable, counted, reason_of, shown

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"})
LARGEST_BYTES = 200_000_000  # what is larger is no image that a service takes


class Content(NamedTuple):
    """A file as it was read; `size` in bytes and `mtime_ns` tell whether it has changed since."""

    data: bytes
    size: int
    mtime_ns: int


@dataclass
class Files:
    """`names` are relative to `base`, with slashes, in order; `unreadable` are folders, with reasons."""

    base: str
    names: list[str]
    notes: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def path(self, name: str) -> str:
        return os.path.join(self.base, name)


@dataclass
class _Search:
    paths: set[str] = field(default_factory=set)
    bases: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def find(sources: list[str]) -> Files:
    """The files of folders (with those below), patterns, lists (`-` is one on standard input), or single images.

    Names are relative to the folder given, otherwise to the deepest folder that holds all files. Raises Unusable.
    """
    search = _Search()
    for source in sources:
        _search(source, search)
    if not search.paths and not search.unreadable:
        kinds = ", ".join(sorted(SUFFIXES))
        raise Unusable(f"no images in {', '.join(map(shown, sources))}; looked for files that end in {kinds}")
    base = os.path.commonpath(search.bases or [os.getcwd()])
    names = sorted(os.path.relpath(path, base).replace(os.sep, "/") for path in search.paths)
    unreadable = [(os.path.relpath(path, base).replace(os.sep, "/"), reason) for path, reason in search.unreadable]
    return Files(base, names, search.notes, unreadable)


def read(path: str) -> Content:
    """Raises OSError for what is no readable file of a sensible size."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file")
        if status.st_size > LARGEST_BYTES:
            raise OSError(errno.EFBIG, f"Larger than {LARGEST_BYTES} bytes")
        return Content(file.read(), status.st_size, status.st_mtime_ns)


def _search(source: str, search: _Search) -> None:
    if source == "-":
        _add_list(sys.stdin.buffer.read(), search)
    elif os.path.isdir(source):
        search.bases.append(os.path.abspath(source))
        _add_folder(os.path.abspath(source), search)
    elif os.path.isfile(source) and _is_image(source):
        _add_files([source], search)
    elif os.path.isfile(source):
        _add_list(_read_list(source), search)
    elif glob.has_magic(source):
        _add_pattern(source, search)
    elif os.path.lexists(source):
        raise Unusable(f"{shown(source)}: is neither a file nor a folder")
    else:
        raise Unusable(f"{shown(source)}: there is no such folder, list or image")


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _add_files(paths: list[str], search: _Search) -> None:
    absolute = [os.path.abspath(path) for path in paths]
    search.paths.update(absolute)
    if absolute:
        search.bases.append(os.path.commonpath([os.path.dirname(path) for path in absolute]))


def _add_pattern(pattern: str, search: _Search) -> None:
    matched = glob.glob(pattern, recursive=True)
    folders = [path for path in matched if os.path.isdir(path)]
    if folders:
        search.notes.append(f"{shown(pattern)}: {counted(len(folders), 'folder')} left out; it takes files only")
    _add_files([path for path in matched if not os.path.isdir(path)], search)


def _read_list(path: str) -> bytes:
    try:
        return read(path).data
    except OSError as error:
        raise Unusable(f"{shown(path)}: {reason_of(error)}") from error


def _add_list(content: bytes, search: _Search) -> None:
    """A path a line, or, where there is a NUL byte, between NULs (`find -print0`): a name may have a line break."""
    if b"\0" in content:
        entries = content.split(b"\0")
    else:
        entries = content.replace(b"\r\n", b"\n").split(b"\n")
    _add_files([os.fsdecode(entry) for entry in entries if entry], search)


def _add_folder(top: str, search: _Search) -> None:
    """Folders that are links are followed, but not into one that they are in."""
    others = 0
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [(top, ())]
    while waiting:
        folder, above = waiting.pop()
        try:
            status = os.stat(folder)
            entries = list(os.scandir(folder))
        except OSError as error:
            search.unreadable.append((folder, reason_of(error)))
            continue
        here = (status.st_dev, status.st_ino)
        if here in above:
            search.notes.append(f"{shown(folder)}: left out; it is a link to a folder that it is in")
            continue
        below = [entry.path for entry in _folders(entries)]
        waiting += [(path, (*above, here)) for path in below]
        images = {entry.path for entry in entries if _is_image(entry.name)} - set(below)
        search.paths |= images
        others += len(entries) - len(below) - len(images)
    if others:
        search.notes.append(f"{shown(top)}: {counted(others, 'other file')} left out, not images by their names")


def _folders(entries: list["os.DirEntry[str]"]) -> Iterator["os.DirEntry[str]"]:
    for entry in entries:
        try:
            if entry.is_dir():
                yield entry
        except OSError:  # a link to itself
            continue
