"""Whether labels, input size and stride of a config.pbtxt are those of the model's file.

Triton compares none of them: a model with too few labels loads, and fails at the first picture of a class beyond them.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from tritonclient.grpc.model_config_pb2 import ModelConfig

CLASSES, STRIDE = "deployed_classes", "deployed_stride"  # keys of metadata; an ONNX file may bring its own `stride`
LEAST_STRIDE = 32  # of an input with free sides: YOLOv5's max(stride, 32)


@dataclass(frozen=True, slots=True)
class Facts:
    """What an ONNX file says of itself; None where it does not."""

    classes: int | None
    stride: int | None


@dataclass(frozen=True, slots=True)
class Mistake:
    """What does not fit together, and what comes of it."""

    title: str
    what: str
    why: str


def state(path: Path, facts: Facts) -> None:
    """Write them into a finished ONNX file, without reading it: a message that is appended to another is merged."""
    said = onnx.ModelProto()
    onnx.helper.set_model_props(said, {CLASSES: str(facts.classes), STRIDE: str(facts.stride)})
    with path.open("ab") as file:
        file.write(said.SerializeToString())


def of(model: onnx.ModelProto) -> Facts:
    """From the metadata of this exporter or of YOLOv5's tools, else the deployed head, else the output's shape."""
    said = {entry.key: entry.value for entry in model.metadata_props if isinstance(entry.value, str)}  # else no UTF-8
    stride, classes = said.get(STRIDE) or said.get("stride", ""), said.get(CLASSES, "")
    return Facts(
        int(classes) if classes.isdecimal() else _names(said) or _of_head(model) or _of_table(model),
        int(stride) if stride.isdecimal() else None,
    )


def mistakes(config: ModelConfig, labels: Sequence[str] | None, facts: Facts) -> Iterator[Mistake]:
    """`labels` are the lines of the label file; None where the config names none, or it is not there."""
    if labels is None:
        yield Mistake("labels", "there is no label file", "The gateway refuses a model without class names.")
    elif facts.classes is not None and len(labels) != facts.classes:
        what = f"{len(labels)} in {label_file(config)}, and the graph has {facts.classes} classes"
        yield Mistake("labels", what, "Tasks fail that find a class without a label, or get labels of another model.")
    elif not all(label.strip() for label in labels):
        line = next(number for number, label in enumerate(labels, 1) if not label.strip())
        what = f"line {line} of {label_file(config)} is empty"
        yield Mistake("labels", what, "Detections of that class have no name.")
    yield from _size(config, facts)


def label_file(config: ModelConfig) -> str:
    return str(next((output.label_filename for output in config.output if output.label_filename), ""))


def _size(config: ModelConfig, facts: Facts) -> Iterator[Mistake]:
    given = {key: config.parameters[key].string_value for key in ("imgsz", "stride") if key in config.parameters}
    numbers = {key: int(text) for key, text in given.items() if text.isdecimal() and int(text)}
    sides = list(config.input[0].dims)[-3:-1] if config.input else []
    fixed = [int(side) for side in sides if side > 0]
    for key in ("stride",) if fixed and "imgsz" not in given else ("imgsz", "stride"):
        if key not in numbers:
            what = f"the parameter {key} is {given[key]!r}" if key in given else f"the parameter {key} is missing"
            yield Mistake(key, what, "The gateway reads the model's input from it, and refuses the model.")
    if len(numbers) < 2:
        return
    imgsz, stride = numbers["imgsz"], numbers["stride"]
    if fixed and max(fixed) != imgsz:
        yield Mistake("imgsz", f"{imgsz}, and dims say {max(fixed)}", "The dims count; whoever reads imgsz is misled.")
    elif imgsz % stride:
        what = f"{imgsz} is no multiple of the stride {stride}"
        yield Mistake("imgsz", what, "Pictures get sides that the model cannot take.")
    least = max(facts.stride or 0, LEAST_STRIDE)
    if not fixed and stride % least:
        what = f"{stride}, and the model needs multiples of {least}"
        yield Mistake("stride", what, "Pictures of some shapes fail.")


def _names(said: dict[str, str]) -> int | None:
    try:
        found = ast.literal_eval(said.get("names", ""))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return len(found) if isinstance(found, dict | list | tuple) and found else None


def _of_head(model: onnx.ModelProto) -> int | None:
    """Of a graph that this exporter wrote: outputs of the convolutions, boxes and classes of each anchor."""
    outputs = {entry.name: int(entry.dims[0]) for entry in model.graph.initializer if entry.dims}
    boxes, classes = (outputs.get(f"head.logits.{kind}.0.bias") for kind in ("boxes", "classes"))
    if not boxes or not classes:
        return None
    return classes // (boxes // 5) if boxes % 5 == 0 else classes


def _of_table(model: onnx.ModelProto) -> int | None:
    """Of YOLOv5's own output, (B, N, 5 + classes), or ultralytics', (B, 4 + classes, N)."""
    sides = model.graph.output[0].type.tensor_type.shape.dim if model.graph.output else []
    if len(sides) != 3 or {output.name for output in model.graph.output} == {"detections"}:
        return None
    middle, last = int(sides[1].dim_value), int(sides[2].dim_value)
    if middle and last:
        return last - 5 if middle > last else middle - 4
    return None
