"""What a check says, and how it writes numbers."""

from dataclasses import dataclass
from typing import Literal

# info: could not be determined; note: worth a look; wrong: not what people believe, or costly.
Level = Literal["ok", "info", "note", "wrong"]
EXPORT = "make export-model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report; `why` it matters and what to `change` follow where there is something to do."""

    level: Level
    title: str
    what: str
    why: str = ""
    change: str = ""


def amount(size: float) -> str:
    """Bytes for a reader."""
    if size < 1000:
        return f"{size:.0f} B"
    return f"{size / 1e3:.0f} kB" if size < 999_500 else f"{size / 1e6:.1f} MB"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def text(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def shortened(message: str, most: int = 120) -> str:
    return message if len(message) <= most else f"{message[: most - 3].rstrip()}..."
