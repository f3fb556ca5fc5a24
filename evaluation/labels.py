"""A label file: a row for each object, `class cx cy w h` for a box or `class x1 y1 x2 y2 x3 y3 …` for a polygon.

All numbers but the class are relative to the size of the upright image. The rules are those by which YOLOv5 reads its
data sets (`verify_image_label` in `utils/dataloaders.py`), so that the same files count.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

MOST_COLUMNS_OF_A_BOX = 6  # one row with more, and every row of the file is a polygon


class LabelError(ValueError):
    """YOLOv5 ignores an image with such a label file; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Labels:
    """`class_ids` is float32 (N,), `boxes_cxcywh` float32 (N, 4).

    `duplicates` counts the rows that were left out because the same one is there already, `mixed` says that rows of
    boxes were read as polygons.
    """

    class_ids: npt.NDArray[np.float32]
    boxes_cxcywh: npt.NDArray[np.float32]
    duplicates: int = 0
    mixed: bool = False


NOTHING = Labels(np.zeros(0, np.float32), np.zeros((0, 4), np.float32))


def label_file(image: Path) -> tuple[Path | None, bool]:
    """The label file of an image, and whether YOLOv5 would look for it elsewhere.

    The last `images` of the path reads `labels` (`img2label_paths`); without a file there, one next to the image is
    taken.
    """
    beside = image.with_suffix(".txt")
    before, images, after = str(beside).rpartition(f"{os.sep}images{os.sep}")
    if images and os.path.isfile(usual := Path(before, "labels", after)):
        return usual, False
    return (beside, bool(images)) if os.path.isfile(beside) else (None, False)


def read(path: Path) -> Labels:
    """The objects of a label file; none when it is empty. Raises LabelError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"{path} cannot be read: {error}") from error
    rows = [(f"{path}, line {number}", words) for number, line in enumerate(lines, 1) if (words := line.split())]
    if not rows:
        return NOTHING
    polygons = any(len(words) > MOST_COLUMNS_OF_A_BOX for _, words in rows)
    table = np.array([_polygon(*row) if polygons else _box(*row) for row in rows], np.float32)
    for (where, _), row in zip(rows, table, strict=True):
        if not (row >= 0).all() or not (row[1:] <= 1).all():
            raise LabelError(f"{where}: cx cy w h must lie between 0 and 1, relative to the image's size")
    _, first = np.unique(table, axis=0, return_index=True)
    duplicates = len(table) - len(first)
    table = table[first] if duplicates else table
    mixed = polygons and any(len(words) == 5 for _, words in rows)
    return Labels(table[:, 0], table[:, 1:], duplicates, mixed)


def _box(where: str, words: list[str]) -> list[float]:
    if len(words) != 5:
        raise LabelError(f"{where}: {len(words)} numbers instead of the five of `class cx cy w h`")
    return _numbers(where, words)


def _polygon(where: str, words: list[str]) -> list[float]:
    """The box around a polygon, with its class."""
    if len(words) < 3 or len(words) % 2 == 0:
        raise LabelError(f"{where}: {len(words)} numbers instead of a class and pairs of x and y")
    class_id, *coordinates = _numbers(where, words)
    points = np.array(coordinates, np.float32).reshape(-1, 2)
    low, high = points.min(0), points.max(0)
    return [class_id, *((low + high) / 2).tolist(), *(high - low).tolist()]


def _numbers(where: str, words: list[str]) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError:
        text = " ".join(words)
        shown = text if len(text) <= 60 else f"{text[:60]}…"
        raise LabelError(f"{where}: {shown!r} is not five numbers; write `class cx cy w h`") from None
