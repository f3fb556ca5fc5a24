"""Why an export stops, for the person who asked for it."""

import io
import sys

_BREAKS = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}


class ExportError(Exception):
    """The export cannot go on; the message is one line: what, where and what to do."""


class NoWeightsError(ExportError):
    """There is no checkpoint, and none can be downloaded."""


class VerificationError(ExportError):
    """The exported model does not answer as the checkpoint does; nothing was published."""


def one_line(text: str) -> str:
    """A message on one line, whatever the name of a file in it: a newline reads `\\n`."""
    return text.translate(_BREAKS)


def print_any_name() -> None:
    """Let stdout escape what is no Unicode in the name of a file, as stderr does, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def shortened(text: str, most: int) -> str:
    """A text of the user's for a message: on one line, of so many characters at most."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 3]}..."
