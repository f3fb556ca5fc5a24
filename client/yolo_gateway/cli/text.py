"""Text for people: names that cannot harm a terminal, counts, durations."""

import os
from typing import Any

import click


class Unusable(click.ClickException):
    """The command cannot do its work; one line that says why and what to do. Exit status 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"yolo-gateway: {self.message}", err=True)


class Interrupted(Unusable):
    """Ctrl-C; the message says how to go on. The exit status is a shell's for SIGINT."""

    exit_code = 130


def shown(name: str) -> str:
    """A file name or a label on one line: what is not printable is escaped."""
    return "".join(char if char.isprintable() else _escaped(char) for char in name)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode() if ord(char) < 0xD800 else ascii(char)[1:-1]


def counted(number: int, noun: str) -> str:
    """`1 file`, `1,200 files`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def reason_of(error: OSError) -> str:
    """`No such file or directory`, without the path."""
    return error.strerror or str(error)


def is_valid_name(name: str) -> bool:
    """Whether a file name is text; on Linux it may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def absolute(path: str) -> str:
    return os.path.abspath(path)
