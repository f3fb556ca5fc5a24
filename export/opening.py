"""The file that a user names → what an export starts from."""

from functools import partial
from pathlib import Path

from export import onnx, onnx_source, reference, weights
from export.config import Serving
from export.graph import Deployed
from export.source import Source


def open_source(path: Path) -> Source:
    """A checkpoint of either format, or an .onnx of either tool. Raises ExportError for anything else."""
    if path.suffix.lower() == ".onnx":
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
