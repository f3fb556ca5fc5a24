"""The file that a user names → what an export starts from."""

from functools import partial
from pathlib import Path

from export.config import Serving
from export.graph import onnx_writer
from export.graph.deployed import Deployed
from export.sources import checkpoint, onnx_file, reference
from export.sources.source import Source


def open_source(path: Path) -> Source:
    """A checkpoint of either format, or an .onnx of either tool. Raises ExportError for anything else."""
    if path.suffix.lower() == ".onnx":
        return onnx_file.load(path)
    loaded = checkpoint.load(path)

    def write(target: Path, serving: Serving) -> None:
        deployed = Deployed(loaded.network, half=serving.precision == "fp16", gpu=serving.device == "gpu")
        onnx_writer.write(deployed, target, imgsz=serving.imgsz, square=serving.square)

    return Source(
        path=path,
        labels=loaded.labels,
        stride=loaded.stride,
        candidates=partial(reference.table, loaded.network),
        write=write,
    )
