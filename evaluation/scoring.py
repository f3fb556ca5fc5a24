"""Mean average precision as COCO counts it: IoU 0.50 to 0.95, at most 100 detections per class and image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]


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


def score(truths: Sequence[Truth], detections: Sequence[npt.NDArray[np.float32]], class_count: int) -> Scores:
    """Count one model's answers: for each image float32 (M, 6) rows of x1, y1, x2, y2 (source pixels), score, class_id.

    Classes that no image shows do not count; a data set without any object has no score (ValueError).
    """
    shown = sorted({int(class_id) for truth in truths for class_id in truth.class_ids})
    if not shown:
        raise ValueError("there is no object in the ground truth")
    ground_truth = COCO(_ground_truth(truths, class_count))
    evaluation = COCOeval_faster(
        ground_truth, ground_truth.loadRes(_answers(detections)), "bbox", print_function=_silent
    )
    evaluation.evaluate()
    evaluation.accumulate()
    # IoU thresholds x recalls x classes, of all areas (0) and the most detections (-1).
    precision: npt.NDArray[np.float64] = evaluation.eval["precision"][:, :, :, 0, -1]
    by_iou = precision.mean(1)
    per_class = {class_id: (float(by_iou[0, class_id]), float(by_iou[:, class_id].mean())) for class_id in shown}
    averages = np.array(list(per_class.values())).mean(0)
    return Scores(float(averages[0]), float(averages[1]), per_class)


def _ground_truth(truths: Sequence[Truth], class_count: int) -> dict[str, list[dict[str, Any]]]:
    objects: list[dict[str, Any]] = []
    for image_id, truth in enumerate(truths):
        for class_id, box_xyxy in zip(truth.class_ids.tolist(), truth.boxes_xyxy_source.tolist(), strict=True):
            box = _xywh(box_xyxy)
            identity = {"id": len(objects) + 1, "image_id": image_id, "category_id": class_id, "iscrowd": 0}
            objects.append({**identity, "bbox": box, "area": box[2] * box[3]})
    return {
        "images": [{"id": image_id} for image_id in range(len(truths))],
        "categories": [{"id": class_id} for class_id in range(class_count)],
        "annotations": objects,
    }


def _answers(detections: Sequence[npt.NDArray[np.float32]]) -> list[dict[str, Any]]:
    return [
        {"image_id": image_id, "category_id": int(row[5]), "bbox": _xywh(row[:4]), "score": row[4]}
        for image_id, rows in enumerate(detections)
        for row in rows.tolist()
    ]


def _xywh(box_xyxy: list[float]) -> list[float]:
    x1, y1, x2, y2 = box_xyxy
    return [x1, y1, x2 - x1, y2 - y1]


def _silent(*_: object) -> None:
    pass
