"""Runs a served model, and its checkpoint in PyTorch, over a data set and scores both.

Between YOLOv5's `val.py` and the service lie four steps; a score is kept for each, so that the cost of one is not taken
for that of another: the letterbox, one class for each box, the cut to the rows that Triton answers, and the served
model's own arithmetic. All count what `val.py` counts: confidence 0.001, NMS at IoU 0.6, at most 300 boxes an image.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from tqdm import tqdm  # type: ignore[import-untyped]

from evaluation import pictures, validation
from evaluation.dataset import Dataset, LabelledImage
from evaluation.errors import DatasetError
from evaluation.scoring import Scores, Truth, score
from gateway.errors import InvalidImage
from gateway.triton.spec import ModelSpec
from gateway.vision.letterbox import Placement, letterbox
from gateway.vision.nms import nms

CONFIDENCE, IOU, MAX_DETECTIONS = 0.001, 0.6, 300
# In order: each is the one before with a single change.
VAL, LETTERBOX, ONE_CLASS, CUT, SERVED = "val.py", "letterbox", "one class", "cut", "served"

Floats = npt.NDArray[np.float32]
# RGB uint8 (height, width, 3), letterboxed → float32 (K, 6) candidate rows: x1, y1, x2, y2, score, class_id.
Model = Callable[[npt.NDArray[np.uint8]], Floats]
# The same → every box, float32 (N, 4), and the scores of all its classes, (N, C).
Network = Callable[[npt.NDArray[np.uint8]], tuple[Floats, Floats]]


@dataclass(slots=True)
class Evaluation:
    """`scores` maps each step that was run to its own; `images` are those that could be decoded.

    `rows` is how many the served model answers; `unreadable` and `refused` name images, with the reason.
    """

    images: list[LabelledImage] = field(default_factory=list)
    scores: dict[str, Scores] = field(default_factory=dict)
    rows: int = 0
    unreadable: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Runner:
    spec: ModelSpec
    served: Model
    network: Network | None

    def __call__(self, labelled: LabelledImage, picture: pictures.Picture, shape_hw: tuple[int, int]) -> _Answers:
        spec, (height, width) = self.spec, picture.source_hw
        letterboxed, placement = letterbox(
            picture.served, size_hw=spec.size_hw, stride=spec.stride, fixed=spec.fixed, source_hw=picture.source_hw
        )
        rows = self.served(letterboxed)
        answers = _Answers(len(rows))
        truth = validation.truth(labelled, placement, (width, height))
        answers.add(SERVED, truth, rows, placement)
        if self.network is not None:
            boxes, scores = self.network(letterboxed)
            one_class = validation.best_class(boxes, scores)
            answers.add(LETTERBOX, truth, validation.every_class(boxes, scores, CONFIDENCE), placement)
            answers.add(ONE_CLASS, truth, validation.best(one_class, validation.MOST_ROWS), placement)
            answers.add(CUT, truth, validation.best(one_class, len(rows)), placement)
            letterboxed, placement, size_wh = validation.letterbox(picture.whole, shape_hw, max(spec.size_hw))
            rows = validation.every_class(*self.network(letterboxed), CONFIDENCE)
            answers.add(VAL, validation.truth(labelled, placement, size_wh), rows, placement)
        return answers


class _Answers:
    """What each step has found in one image; `rows` of the served model."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.steps: dict[str, tuple[Truth, Floats]] = {}

    def add(self, step: str, truth: Truth, candidates: Floats, placement: Placement) -> None:
        rows = nms(candidates, confidence=CONFIDENCE, iou=IOU, max_detections=MAX_DETECTIONS)
        self.steps[step] = truth, np.concatenate([placement.to_source(rows[:, :4]), rows[:, 4:]], 1)


def evaluate(
    dataset: Dataset,
    spec: ModelSpec,
    served: Model,
    network: Network | None = None,
    *,
    max_pixels: int = sys.maxsize,
    max_side: int = sys.maxsize,
) -> Evaluation:
    """Run the model, and the network if there is one, over every image, and count. Shows a progress bar on stderr.

    `max_pixels` and `max_side` are the service's limits. Raises DatasetError when nothing can be decoded.
    """
    run, result = _Runner(spec, served, network), Evaluation()
    answers: list[_Answers] = []
    shapes = validation.input_shapes([image.size_wh for image in dataset.images], max(spec.size_hw), spec.stride)
    bar = tqdm(dataset.images, desc="images", unit="image", file=sys.stderr)
    for labelled, shape_hw in zip(bar, shapes, strict=True):
        try:
            picture = pictures.read(labelled.path, max(spec.size_hw), max_pixels, max_side)
        except (InvalidImage, OSError) as error:
            result.unreadable.append(f"{labelled.path}: {error}")
            continue
        if picture.refused:
            result.refused.append(f"{labelled.path}: {picture.refused}")
        answers.append(run(labelled, picture, shape_hw))
        result.images.append(labelled)
    if not any(len(image.class_ids) for image in result.images):
        raise DatasetError(f"no image with an object can be decoded; {result.unreadable[0]}")
    result.rows = max(each.rows for each in answers)
    for step in (step for step in (VAL, LETTERBOX, ONE_CLASS, CUT, SERVED) if step in answers[0].steps):
        truths, found = zip(*(each.steps[step] for each in answers), strict=True)
        result.scores[step] = score(truths, found)
    return result
