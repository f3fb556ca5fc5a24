"""Mean average precision as YOLOv5's `val.py` counts it: IoU 0.50 to 0.95, no limit to the detections of a class.

Sources: `process_batch`, `ap_per_class` and `compute_ap` in `utils/metrics.py` of ultralytics/yolov5, of which this is
the arithmetic. Two things differ from COCO's own: a detection claims the object that it fits best, even when that one
is taken; and precision falls to 0 at recall 1 in a straight line, so that the best possible score is 0.995.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IOUS = np.linspace(0.5, 0.95, 10, dtype=np.float32)
RECALLS = np.linspace(0, 1, 101)
_EPSILON = 1e-7


@dataclass(frozen=True, slots=True)
class Truth:
    """What is in one image: int64 (N,) class ids and float32 (N, 4) corners in source pixels."""

    class_ids: npt.NDArray[np.int64]
    boxes_xyxy_source: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scores:
    """Averages over the classes of the ground truth, 0 to 1; `per_class` maps a class id to (mAP50, mAP50-95)."""

    map50: float
    map50_95: float
    per_class: dict[int, tuple[float, float]]


def score(truths: Sequence[Truth], detections: Sequence[npt.NDArray[np.float32]]) -> Scores:
    """Count one model's answers: for each image float32 (M, 6) rows of x1, y1, x2, y2 (source pixels), score, class_id.

    The rows of an image are best first. Classes that no image shows do not count; a data set without any object has no
    score (ValueError).
    """
    shown, objects = np.unique(np.concatenate([truth.class_ids for truth in truths]), return_counts=True)
    if not len(shown):
        raise ValueError("there is no object in the ground truth")
    hits = np.concatenate([matches(*pair) for pair in zip(truths, detections, strict=True)])
    rows = np.concatenate(detections)
    order = np.argsort(-rows[:, 4], kind="stable")
    hits, class_ids = hits[order], rows[order, 5]
    precisions = {
        int(class_id): average_precisions(hits[class_ids == class_id], int(count))
        for class_id, count in zip(shown, objects, strict=True)
    }
    per_class = {class_id: (float(each[0]), float(each.mean())) for class_id, each in precisions.items()}
    averages = np.array(list(per_class.values())).mean(0)
    return Scores(float(averages[0]), float(averages[1]), per_class)


def matches(truth: Truth, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which rows (M, 6), best first, hit an object of their class, at each of the ten IoUs: (M, 10).

    Each claims the object with which its IoU is largest; the first to claim one has it, the others are false.
    """
    hits = np.zeros((len(rows), len(IOUS)), np.bool_)
    if not len(rows) or not len(truth.class_ids):
        return hits
    same = truth.class_ids[None] == rows[:, 5:6]
    overlaps = np.where(same, ious(rows[:, :4], truth.boxes_xyxy_source), np.float32(-1))
    claimed, largest = overlaps.argmax(1), overlaps.max(1)
    for column, least in enumerate(IOUS):
        claimants = np.flatnonzero(largest >= least)
        _, first = np.unique(claimed[claimants], return_index=True)
        hits[claimants[first], column] = True
    return hits


def ious(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Intersection over union of boxes (M, 4) with boxes (N, 4), as corners: float32 (M, N)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    found: npt.NDArray[np.float32] = shared / (areas[0][:, None] + areas[1][None] - shared + np.float32(_EPSILON))
    return found


def average_precisions(hits: npt.NDArray[np.bool_], objects: int) -> npt.NDArray[np.float64]:
    """The area under precision over recall, at each IoU (10,), of one class's detections (M, 10), best first.

    Precision is the best of that recall or a larger one, taken at 101 recalls and joined by straight lines.
    """
    if not len(hits):
        return np.zeros(len(IOUS))
    found = hits.cumsum(0)
    precision, recall = found / np.arange(1, len(hits) + 1)[:, None], found / objects
    return np.array([_area(recall[:, each], precision[:, each]) for each in range(len(IOUS))])


def _area(recall: npt.NDArray[np.float64], precision: npt.NDArray[np.float64]) -> float:
    recalls, precisions = np.array([0, *recall, 1]), np.array([1, *precision, 0])
    envelope = np.maximum.accumulate(precisions[::-1])[::-1]
    return float(np.trapezoid(np.interp(RECALLS, recalls, envelope), RECALLS))
