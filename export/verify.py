"""Does an exported model answer as its source does? PyTorch, ONNX Runtime and Triton on the same images.

Compared are the boxes that each side keeps after NMS with the other side's candidates. So an overlap that is exactly
on the threshold of NMS is no difference, and every box that a user would see has been looked at from both sides.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from export.config import LEAST_ROWS, MOST_ROWS, Format, Precision
from export.errors import VerificationError
from gateway.vision.letterbox import letterbox
from gateway.vision.nms import nms

Image = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]
Answer = Callable[[Image], Rows]  # RGB uint8 (H, W, 3), letterboxed → candidates float32 (N, 6) in any order

CONFIDENCE = 0.25
ENOUGH = 10  # boxes; where a model sees fewer, weaker candidates are compared
MOST_IMAGES = 10
SAME_PIXELS = 0.05  # boxes this near are the same, however small: the IoU of a speck is mostly rounding


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Least IoU of two boxes that are the same, and largest difference of their scores (less for scores below 0.25)."""

    iou: float
    score: float


TOLERANCES: Mapping[tuple[Format, Precision], Tolerance] = {
    ("onnx", "fp32"): Tolerance(iou=0.99, score=0.005),
    ("onnx", "fp16"): Tolerance(iou=0.96, score=0.02),
    ("tensorrt", "fp32"): Tolerance(iou=0.98, score=0.01),  # TF32
    ("tensorrt", "fp16"): Tolerance(iou=0.96, score=0.02),
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two answers to the same images compare. IoU and score difference are over the boxes that have a partner."""

    matched: int
    unmatched: int
    smallest_iou: float
    largest_score_difference: float

    def summary(self) -> str:
        lost = f", {self.unmatched} WITHOUT A PARTNER" if self.unmatched else ""
        return (
            f"{self.matched} boxes matched{lost}, smallest IoU {self.smallest_iou:.4f}, "
            f"largest score difference {self.largest_score_difference:.5f}"
        )


class Check:
    """Compares runtimes with the source's answers to `inputs`, letterboxed images by name."""

    def __init__(self, expected: Answer, inputs: Mapping[str, Image]) -> None:
        self._inputs = inputs
        self._truth = [expected(image) for image in inputs.values()]
        self._confidence = threshold(self._truth)
        self._found: dict[str, dict[str, Any]] = {}

    def __call__(self, runtime: str, answer: Answer, tolerance: Tolerance) -> Comparison:
        """Raises VerificationError when `answer` is beyond `tolerance`."""
        answers = [answer(image) for image in self._inputs.values()]
        found = compare(list(zip(self._truth, answers, strict=True)), tolerance, self._confidence)
        if found.unmatched or not found.matched:
            raise VerificationError(
                f"{runtime} does not answer as the checkpoint does: {found.summary()} (asked: IoU {tolerance.iou}, "
                f"score {tolerance.score}); nothing was published"
            )
        self._found[runtime] = {**asdict(found), "tolerance": asdict(tolerance)}
        return found

    def findings(self) -> dict[str, Any]:
        """What verify.json keeps."""
        sizes = [image.nbytes for image in self._inputs.values()]
        return {
            "confidence": self._confidence,
            "images": list(self._inputs),
            "bytes_in_per_image": round(sum(sizes) / len(sizes)),
            "bytes_out_per_image": LEAST_ROWS * 6 * 4,
            "answers": self._found,
        }


def threshold(truth: Sequence[Rows]) -> float:
    """The highest confidence at which there are enough boxes to compare."""
    for confidence in (CONFIDENCE, 0.05, 0.01, 0.001):
        if sum(len(_seen(rows, confidence)) for rows in truth) >= ENOUGH:
            return confidence
    return 0.0


def compare(pairs: Sequence[tuple[Rows, Rows]], tolerance: Tolerance, confidence: float) -> Comparison:
    """Compare pairs of candidates, float32 (N, 6), of the same images."""
    ious, differences, unmatched = [1.0], [0.0], 0
    for expected, got in pairs:
        weakest = got[-1, 4] * 1.02 if len(got) >= LEAST_ROWS else 0.0  # weaker ones are cut off, not lost
        for boxes, candidates in ((_seen(expected, confidence), got), (_seen(got, confidence), expected)):
            for box in boxes[boxes[:, 4] > weakest]:
                iou, difference = _partner(box, candidates, tolerance)
                allowed = tolerance.score * min(1.0, float(box[4]) / CONFIDENCE)
                if iou < tolerance.iou or difference > allowed:
                    unmatched += 1
                else:
                    ious.append(iou)
                    differences.append(difference)
    return Comparison(len(ious) - 1, unmatched, min(ious), max(differences))


def _seen(rows: Rows, confidence: float) -> Rows:
    best = np.argsort(-rows[:, 4], kind="stable")[:MOST_ROWS]
    return nms(rows[best], confidence=confidence)[:100]


def _partner(box: Rows, candidates: Rows, tolerance: Tolerance) -> tuple[float, float]:
    """IoU and score difference of the candidate that matches `box`; (0, 1) when none has its class."""
    same = candidates[(candidates[:, 5] == box[5]) & (candidates[:, 4] > 0)]
    if not len(same):
        return 0.0, 1.0
    overlap = np.clip(np.minimum(same[:, 2:4], box[2:4]) - np.maximum(same[:, :2], box[:2]), 0, None).prod(1)
    areas = (same[:, 2:4] - same[:, :2]).prod(1) + (box[2:4] - box[:2]).prod()
    iou = overlap / np.maximum(areas - overlap, 1e-9)
    iou[np.abs(same[:, :4] - box[:4]).max(1) <= SAME_PIXELS] = 1.0
    difference = np.abs(same[:, 4] - box[4])
    fitting = np.flatnonzero(iou >= tolerance.iou)
    best = fitting[difference[fitting].argmin()] if len(fitting) else iou.argmax()
    return float(iou[best]), float(difference[best])


def inputs(size_hw: tuple[int, int], stride: int, fixed: bool) -> dict[str, Image]:
    """Letterboxed images by name: those of YOLO_SHARED/images, else ultralytics' samples, and always drawings.

    `size_hw` is height and width in pixels, the largest unless `fixed`. Free sides get drawings with a side of one
    stride and of three: a network that cannot take every shape shows it there.
    """
    folders = [Path(os.environ.get("YOLO_SHARED") or "../shared") / "images"]
    ultralytics = find_spec("ultralytics")  # only its folder: importing it takes seconds
    if ultralytics is not None and ultralytics.origin is not None:
        folders.append(Path(ultralytics.origin).parent / "assets")
    files = next((found for folder in folders if (found := sorted(folder.glob("*.jpg")))), [])
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


def check_batches(answer_batch: Callable[[Image], Rows], images: Mapping[str, Image], largest: int) -> None:
    """A batch must answer as its images do one by one. `answer_batch` takes (B, H, W, 3) and gives (B, K, 6).

    Raises VerificationError when it does not.
    """
    image = next(iter(images.values()))
    batch = np.stack([image, image[:, ::-1]] * ((min(largest, 4) + 1) // 2))[: min(largest, 4)]
    together = answer_batch(batch)
    for i, one in enumerate(batch):
        alone = answer_batch(one[None])[0]
        if np.abs(together[i, :, 4] - alone[:, 4]).max() > 1e-3:
            raise VerificationError(
                f"image {i + 1} of a batch of {len(batch)} is not answered as it is alone; not published"
            )
