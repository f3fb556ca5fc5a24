"""What the tools write into an ONNX file beside its graph: task, names, stride, and whether NMS is inside."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from export.errors import ExportError, shortened
from export.graph.onnx_nodes import before
from export.sources import class_names

TASKS = {
    "segment": "a segmentation model",
    "pose": "a pose model",
    "classify": "a classification model",
    "obb": "a model of rotated boxes",
    "semantic": "a semantic segmentation model",
    "depth": "a depth model",
}
NAMES_OF_TASKS = {  # of other tools
    **{
        "detection": "detect",
        "object detection": "detect",
        "segmentation": "segment",
        "instance segmentation": "segment",
    },
    **{"classification": "classify", "pose estimation": "pose", "keypoint detection": "pose"},
}
SCALING = {"Div", "Mul", "Sub", "Add", "BatchNormalization", "InstanceNormalization", "LayerNormalization"}
UNCHANGING = {"Cast", "Identity", "Transpose"}
DETECTION = "give a detection model"
NMS_OUT = "export it again without NMS (ultralytics: nms=False, end2end=False), or give the .pt"
INSIDE = re.compile("nms|nonmaxsuppression|topk", re.IGNORECASE)  # TensorRT's plugins too; TopK: YOLOv10's own choice


@dataclass(frozen=True, slots=True)
class Metadata:
    """`names` is empty where there are none, and `wrong` says why. `stride` is in pixels, None where not said."""

    names: tuple[str, ...]
    wrong: str
    stride: int | None


def read(model: onnx.ModelProto, path: object) -> Metadata:
    """Raises ExportError for a file that says that it is no detection model, or has NMS inside."""
    entries = {_text(entry.key): _text(entry.value) for entry in model.metadata_props}
    _check(entries, path)
    names: tuple[str, ...] = ()
    wrong = "no class names"
    try:
        if text := entries.get("names", "").strip():
            found = class_names.literal(text)
            if found is None and text not in ("None", "null"):
                raise ValueError(f"its class names cannot be read ({shortened(text, 60)})")
            names = class_names.in_order(found)
    except ValueError as error:
        wrong = str(error)
    return Metadata(names, wrong, _stride(entries.get("stride", "")))


def check_nodes(model: onnx.ModelProto, images: str, output: str, path: object) -> None:
    """Raises ExportError where a node before `output` chooses among the boxes already, or one scales the pixels."""
    graph = model.graph
    if scaling := _scaling(graph, images):
        raise ExportError(
            f"{path} scales the pixels itself (a node {min(scaling)} behind its input), and YOLOv5 takes them "
            "from 0 to 1; export it without that"
        )
    kinds = sorted({graph.node[number].op_type for number in before(graph, output)})
    inside = next((kind for kind in kinds if INSIDE.search(kind)), None)
    if inside is not None:
        raise ExportError(f"{path} has NMS inside (a node {inside} chooses the boxes); {NMS_OUT}")


def _scaling(graph: onnx.GraphProto, images: str) -> set[str]:
    """The kinds of the nodes that compute with the image and constants alone, behind those that change no pixel."""
    constants = {entry.name for entry in graph.initializer}
    constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    found, names = set[str](), {images}
    while names:
        readers = [node for node in graph.node if names & set(node.input)]
        found |= {node.op_type for node in readers if set(node.input) <= names | constants} & SCALING
        names = {name for node in readers if node.op_type in UNCHANGING for name in node.output}
    return found


def _text(value: str | bytes) -> str:
    """protobuf gives bytes for what is no UTF-8."""
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else value


def _check(entries: Mapping[str, str], path: object) -> None:
    task = entries.get("task", "").strip().strip("'\"").lower()
    if task in ("", "none", "null"):
        task = "pose" if entries.get("kpt_shape", "None") not in ("", "None", "null") else "detect"
    task = NAMES_OF_TASKS.get(re.sub(r"[\s_-]+", " ", task), task)
    if task != "detect":
        raise ExportError(f"{path} is {TASKS.get(task, f'a model for the task {task[:40]!r}')}; {DETECTION}")
    arguments = class_names.literal(entries.get("args", ""))
    given = {**(arguments if isinstance(arguments, dict) else {}), **entries}
    for key in ("nms", "end2end"):
        if str(given.get(key, "")).strip().strip("'\"").lower() in ("true", "1", "yes"):
            raise ExportError(f"{path} has NMS inside (its metadata says {key}); {NMS_OUT}")


def _stride(text: str) -> int | None:
    """The largest of the numbers in `32`, `32.0`, `[8, 16, 32]` and `tensor([8., 16., 32.])`."""
    numbers = [int(float(number)) for number in re.findall(r"\d+(?:\.\d*)?", text)]
    return max((number for number in numbers if 0 < number <= 1024), default=None)
