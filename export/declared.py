"""The inputs and outputs that an ONNX file declares.

ONNX Runtime adds what it infers of the rest of the graph, newer releases more than older ones. A shape that the file
declares is the same in all of them.
"""

from collections.abc import Iterable
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from export.contract import Graph, Tensor
from export.errors import ExportError

# Names that differ from those of model_config.proto.
_NAMES = {"FLOAT": "FP32", "FLOAT16": "FP16", "DOUBLE": "FP64", "BFLOAT16": "BF16"}


def read(path: Path) -> Graph:
    """Raises ExportError for a file that is no ONNX."""
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise ExportError(f"{path} is no ONNX file, or a damaged one") from error
    weights = {entry.name for entry in graph.initializer}
    return Graph(_tensors(entry for entry in graph.input if entry.name not in weights), _tensors(graph.output))


def _tensors(values: Iterable[onnx.ValueInfoProto]) -> tuple[Tensor, ...]:
    return tuple(_tensor(value) for value in values)


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    sides = value.type.tensor_type.shape.dim
    shape = tuple(side.dim_value if side.HasField("dim_value") else -1 for side in sides)
    return Tensor(value.name, f"TYPE_{_NAMES.get(kind, kind)}", shape)
