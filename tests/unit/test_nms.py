import numpy as np
import numpy.typing as npt

from gateway.vision.nms import nms


def rows(*values: tuple[float, ...]) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32).reshape(-1, 6)


TWO_OF_A_CLASS = rows((0, 0, 100, 100, 0.9, 0), (5, 5, 105, 105, 0.8, 0))
ONE_EACH = rows((0, 0, 100, 100, 0.9, 0), (5, 5, 105, 105, 0.8, 1))


def test_nms_keeps_the_best_of_overlapping_boxes() -> None:
    assert nms(TWO_OF_A_CLASS).tolist() == TWO_OF_A_CLASS[:1].tolist()


def test_nms_keeps_overlapping_boxes_of_different_classes() -> None:
    assert nms(ONE_EACH).tolist() == ONE_EACH.tolist()


def test_agnostic_nms_suppresses_over_classes() -> None:
    assert nms(ONE_EACH, agnostic=True).tolist() == ONE_EACH[:1].tolist()


def test_nms_keeps_boxes_at_or_below_the_iou() -> None:
    halves = rows((0, 0, 100, 100, 0.9, 0), (50, 0, 150, 100, 0.8, 0))  # IoU 1/3
    assert len(nms(halves, iou=0.34)) == 2
    assert len(nms(halves, iou=0.33)) == 1


def test_nms_drops_scores_at_or_below_the_confidence() -> None:
    kept = nms(rows((0, 0, 10, 10, 0.25, 0), (50, 50, 60, 60, 0.26, 0)), confidence=0.25)
    assert kept[:, 4].tolist() == [np.float32(0.26)]


def test_nms_answers_best_first_and_at_most_the_asked_number() -> None:
    apart = rows(*((i * 20, 0, i * 20 + 10, 10, 0.3 + i / 100, 0) for i in range(10)))
    kept = nms(apart, max_detections=3)
    assert kept[:, 4].tolist() == apart[[9, 8, 7], 4].tolist()


def test_nms_limits_the_answer_to_classes() -> None:
    assert nms(ONE_EACH, classes=frozenset({1}))[:, 5].tolist() == [1]


def test_nms_of_nothing_is_nothing() -> None:
    assert nms(np.zeros((1000, 6), np.float32)).shape == (0, 6)


def test_nms_equals_the_plain_greedy_rule() -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 600, (400, 2))
    sizes = random.uniform(5, 120, (400, 2))
    scores, classes = random.uniform(0.2, 1, (400, 1)), random.integers(0, 3, (400, 1))
    candidates = np.concatenate([corners, corners + sizes, scores, classes], 1).astype(np.float32)
    assert nms(candidates, max_detections=400).tolist() == greedy(candidates, 0.25, 0.45).tolist()


def greedy(candidates: npt.NDArray[np.float32], confidence: float, iou: float) -> npt.NDArray[np.float32]:
    kept: list[npt.NDArray[np.float32]] = []
    for row in sorted(candidates[candidates[:, 4] > confidence], key=lambda row: -float(row[4])):
        if all(row[5] != other[5] or overlap(row, other) <= iou for other in kept):
            kept.append(row)
    return np.array(kept)


def overlap(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return float(width * height / (areas - width * height))
