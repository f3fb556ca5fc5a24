"""ONNX files that yolov5's export.py or ultralytics wrote: float images in, every candidate out.

The file keeps its own nodes. The uint8 input is put before them, the choice of the best rows behind them.
"""

import ast
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from export.errors import ExportError
from export.graph import around_onnx
from export.graph.around_onnx import Layout, Signature
from export.graph.session import Session
from export.sources.checkpoint import label_names
from export.sources.source import Source, least_stride

Rows = npt.NDArray[np.float32]

AGAIN = "export it again with yolov5's export.py or with ultralytics, or give the .pt"


def load(path: Path) -> Source:
    """Raises ExportError for a file that is no ONNX, or has not the inputs, outputs and names of a YOLOv5 detector."""
    model = _read(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    signature = _signature(model, path)
    names = _literal(metadata.get("names", ""))
    count = len(names) if isinstance(names, dict | list | tuple) else 0
    labels = label_names(names, count, path, AGAIN)
    stride = int(metadata["stride"]) if metadata.get("stride", "").isdecimal() else 32
    if signature.size is None:
        stride = least_stride(stride)
    session = Session(path)
    raw = partial(_raw, session, signature)
    size = signature.size or stride * 4
    layout = _layout(raw(np.zeros((size, size, 3), np.uint8)).shape, count, path)
    free = signature.batch is None or _free_batch(model, signature, size)
    if not free and signature.batch != 1:
        raise ExportError(f"{path} takes {signature.batch} images at a time, never fewer; export it with --dynamic")
    return Source(
        path=path,
        labels=labels,
        stride=stride,
        candidates=lambda image: _table(raw(image), layout),
        write=lambda target, serving: around_onnx.write(model, signature, layout, target, serving),
        fixed_size=signature.size,
        one_image=not free,
        fixed_precision="fp16" if signature.half else "fp32",
    )


def _read(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ExportError(f"{path} is no ONNX file, or a damaged one; {AGAIN}") from error
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}") from error
    return model


def _signature(model: onnx.ModelProto, path: Path) -> Signature:
    weights = {entry.name for entry in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in weights]
    kinds = {onnx.TensorProto.FLOAT: False, onnx.TensorProto.FLOAT16: True}
    shape = _shape(inputs[0]) if inputs else []
    kind = inputs[0].type.tensor_type.elem_type if inputs else None
    if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or kind not in kinds:
        raise ExportError(f"{path} does not take one float image (B, 3, H, W), as YOLOv5 does; {AGAIN}")
    if not model.graph.output or len(_shape(model.graph.output[0])) != 3:
        raise ExportError(f"{path} does not give one table of candidates, as YOLOv5 without NMS does; {AGAIN}")
    batch, _, height, width = shape
    if height != width:
        raise ExportError(
            f"{path} takes {height}x{width} images only; export it with a square size, or with a free one"
        )
    return Signature(inputs[0].name, model.graph.output[0].name, kinds[kind], height or None, batch or None)


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    """0 is a free dimension."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def _literal(text: str) -> object:
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    return value


def _layout(shape: Sequence[int], classes: int, path: Path) -> Layout:
    if shape[2] == 5 + classes:
        return "original"
    if shape[1] == 4 + classes:
        return "ultralytics"
    raise ExportError(
        f"{path} gives {tuple(shape)} for {classes} classes, neither (1, N, {5 + classes}) nor "
        f"(1, {4 + classes}, N); {AGAIN}"
    )


def _raw(session: Session, signature: Signature, image: npt.NDArray[np.uint8]) -> Rows:
    kind = np.float16 if signature.half else np.float32
    pixels = (image.astype(np.float32) / 255).astype(kind).transpose(2, 0, 1)
    batch = np.stack([pixels] * (signature.batch or 1))
    return session.run(signature.output, {signature.input: batch})[:1].astype(np.float32)


def _table(raw: Rows, layout: Layout) -> Rows:
    """The file's own answer as rows x1, y1, x2, y2, the score of each class."""
    table = raw[0] if layout == "original" else raw[0].T
    classes = table[:, 4:5] * table[:, 5:] if layout == "original" else table[:, 4:]
    half = table[:, 2:4] / 2
    return np.concatenate([table[:, :2] - half, table[:, :2] + half, classes], 1).astype(np.float32)


def _free_batch(model: onnx.ModelProto, signature: Signature, size: int) -> bool:
    """Make the batch of `model` free where its nodes allow it: reshapes copy it from their input instead of naming it.

    Returns whether a batch of two then answers as its images do; if not, `model` is left as it was.
    """
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    moving = {signature.input}  # what depends on the image, and so has its batch in front
    constants = {entry.name: entry for entry in freed.graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in freed.graph.node if node.op_type == "Constant"}
    for number, node in enumerate(freed.graph.node):
        if moving.isdisjoint(node.input):
            continue
        moving.update(node.output)
        if node.op_type == "Reshape" and node.input[1] in constants:
            shape = onnx.numpy_helper.to_array(constants[node.input[1]]).copy()
            if shape.ndim == 1 and len(shape) > 1 and shape[0] == signature.batch:
                shape[0] = 0
                node.input[1] = f"free_batch_{number}"
                freed.graph.initializer.append(onnx.numpy_helper.from_array(shape, node.input[1]))
    for value in (*freed.graph.input, *freed.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del freed.graph.value_info[:]
    image = np.random.default_rng(0).random((2, 3, size, size), np.float32)
    batch = image.astype(np.float16 if signature.half else np.float32)
    try:
        session = Session(freed)
        together = session.run(signature.output, {signature.input: batch})
        alone = [session.run(signature.output, {signature.input: batch[i : i + 1]})[0] for i in range(2)]
    except ExportError:
        return False
    if together.shape[0] != 2 or not np.allclose(together, np.stack(alone), rtol=1e-2, atol=1e-2):
        return False
    model.CopyFrom(freed)
    return True
