"""Does an exported model answer as its source does? PyTorch, ONNX Runtime and Triton on the same images.

How answers are compared is in `comparison`.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from export.comparison import Comparison, Image, Rows, Table, Tolerance, Truth, compare, threshold
from export.config import Format, Precision
from export.errors import VerificationError
from gateway.vision.letterbox import letterbox

Answer = Callable[[Image], Rows]  # RGB uint8 (H, W, 3), letterboxed → candidates float32 (K, 6) in any order
Source = Callable[[Image], Table]  # the same → every candidate, float32 (N, 4 + classes)

MOST_IMAGES = 10


TOLERANCES: Mapping[tuple[Format, Precision], Tolerance] = {
    ("onnx", "fp32"): Tolerance(iou=0.99, score=0.005),
    ("onnx", "fp16"): Tolerance(iou=0.96, score=0.02, pixels=0.25),
    ("tensorrt", "fp32"): Tolerance(iou=0.98, score=0.01, pixels=0.1),  # TF32
    ("tensorrt", "fp16"): Tolerance(iou=0.96, score=0.02, pixels=0.25),
}
HALF = {TOLERANCES["onnx", "fp16"], TOLERANCES["tensorrt", "fp16"]}


class Check:
    """Compares runtimes with the source's answers to `inputs`, letterboxed images by name.

    Raises VerificationError when the source itself answers with anything but finite numbers.
    """

    def __init__(self, expected: Source, inputs: Mapping[str, Image]) -> None:
        self._inputs = inputs
        self._truth = [Truth(partial(expected, image)) for image in inputs.values()]
        if bad := self._not_finite([truth.rows for truth in self._truth]):
            raise VerificationError(
                f"the model itself answers {bad} with NaN or infinite numbers: its weights are damaged, or training "
                "diverged; give another checkpoint"
            )
        self._confidence = threshold([truth.rows for truth in self._truth])
        self._found: dict[str, dict[str, Any]] = {}
        self._bytes_out = 0

    def __call__(self, runtime: str, answer: Answer, tolerance: Tolerance) -> Comparison:
        """Raises VerificationError when `answer` is beyond `tolerance`."""
        answers = [answer(image) for image in self._inputs.values()]
        self._bytes_out = answers[0].nbytes
        if bad := self._not_finite(answers):
            raise VerificationError(
                f"{runtime} answers {bad} with NaN or infinite numbers, the checkpoint does not"
                f"{self._half(tolerance)}; nothing was published"
            )
        found = compare(list(zip(self._truth, answers, strict=True)), tolerance, self._confidence)
        if found.differs(tolerance):
            raise VerificationError(
                f"{runtime} does not answer as the checkpoint does: {found.summary()} (asked: IoU {tolerance.iou}, "
                f"score {tolerance.score}, centres {tolerance.pixels} pixels)"
                f"{self._half(tolerance)}; nothing was published"
            )
        self._found[runtime] = {**asdict(found), "tolerance": asdict(tolerance)}
        return found

    def _half(self, tolerance: Tolerance) -> str:
        return "; half precision changes it, leave PRECISION=fp16 away" if tolerance in HALF else ""

    def _not_finite(self, answers: Sequence[Rows]) -> str:
        """The first image whose answer has a number that is none; empty where there is none."""
        named = zip(self._inputs, answers, strict=True)
        return next((repr(name) for name, rows in named if not np.isfinite(rows).all()), "")

    def findings(self) -> dict[str, Any]:
        """What verify.json keeps."""
        sizes = [image.nbytes for image in self._inputs.values()]
        return {
            "confidence": self._confidence,
            "images": list(self._inputs),
            "bytes_in_per_image": round(sum(sizes) / len(sizes)),
            "bytes_out_per_image": self._bytes_out,
            "answers": self._found,
        }


def inputs(size_hw: tuple[int, int], stride: int, fixed: bool) -> dict[str, Image]:
    """Letterboxed images by name: those of YOLO_SHARED/images, else ultralytics' samples, and always drawings.

    `size_hw` is height and width in pixels, the largest unless `fixed`. Free sides get drawings with a side of one
    stride and of three: a network that cannot take every shape shows it there.
    """
    folders = [Path(os.environ.get("YOLO_SHARED") or "../shared") / "images"]
    ultralytics = find_spec("ultralytics")  # only its folder: importing it takes seconds
    if ultralytics is not None and ultralytics.origin is not None:
        folders.append(Path(ultralytics.origin).parent / "assets")
    files = next((found for folder in folders if (found := sorted(filter(Path.is_file, folder.glob("*.jpg"))))), [])
    images = {"drawing": drawing(), "drawing, upright": np.rot90(drawing()).copy()}
    for side in () if fixed else (stride, 3 * stride):
        strip = cv2.resize(drawing(), (max(size_hw), side))
        images[f"drawing, {side} high"] = np.asarray(strip, np.uint8)
        images[f"drawing, {side} wide"] = np.rot90(np.asarray(strip, np.uint8)).copy()
    for file in files[:MOST_IMAGES]:
        image = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
        if image is not None:
            images[file.name] = np.asarray(image, np.uint8)
    return {name: letterbox(image, size_hw=size_hw, stride=stride, fixed=fixed)[0] for name, image in images.items()}


def drawing() -> Image:
    """Coloured discs, boxes and triangles on noise, RGB uint8 (480, 640, 3); always the same."""
    random = np.random.default_rng(0)
    canvas = random.integers(90, 130, (480, 640, 3), np.uint8)
    for i in range(9):
        x, y = 110 + i % 3 * 210, 80 + i // 3 * 160
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        if i % 3 == 0:
            cv2.circle(canvas, (x, y), 55, colour, -1)
        elif i % 3 == 1:
            cv2.rectangle(canvas, (x - 60, y - 45), (x + 60, y + 45), colour, -1)
        else:
            corners = np.array([[x, y - 55], [x - 60, y + 50], [x + 60, y + 50]], np.int32)
            cv2.fillPoly(canvas, [corners], colour)
    return canvas


def check_batches(
    answer_batch: Callable[[Image], Rows], images: Mapping[str, Image], largest: int, tolerance: Tolerance
) -> None:
    """A batch must answer as its images do one by one. `answer_batch` takes (B, H, W, 3) and gives (B, K, 6).

    Raises VerificationError when it does not. NaN, which is no answer at all, is left to Check.
    """
    image = next(iter(images.values()))
    batch = np.stack([image, image[:, ::-1]] * ((min(largest, 4) + 1) // 2))[: min(largest, 4)]
    together = answer_batch(batch)
    for i, one in enumerate(batch):
        alone, scores = answer_batch(one[None])[0], together[i, :, 4]
        if (np.abs(scores - alone[:, 4]) > tolerance.score_of(np.maximum(scores, alone[:, 4]))).any():
            raise VerificationError(
                f"image {i + 1} of a batch of {len(batch)} is not answered as it is alone; not published"
            )
