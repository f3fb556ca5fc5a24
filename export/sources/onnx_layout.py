"""Which of the layouts of YOLOv5's answers an ONNX file gives, and how many classes it has."""

from dataclasses import dataclass
from itertools import product
from typing import get_args

import numpy as np
import numpy.typing as npt

from export.errors import ExportError
from export.graph.around_onnx import Layout
from export.sources.onnx_metadata import NMS_OUT

Table = npt.NDArray[np.float32]

STRIDES = (4, 8, 16, 32, 64, 128)  # of the levels P2 to P7
MOST_CHOSEN = 1000  # rows that a graph with NMS inside gives
AGAIN = "export it again with yolov5's export.py or with ultralytics, or give the .pt"


@dataclass(frozen=True, slots=True)
class Answer:
    """A table (1, A, B) that the file gave, and the height and width in pixels of the image that it was asked for."""

    table: Table
    size_hw: tuple[int, int]


def decide(answers: list[Answer], names: int | None, path: object) -> tuple[Layout, int]:
    """The layout and the number of classes of a file that gives `answers`, to one size or to two.

    `names` is how many names the classes have, None where that is not known. Raises ExportError when no layout fits,
    or two do, or the rows are those that NMS left.
    """
    _, first, second = answers[-1].table.shape
    axis = _candidates(answers)
    if _chosen(answers, axis):
        raise ExportError(f"{path} gives {_text(answers)}, which is what NMS leaves: it has NMS inside; {NMS_OUT}")
    classes: dict[Layout, int] = {"original": second - 5, "ultralytics": first - 4}
    if axis is None and names is None:
        axis = 1 if first > second else 2
    fitting = [
        layout
        for number, layout in enumerate(get_args(Layout), 1)
        if classes[layout] > 0 and axis in (None, number) and names in (None, classes[layout])
    ]
    if len(fitting) == 1:
        return fitting[0], classes[fitting[0]]
    if fitting:
        raise ExportError(f"{path} gives {_text(answers)}, which both layouts fit for {names} classes; {AGAIN}")
    if axis is not None and names is not None and (there := list(classes.values())[axis - 1]) > 0:
        swapped = (second - 4, first - 5)[axis - 1] == names
        what = "its last two axes are swapped, or it has" if swapped else "it seems to have"
        raise ExportError(
            f"{path} gives {_text(answers)} for {names} classes, neither (1, N, {5 + names}) nor (1, {4 + names}, N): "
            f"{what} {there} classes; give one name a class with NAMES=, or {AGAIN}"
        )
    expected = (
        f"(1, N, {5 + names}) nor (1, {4 + names}, N)" if names else "(1, N, 5 + classes) nor (1, 4 + classes, N)"
    )
    said = f" for {names} classes" if names else ""
    raise ExportError(f"{path} gives {_text(answers)}{said}, neither {expected}; {AGAIN}")


def density(answer: Answer, layout: Layout) -> float:
    """Candidates a pixel of the input."""
    height, width = answer.size_hw
    return float(answer.table.shape[1 if layout == "original" else 2] / (height * width))


def check_values(answer: Answer, layout: Layout, path: object) -> None:
    """Raises ExportError for boxes that are not centre and size in pixels, and for scores that are no probabilities.

    A picture's candidates are spread over all of it, so their centres reach its right and its bottom.
    """
    table = answer.table[0] if layout == "original" else answer.table[0].T
    x, y, width, height = table[:, :4].T
    if x.max() < answer.size_hw[1] / 4 and y.max() < answer.size_hw[0] / 4:
        raise ExportError(f"{path} gives boxes that are not in pixels of its input, as YOLOv5 does; {AGAIN}")
    if len(table) > 50 and (width >= x).all() and (height >= y).all():
        raise ExportError(f"{path} gives corners of boxes, not centres and sizes as YOLOv5 does; {AGAIN}")
    if table[:, 4:].min() < -0.01 or table[:, 4:].max() > 1.01:
        raise ExportError(f"{path} gives scores that are not from 0 to 1, as YOLOv5 does; {AGAIN}")


def _candidates(answers: list[Answer]) -> int | None:
    """The axis, 1 or 2, along which the candidates are: it grows with the image, and has a row a cell and anchor."""
    shapes = [answer.table.shape for answer in answers]
    grown = [axis for axis in (1, 2) if len({shape[axis] for shape in shapes}) > 1]
    if len(shapes) > 1 and grown:
        return grown[0] if len(grown) == 1 else None
    fitting = [axis for axis in (1, 2) if _fits(shapes[-1][axis], answers[-1].size_hw)]
    return fitting[0] if len(fitting) == 1 else None


def _chosen(answers: list[Answer], axis: int | None) -> bool:
    """Whether the rows look like those that NMS has left."""
    shapes = {answer.table.shape for answer in answers}
    _, rows, columns = answers[-1].table.shape
    if len(answers) > 1:
        return len(shapes) == 1
    return axis is None and columns in (6, 7) and rows <= MOST_CHOSEN


def _fits(rows: int, size_hw: tuple[int, int]) -> bool:
    """Whether a head with some of the usual levels, two at least, has so many candidates."""
    cells = [-(-size_hw[0] // stride) * -(-size_hw[1] // stride) for stride in STRIDES]
    sums = {
        sum(cells[start:end]) for start, end in product(range(len(cells)), range(len(cells) + 1)) if end - start >= 2
    }
    return any(rows == anchors * total for anchors, total in product(range(1, 7), sums))


def _text(answers: list[Answer]) -> str:
    return str(tuple(answers[-1].table.shape))
