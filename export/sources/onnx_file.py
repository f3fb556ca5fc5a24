"""ONNX files that yolov5's export.py or ultralytics wrote: float images in, every candidate out.

The file keeps its own nodes. The uint8 input is put before them, the choice of the best rows behind them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from export.errors import ExportError
from export.graph import around_onnx
from export.graph.around_onnx import Layout, Signature
from export.graph.free_batch import freed
from export.graph.onnx_nodes import opset, tidy, upgrade
from export.graph.session import Session
from export.sources import kinds, onnx_layout, onnx_metadata
from export.sources.onnx_layout import AGAIN, Answer
from export.sources.source import Source, least_stride

Rows = npt.NDArray[np.float32]
Run = Callable[[npt.NDArray[np.uint8]], Rows]

MOST_BYTES = (1 << 31) - 1  # of a protobuf message, and so of an ONNX file in one piece


def load(path: Path, names: tuple[str, ...] | None = None) -> Source:
    """`names` count instead of those in the file.

    Raises ExportError for a file that is no ONNX, or lacks the inputs, outputs or names of a YOLOv5 detector.
    """
    model = _read(path)
    metadata = onnx_metadata.read(model, path)
    signature = _signature(model, path)
    onnx_metadata.check_nodes(model, signature.input, signature.output, path)
    try:
        tidy(model, signature.output)
        raw = partial(_raw, Session(path), signature)
        stride, answers = _answers(raw, signature, metadata.stride or 32)
        labels = names or metadata.names
        layout, count = onnx_layout.decide(answers, len(labels) or None, path)
        if not labels:
            given = "NAMES=name,name,... or NAMES=data.yaml"
            raise ExportError(f"{path}: {metadata.wrong}; give the names of its {count} classes with {given}")
        onnx_layout.check_values(answers[-1], layout, path)
        model = upgrade(model)
        free = freed(model, signature.input, signature.output, _images(signature, answers[-1].size_hw))
    except ExportError as error:
        if str(path) in str(error):
            raise
        raise ExportError(f"{path}: {error}; {AGAIN}") from error
    if free is None and signature.batch not in (None, 1):
        raise ExportError(
            f"{path} takes {signature.batch} images at a time, never fewer; export it with --dynamic, or with a batch "
            "of 1"
        )
    return Source(
        path=path,
        labels=labels,
        stride=stride,
        density=onnx_layout.density(answers[-1], layout),
        candidates=lambda image: _table(raw(image), layout),
        write=lambda target, serving: around_onnx.write(free or model, signature, layout, target, serving),
        fixed_hw=signature.size_hw,
        one_image=free is None,
        fixed_precision="fp16" if signature.half or _computes_in_half(model) else "fp32",
    )


def _read(path: Path) -> onnx.ModelProto:
    damaged = f"{path} is no ONNX file, or a damaged one; {AGAIN}"
    try:
        model = onnx.load(str(path), load_external_data=False)
        onnx.load_external_data_for_model(model, str(path.parent))
    except DecodeError as error:
        raise ExportError(_what(path) or damaged) from error
    except (onnx.checker.ValidationError, FileNotFoundError) as error:
        if not path.is_file():
            raise ExportError(f"{path} cannot be read: there is no such file") from error
        raise ExportError(
            f"{path} has weights in a file of its own, which is not beside it; put both into one folder"
        ) from error
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not model.graph.node:
        raise ExportError(_what(path) or damaged)
    if opset(model) > onnx.defs.onnx_opset_version() or model.ir_version > onnx.IR_VERSION:
        raise ExportError(
            f"{path} is of a newer ONNX (opset {opset(model)}, IR version {model.ir_version}) than is known here; "
            "export it again with opset=17"
        )
    if model.ByteSize() > MOST_BYTES:
        raise ExportError(f"{path} has more than 2 GB, which no ONNX file in one piece can have; give a smaller model")
    return model


def _what(path: Path) -> str | None:
    """What a file is that has the name of an ONNX file and is surely another; None where it may be a damaged one."""
    what = kinds.of_file(path)
    return None if what is None or what == kinds.ONNX_FILE or "no PyTorch checkpoint" in what else f"{path} is {what}"


def _signature(model: onnx.ModelProto, path: Path) -> Signature:
    weights = {entry.name for entry in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in weights]
    kinds = {onnx.TensorProto.FLOAT: False, onnx.TensorProto.FLOAT16: True}
    shape = _shape(inputs[0]) if inputs else []
    kind = inputs[0].type.tensor_type.elem_type if inputs else 0
    if len(inputs) != 1 or len(shape) != 4 or shape[1] not in (3, 0) or kind not in kinds:
        said = ", ".join(_text(entry) for entry in inputs[:3]) or "nothing"
        ours = "images" in said and "detections" in (entry.name for entry in model.graph.output)
        what = "it was exported for Triton already: give what it was made of" if ours else AGAIN
        raise ExportError(f"{path} does not take one float image (B, 3, H, W), as YOLOv5 does, but {said}; {what}")
    batch, _, height, width = shape
    output = _output(list(model.graph.output), path)
    return Signature(inputs[0].name, output, kinds[kind], (height or None, width or None), batch or None)


def _output(outputs: list[onnx.ValueInfoProto], path: Path) -> str:
    """The table of candidates: the only output, or the first in files that give the maps of the levels too."""
    ranks = [len(_shape(entry)) for entry in outputs]
    if 3 in ranks and ranks.count(4) == 1:
        raise ExportError(f"{path} is a segmentation model (it gives masks too); give a detection model")
    unknown = [entry for entry in outputs if not entry.type.tensor_type.HasField("shape")]
    table = outputs[ranks.index(3)] if 3 in ranks else unknown[0] if unknown else None
    if table is None:
        said = ", ".join(_text(entry) for entry in outputs[:3]) or "nothing"
        raise ExportError(
            f"{path} does not give one table of candidates, as YOLOv5 without NMS does, but {said}; {AGAIN}"
        )
    return str(table.name)


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    """0 is a free dimension."""
    return [max(dimension.dim_value, 0) for dimension in value.type.tensor_type.shape.dim]


def _text(value: onnx.ValueInfoProto) -> str:
    """An input or output for a reader."""
    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return f"{value.name}: {kind} ({', '.join(str(side or '?') for side in _shape(value))})"


def _answers(raw: Run, signature: Signature, told: int) -> tuple[int, list[Answer]]:
    """The stride, and the answers to noise of the file's size, or where that is free, of two sizes.

    A network runs with odd multiples of its stride, and not with those of half of it.
    """
    height, width = signature.size_hw
    if height or width:
        return told, [_answer(raw, (height or width or 0, width or height or 0))]
    stride = least_stride(told)
    while True:
        try:
            answers = [_answer(raw, (stride * rows, stride * columns)) for rows, columns in ((4, 4), (5, 7))]
        except ExportError:
            if stride > 64:
                raise
            stride *= 2
        else:
            return stride, answers


def _answer(raw: Run, size_hw: tuple[int, int]) -> Answer:
    table = raw(np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8))
    if table.ndim != 3:
        raise ExportError(f"it gives {table.shape}, not one table of candidates as YOLOv5 without NMS does; {AGAIN}")
    return Answer(table, size_hw)


def _images(signature: Signature, size_hw: tuple[int, int]) -> npt.NDArray[np.floating]:
    """Noise as the file takes it, (3, 3, H, W) from 0 to 1."""
    kind = np.float16 if signature.half else np.float32
    return np.random.default_rng(0).random((3, 3, *size_hw), np.float32).astype(kind)


def _computes_in_half(model: onnx.ModelProto) -> bool:
    """Whether the convolutions' weights are float16, whatever the input is."""
    half = onnx.TensorProto.FLOAT16
    return any(entry.data_type == half and len(entry.dims) == 4 for entry in model.graph.initializer)


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
