"""A model that costs nothing: it answers the same rows to every image, so what is measured is all that surrounds it."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from export.config import LEAST_ROWS, Serving, config_pbtxt

NAME, IMGSZ, STRIDE = "constant", 640, 32
LABELS = "person\nbicycle\ncar\n"
# Five objects, as a photograph has: x1, y1, x2, y2 in pixels of the input, score, class.
ROWS = (
    (40.0, 60.0, 220.0, 400.0, 0.91, 0.0),
    (300.0, 100.0, 420.0, 380.0, 0.84, 0.0),
    (44.0, 66.0, 214.0, 395.0, 0.71, 0.0),  # the first once more, which NMS drops
    (430.0, 210.0, 600.0, 330.0, 0.66, 2.0),
    (250.0, 220.0, 330.0, 300.0, 0.42, 1.0),
)


def graph(rows: tuple[tuple[float, ...], ...] = ROWS, count: int = LEAST_ROWS) -> onnx.ModelProto:
    """`images` (N, H, W, 3) uint8 to `detections` (N, count, 6) float32: `rows`, and zeros below them."""
    values = [value for row in rows for value in row] + [0.0] * (count - len(rows)) * 6
    nodes = [
        helper.make_node("Shape", ["images"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "ones"], ["shape"], axis=0),
        helper.make_node("Expand", ["rows", "shape"], ["detections"]),
    ]
    tensors = [
        helper.make_tensor("ones", TensorProto.INT64, [2], [1, 1]),
        helper.make_tensor("rows", TensorProto.FLOAT, [1, count, 6], values),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", "height", "width", 3])
    detections = helper.make_tensor_value_info("detections", TensorProto.FLOAT, ["batch", count, 6])
    content = helper.make_graph(nodes, NAME, [images], [detections], tensors)
    return helper.make_model(content, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def write(repository: Path) -> Path:
    """Make a model repository of it, which must not exist; returns the graph's file."""
    folder = repository / NAME / "1"
    folder.mkdir(parents=True)
    serving = Serving(name=NAME, imgsz=IMGSZ, stride=STRIDE, square=False)
    (folder.parent / "config.pbtxt").write_text(config_pbtxt(serving))
    for place in (folder, folder.parent):  # versions before this one have one file for all
        (place / "labels.txt").write_text(LABELS)
    onnx.save(graph(), folder / "model.onnx")
    return folder / "model.onnx"
