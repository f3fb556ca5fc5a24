"""Standard output: JSON for programs, tables for people."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from yolo_gateway.cli.text import shown


def wants_json(as_json: bool | None) -> bool:
    """What was asked for, otherwise whether standard output is no terminal."""
    return not sys.stdout.isatty() if as_json is None else as_json


def write_json(value: Any) -> None:
    """One line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def write_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as what is in them; numbers to the right."""
    lines = [[shown(f"{cell:.4g}" if isinstance(cell, float) else str(cell)) for cell in row] for row in rows]
    right = [bool(lines) and all(_is_number(line[index]) for line in lines) for index in range(len(header))]
    widths = [max(map(len, column)) for column in zip(header, *lines)]  # noqa: B905
    for number, line in enumerate([list(header), *lines]):
        cells = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right)  # noqa: B905
        )
        text = "  ".join(cells).rstrip()
        click.echo(text if number else click.style(text, bold=True))


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace(",", "").isdecimal()


def complain(text: str) -> None:
    """A line on standard error."""
    click.echo(click.style(text, fg="red"), err=True)
