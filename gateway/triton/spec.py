"""What Triton says of a model: its `config.pbtxt` and `labels.txt` are the only source of every fact."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult

from gateway.errors import ModelMismatch

INPUT, OUTPUT = "images", "detections"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One version of a served model.

    `size_hw` is the height and width of its input in pixels, the largest where it is not `fixed`.
    """

    name: str
    version: str
    size_hw: tuple[int, int]
    stride: int
    fixed: bool
    labels: tuple[str, ...]
    max_batch_size: int = 1

    @property
    def input(self) -> tuple[tuple[int, int], int, bool]:
        """What the letterbox of an image depends on."""
        return self.size_hw, self.stride, self.fixed

    @property
    def image_bytes(self) -> int:
        """What the largest letterboxed image takes."""
        height, width = (-(-side // self.stride) * self.stride for side in self.size_hw)
        return 3 * height * width


def image_tensor(image: np.ndarray[Any, np.dtype[np.uint8]]) -> InferInput:
    """A batch of one, from an RGB uint8 (height, width, 3) image."""
    tensor = InferInput(INPUT, [1, *image.shape], "UINT8")
    tensor.set_data_from_numpy(image[None])
    return tensor


def label_question(size_hw: tuple[int, int]) -> tuple[list[InferInput], list[InferRequestedOutput]]:
    """Inputs and outputs of the inference whose answer tells the labels.

    Triton's classification extension gives value:index:label for each element of an output, with labels.txt's labels:
    https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_classification.md
    """
    blank = np.zeros((*size_hw, 3), np.uint8)
    return [image_tensor(blank)], [InferRequestedOutput(OUTPUT, class_count=1 << 20)]


def image_size(name: str, config: Any) -> tuple[int, int]:
    """Height and width of the model's input in pixels, the largest where the sides are free.

    Raises ModelMismatch when `export` did not write the config.
    """
    inputs = {entry.name for entry in config.input}
    if inputs != {INPUT} or OUTPUT not in {entry.name for entry in config.output}:
        raise ModelMismatch(f"model {name} must have the input {INPUT} and the output {OUTPUT}; export it again")
    sides = [int(side) for side in config.input[0].dims[-3:-1]]
    if len(sides) == 2 and min(sides) > 0:
        return sides[0], sides[1]
    imgsz = _parameter(name, config, "imgsz")
    return imgsz, imgsz


def read_spec(name: str, config: Any, answer: InferResult) -> ModelSpec:
    """The spec from a ModelConfig message and the answer to `label_question`. Raises ModelMismatch."""
    rows = [entry.decode().split(":", 2) for entry in answer.as_numpy(OUTPUT).ravel()]
    labels = {int(row[1]): row[2] for row in rows if len(row) == 3}
    if sorted(labels) != list(range(len(labels))) or not labels:
        raise ModelMismatch(f"model {name} has no usable labels.txt; export it again")
    return ModelSpec(
        name=name,
        version=answer.get_response().model_version,
        size_hw=image_size(name, config),
        stride=_parameter(name, config, "stride"),
        fixed=all(side > 0 for side in config.input[0].dims),
        labels=tuple(labels[index] for index in range(len(labels))),
        max_batch_size=config.max_batch_size,
    )


def _parameter(name: str, config: Any, key: str) -> int:
    given = config.parameters[key].string_value if key in config.parameters else ""
    if not given.isdecimal() or int(given) < 1:
        what = f"has {given!r} as" if given else "lacks"
        raise ModelMismatch(f"config.pbtxt of {name} {what} the parameter {key}; export the model again")
    return int(given)
