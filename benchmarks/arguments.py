"""What the command lines of this folder share."""

import argparse
import math
import re
import sys
from collections.abc import Callable


def between(least: float, most: float) -> Callable[[str], float]:
    """A number within these bounds, which are far from anything sensible."""

    def number(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not least <= found <= most:
            raise argparse.ArgumentTypeError(f"{text}: give a number from {least:.10g} to {most:,.0f}")
        return found

    return number


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number within these bounds."""

    def number(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text}: give a whole number from {least} to {most:,}")
        return int(text)

    return number


ROUNDS, CLIENTS, SECONDS = whole(1, 1_000), whole(1, 1_000), between(0.5, 3_600)


def exit_with(main: Callable[[], int]) -> None:
    """End the process with what `main` returns; Ctrl-C ends it without a word."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
