"""The file that a user names → what an export starts from."""

from functools import partial
from pathlib import Path

from export.config import Serving
from export.errors import ExportError
from export.graph import onnx_writer
from export.graph.deployed import Deployed
from export.sources import checkpoint, kinds, onnx_file, reference
from export.sources.layers import AnchorHead, Network
from export.sources.source import Source


def open_source(path: Path, names: tuple[str, ...] | None = None) -> Source:
    """A checkpoint of either format, or an ONNX file of either tool, by its content; `names` count instead of its own.

    Raises ExportError for anything else.
    """
    try:
        is_onnx = kinds.is_onnx(path)
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror or error}") from error
    if is_onnx:
        return onnx_file.load(path, names)
    loaded = checkpoint.load(path, names)

    def write(target: Path, serving: Serving) -> None:
        half, gpu = serving.precision == "fp16", serving.device == "gpu"
        deployed = Deployed(loaded.network, half=half, gpu=gpu, rows=serving.rows)
        onnx_writer.write(deployed, target, size_hw=serving.size_hw, fixed=serving.fixed)

    return Source(
        path=path,
        labels=loaded.labels,
        stride=loaded.stride,
        density=density(loaded.network),
        candidates=partial(reference.table, loaded.network),
        write=write,
    )


def density(network: Network) -> float:
    """Candidates a pixel of the input: those of a cell of each level."""
    anchors = network.head.na if isinstance(network.head, AnchorHead) else 1
    return sum(anchors / float(stride) ** 2 for stride in network.head.stride)
