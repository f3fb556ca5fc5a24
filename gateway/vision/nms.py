"""Non-maximum suppression over the candidate rows of the deployed graph."""

import numpy as np
import numpy.typing as npt

from gateway.vision.opencv import cv2


def nms(
    candidates: npt.NDArray[np.float32],
    *,
    confidence: float = 0.25,
    iou: float = 0.45,
    max_detections: int = 300,
    classes: frozenset[int] | None = None,
    agnostic: bool = False,
) -> npt.NDArray[np.float32]:
    """Keep the best box of each object.

    `candidates` is float32 (K, 6), rows of x1, y1, x2, y2 (input pixels), score, class_id, in any order. Returns the
    kept rows, float32 (N, 6), best first, N <= `max_detections`. Boxes suppress each other above `iou` within their
    class only, or over all classes when `agnostic`; `classes` limits the answer to those class ids. Scores must exceed
    `confidence`.
    """
    rows = candidates[candidates[:, 4] > confidence]
    if classes is not None:
        rows = rows[np.isin(rows[:, 5].astype(np.int64), list(classes))]
    if not len(rows):
        return rows
    corners = rows[:, :4].astype(np.float64)
    boxes_xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
    scores = rows[:, 4]
    if agnostic:
        kept = cv2.dnn.NMSBoxes(boxes_xywh.tolist(), scores.tolist(), confidence, iou)
    else:
        class_ids = rows[:, 5].astype(np.int32)
        kept = cv2.dnn.NMSBoxesBatched(boxes_xywh.tolist(), scores.tolist(), class_ids.tolist(), confidence, iou)
    return rows[np.asarray(kept, np.int64)[:max_detections]]
