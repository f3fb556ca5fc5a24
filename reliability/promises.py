"""A promise, what was measured of it, and the table of all."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Promise(NamedTuple):
    """`wanted` and `measured` are for people; `kept` says whether the one fits the other."""

    name: str
    wanted: str
    measured: str
    kept: bool


def table(promises: Sequence[Promise]) -> str:
    """The promises as a Markdown table."""
    rows = [("promise", "wanted", "measured", "kept"), ("---",) * 4]
    rows += [(each.name, each.wanted, each.measured, "yes" if each.kept else "**NO**") for each in promises]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def until(true: Callable[[], bool], seconds: float, pause: float = 0.1) -> float | None:
    """Seconds until it was true; None when it was not within that time."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if true():
            return time.monotonic() - begun
        time.sleep(pause)
    return None
