"""What a config.pbtxt and an ONNX file declare.

ONNX Runtime adds what it infers of the rest of a graph, newer releases more than older ones. A shape that the file
declares is the same in all of them.
"""

from collections.abc import Iterable
from typing import Any

import onnx
from google.protobuf import json_format, text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import ModelConfig

from export.contract import Graph, Tensor

# Names that differ from those of model_config.proto.
_NAMES = {"FLOAT": "FP32", "FLOAT16": "FP16", "DOUBLE": "FP64", "BFLOAT16": "BF16"}


def parse(config_pbtxt: str) -> ModelConfig:
    """The config as Triton reads it; raises google.protobuf.text_format.ParseError."""
    return text_format.Parse(config_pbtxt, ModelConfig())


def as_json(config_pbtxt: str) -> dict[str, Any]:
    """The same as JSON, with the field names of model_config.proto."""
    return message_as_json(parse(config_pbtxt))


def message_as_json(config: ModelConfig) -> dict[str, Any]:
    """A config as `as_json` gives it."""
    found: dict[str, Any] = json_format.MessageToDict(config, preserving_proto_field_name=True)
    return found


def graph_of(model: onnx.ModelProto) -> Graph:
    """The inputs and outputs that it declares."""
    found = model.graph
    weights = {entry.name for entry in found.initializer}
    return Graph(_tensors(entry for entry in found.input if entry.name not in weights), _tensors(found.output))


def _tensors(values: Iterable[onnx.ValueInfoProto]) -> tuple[Tensor, ...]:
    return tuple(_tensor(value) for value in values)


def _tensor(value: onnx.ValueInfoProto) -> Tensor:
    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    sides = value.type.tensor_type.shape.dim
    shape = tuple(side.dim_value if side.HasField("dim_value") else -1 for side in sides)
    return Tensor(value.name, f"TYPE_{_NAMES.get(kind, kind)}", shape)
