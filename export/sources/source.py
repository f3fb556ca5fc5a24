"""What an export starts from, whatever its format: what it answers, and how its deployed graph is written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from export import verify
from export.config import Precision, Serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """`candidates` answers as the source itself does, with a score for every class; `write(path, serving)` writes the
    deployed graph as ONNX.

    `density` is how many candidates there are a pixel of the input. `fixed_hw` (pixels, None for a free side),
    `fixed_precision` and `one_image` (a batch of one, and no other) are what the source cannot be served otherwise than
    with.
    """

    path: Path
    labels: tuple[str, ...]
    stride: int
    candidates: verify.Source
    write: Callable[[Path, Serving], None]
    density: float
    fixed_hw: tuple[int | None, int | None] = (None, None)
    one_image: bool = False
    fixed_precision: Precision | None = None


def least_stride(of_head: int) -> int:
    """What the sides of an input must be multiples of, pixels: YOLOv5's `max(stride, 32)`.

    A head without its last level says less than the network below it asks for, which halves the image five times.
    """
    return max(of_head, 32)
