"""What an export starts from, whatever its format: what it answers, and how its deployed graph is written."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from export import onnx, reference, weights
from export.config import Precision, Serving
from export.graph import Deployed
from export.verify import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """`candidates` answers as the source itself does; `write(path, serving)` writes the deployed graph as ONNX.

    `fixed_size` (pixels), `fixed_batch` and `fixed_precision` are what the source cannot be served otherwise than with.
    """

    path: Path
    labels: tuple[str, ...]
    stride: int
    candidates: Answer
    write: Callable[[Path, Serving], None]
    fixed_size: int | None = None
    fixed_batch: int | None = None
    fixed_precision: Precision | None = None


def open_source(path: Path) -> Source:
    """A checkpoint of either format, or an .onnx of either tool. Raises ExportError for anything else."""
    if path.suffix.lower() == ".onnx":
        from export import onnx_source

        return onnx_source.load(path)
    checkpoint = weights.load(path)

    def write(target: Path, serving: Serving) -> None:
        deployed = Deployed(checkpoint.network, half=serving.precision == "fp16", gpu=serving.device == "gpu")
        onnx.write(deployed, target, imgsz=serving.imgsz, square=serving.square)

    return Source(
        path=path,
        labels=checkpoint.labels,
        stride=checkpoint.stride,
        candidates=partial(reference.candidates, checkpoint.network),
        write=write,
    )
