"""CSV (RFC 4180): a header line, then a row an object."""

import csv
import io
from collections.abc import Iterable, Iterator

from yolo_gateway.formats.picture import Model, Picture

COLUMNS = (
    *("file", "label", "class_id", "score", "x1", "y1", "x2", "y2"),
    *("image_width", "image_height", "model", "version"),
)


def header() -> str:
    """The first line."""
    return _text([COLUMNS])


def rows(picture: Picture, model: Model) -> str:
    """A row an object, best first; empty where nothing was found. Boxes are corners in pixels."""
    size = picture.width, picture.height, model.name, model.version
    return _text(
        (
            *(_no_formula(picture.name), _no_formula(found.label), found.class_id, found.score),
            *(found.box.x1, found.box.y1, found.box.x2, found.box.y2, *size),
        )
        for found in picture.detections
    )


def table(pictures: Iterable[Picture], model: Model) -> Iterator[str]:
    """The text of the whole table, piece by piece."""
    yield header()
    for picture in pictures:
        yield rows(picture, model)


def _text(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)  # its default dialect is RFC 4180's
    return text.getvalue()


def _no_formula(text: str) -> str:
    """Text that a spreadsheet would run gets an apostrophe: https://owasp.org/www-community/attacks/CSV_Injection"""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
