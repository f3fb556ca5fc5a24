"""How YOLOv5's `val.py` shows an image to a network, and what it takes from the answer.

Sources, of which this is the arithmetic: `LoadImagesAndLabels` (rectangular, pad 0.5) in `utils/dataloaders.py`,
`letterbox` in `utils/augmentations.py`, `non_max_suppression` and `scale_boxes` in `utils/general.py` of
ultralytics/yolov5. A service that answers one image at a time can do none of it alike: the input's shape depends on
the other images of a batch, and half a stride more of grey surrounds each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evaluation.dataset import LabelledImage
from evaluation.scoring import Truth
from gateway.vision.letterbox import GREY, Placement
from gateway.vision.opencv import cv2

BATCH = 32
LEAST_STRIDE = 32
PADDING = 0.5  # of a stride
MOST_ROWS = 30_000  # go into the suppression

Floats = npt.NDArray[np.float32]


def input_shapes(sizes_wh: Sequence[tuple[int, int]], imgsz: int, stride: int) -> list[tuple[int, int]]:
    """(height, width) in pixels of each image's input: batches of 32, by aspect ratio, share the least rectangle."""
    sizes = np.array(sizes_wh, np.float64)
    ratios = sizes[:, 1] / sizes[:, 0]
    order = ratios.argsort()
    stride = max(stride, LEAST_STRIDE)
    shapes = [(0, 0)] * len(ratios)
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        least, most = ratios[batch].min(), ratios[batch].max()
        sides = (most, 1.0) if most < 1 else (1.0, 1 / least) if least > 1 else (1.0, 1.0)
        height, width = (math.ceil(side * imgsz / stride + PADDING) * stride for side in sides)
        for index in batch.tolist():
            shapes[index] = height, width
    return shapes


def letterbox(
    image: npt.NDArray[np.uint8], shape_hw: tuple[int, int], imgsz: int
) -> tuple[npt.NDArray[np.uint8], Placement, tuple[float, float]]:
    """Fit an upright RGB uint8 (height, width, 3) image into an input of that shape, centred on grey.

    Returns the input, RGB uint8, where the image is in it, and the (width, height) that its labels are relative to:
    the sides are rounded up, and both are mapped back by the height's scale.
    """
    height, width = image.shape[:2]
    scale = imgsz / max(height, width)
    if scale != 1:
        size_wh = math.ceil(width * scale), math.ceil(height * scale)
        image = _resized(image, size_wh, cv2.INTER_LINEAR if scale > 1 else cv2.INTER_AREA)
    gain = image.shape[0] / height
    fit = min(shape_hw[0] / image.shape[0], shape_hw[1] / image.shape[1], 1)
    if fit < 1:
        size_wh = round(image.shape[1] * fit), round(image.shape[0] * fit)
        image, gain = _resized(image, size_wh, cv2.INTER_LINEAR), gain * fit
    inside_h, inside_w = image.shape[:2]
    left, top = (shape_hw[1] - inside_w) / 2, (shape_hw[0] - inside_h) / 2
    canvas = np.full((*shape_hw, 3), GREY, np.uint8)
    canvas[round(top - 0.1) :, round(left - 0.1) :][:inside_h, :inside_w] = image
    return canvas, Placement((height, width), gain, left, top), (inside_w / gain, inside_h / gain)


def _resized(image: npt.NDArray[np.uint8], size_wh: tuple[int, int], how: int) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, size_wh, interpolation=how), np.uint8)


def every_class(boxes_xyxy: Floats, scores: Floats, confidence: float) -> Floats:
    """Boxes (N, 4) and scores (N, C) → float32 (M, 6), a row for each class of a box whose score exceeds `confidence`.

    Rows of x1, y1, x2, y2, score, class_id; the best 30,000.
    """
    box, class_id = np.nonzero(scores > confidence)
    rows = np.column_stack([boxes_xyxy[box], scores[box, class_id], class_id]).astype(np.float32)
    return best(rows, MOST_ROWS)


def best_class(boxes_xyxy: Floats, scores: Floats) -> Floats:
    """As `every_class`, with the best class of each box alone and all scores: (N, 6)."""
    return np.column_stack([boxes_xyxy, scores.max(1), scores.argmax(1)]).astype(np.float32)


def best(rows: Floats, most: int) -> Floats:
    """The `most` rows with the largest scores, in no order; all of fewer."""
    return rows if len(rows) <= most else rows[np.argpartition(-rows[:, 4], most - 1)[:most]]


def truth(labelled: LabelledImage, placement: Placement, size_wh: tuple[float, float]) -> Truth:
    """What is labelled, in source pixels and within the image; `size_wh` is what the labels are relative to."""
    height, width = placement.source_hw
    boxes = np.clip(labelled.boxes_xyxy_source(*size_wh), 0, np.array([width, height, width, height], np.float32))
    return Truth(labelled.class_ids, boxes)
