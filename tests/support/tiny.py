"""Models for tests of the servers: they take an image as the real ones do."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from benchmarks import constant_model

CONFIG = """
name: "{name}"
backend: "onnxruntime"
max_batch_size: 4
input [ {{ name: "images" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }} ]
output [ {{ name: "detections" data_type: TYPE_FP32 dims: [ 1000, 6 ] label_filename: "labels.txt" }} ]
dynamic_batching {{ }}
instance_group [ {{ kind: KIND_CPU count: 2 }} ]
parameters [ {{ key: "stride" value: {{ string_value: "32" }} }}, {{ key: "imgsz" value: {{ string_value: "640" }} }} ]
"""


FOUND = ((100.0, 100.0, 200.0, 300.0, 0.9, 0.0), (10.0, 10.0, 90.0, 90.0, 0.5, 1.0))


def write(repository: Path, name: str, graph: onnx.ModelProto | None = None) -> Path:
    """Add a model, the graph `mean` if none is given, as version 1 and return its folder."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG.format(name=name))
    (folder / "labels.txt").write_text("person\nbicycle\n")
    onnx.save(graph or mean(), folder / "1" / "model.onnx")
    return folder


def finder() -> onnx.ModelProto:
    """Answers FOUND for every image."""
    return constant_model.graph(FOUND)


def mean() -> onnx.ModelProto:
    """Answers the mean of an image in every field."""
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=1),
        helper.make_node("Reshape", ["mean", "flat"], ["column"]),
        helper.make_node("Shape", ["images"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "rows"], ["shape"], axis=0),
        helper.make_node("Expand", ["column", "shape"], ["detections"]),
    ]
    constants = {"axes": [1, 2, 3], "flat": [-1, 1, 1], "rows": [1000, 6]}
    tensors = [helper.make_tensor(name, TensorProto.INT64, [len(values)], values) for name, values in constants.items()]
    return model("mean", nodes, tensors)


def model(
    name: str, nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], rows: int | str = 1000
) -> onnx.ModelProto:
    content = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info("detections", TensorProto.FLOAT, ["batch", rows, 6])],
        tensors,
    )
    return helper.make_model(content, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
