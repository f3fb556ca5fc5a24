import numpy as np
import pytest

from export import verify
from export.errors import VerificationError
from export.verify import Check, Image, Rows, Tolerance, check_batches, compare, drawing, threshold

TOLERANCE = Tolerance(iou=0.99, score=0.005)


def rows(*scores: float, shift: float = 0.0, class_id: int = 0) -> Rows:
    boxes = [[50.0 * i + shift, 10, 50.0 * i + 40 + shift, 60, score, class_id] for i, score in enumerate(scores)]
    return np.array(boxes, np.float32)


def test_equal_answers_match() -> None:
    found = compare([(rows(0.9, 0.5), rows(0.9, 0.5))], TOLERANCE, 0.25)
    assert (found.matched, found.unmatched, found.smallest_iou, found.largest_score_difference) == (4, 0, 1.0, 0.0)


@pytest.mark.parametrize(
    "got",
    [
        pytest.param(rows(0.9, 0.52), id="score"),
        pytest.param(rows(0.9, 0.5, shift=3), id="place"),
        pytest.param(rows(0.9, 0.5, class_id=1), id="class"),
        pytest.param(rows(0.9), id="missing"),
        pytest.param(rows(0.9, 0.5, 0.4), id="extra"),
    ],
)
def test_a_difference_beyond_the_tolerance_is_found(got: Rows) -> None:
    assert compare([(rows(0.9, 0.5), got)], TOLERANCE, 0.25).unmatched > 0


def test_a_box_on_the_threshold_of_nms_is_no_difference() -> None:
    """Two boxes whose overlap is the threshold: each side keeps what the other suppresses, and both have both."""
    pair = np.array([[0, 0, 100, 100, 0.9, 0], [0, 0, 100, 45, 0.8, 0]], np.float32)
    nudged = pair.copy()
    nudged[1, 3] = 45.01
    assert compare([(pair, nudged)], TOLERANCE, 0.25).unmatched == 0


def test_weak_boxes_have_less_tolerance() -> None:
    assert compare([(rows(0.010), rows(0.014))], TOLERANCE, 0.001).unmatched > 0
    assert compare([(rows(0.410), rows(0.414))], TOLERANCE, 0.001).unmatched == 0


def test_candidates_beyond_the_best_are_not_missed() -> None:
    scores = np.linspace(0.9, 0.5, 1100).tolist()
    assert compare([(rows(*scores), rows(*scores[:1000]))], TOLERANCE, 0.25).unmatched == 0


def test_where_a_model_sees_little_weaker_candidates_are_compared() -> None:
    assert threshold([rows(*[0.9] * 10)]) == 0.25
    assert threshold([rows(*[0.02] * 10)]) == 0.01
    assert threshold([rows(0.9)]) == 0.0


def test_a_wrong_answer_is_refused_by_name() -> None:
    check = Check(lambda image: rows(*[0.9] * 10), {"drawing": drawing()})
    with pytest.raises(VerificationError, match="ONNX Runtime does not answer as the checkpoint does"):
        check("ONNX Runtime", lambda image: rows(*[0.5] * 10), TOLERANCE)
    assert check.findings()["answers"] == {}


def test_the_findings_tell_bytes_and_matches() -> None:
    check = Check(lambda image: rows(*[0.9] * 10), {"drawing": drawing()})
    check("Triton", lambda image: rows(*[0.9] * 10), TOLERANCE)
    findings = check.findings()
    assert findings["answers"]["Triton"]["matched"] == 20
    assert findings["bytes_in_per_image"] == 480 * 640 * 3
    assert findings["bytes_out_per_image"] == 24000


def test_a_batch_that_mixes_its_images_up_is_refused() -> None:
    def corner(images: Image) -> Rows:
        return np.broadcast_to(images[:, :1, :1, :1].reshape(-1, 1, 1), (len(images), 1000, 6)).astype(np.float32)

    lopsided = np.zeros((4, 4, 3), np.uint8)
    lopsided[:, 0] = 255
    check_batches(corner, {"a": lopsided}, 4)
    with pytest.raises(VerificationError, match="of a batch of 4"):
        check_batches(lambda images: corner(images[::-1]), {"a": lopsided}, 4)


def test_the_most_extreme_shapes_are_among_the_inputs() -> None:
    shapes = {image.shape[:2] for image in verify.inputs((640, 640), 32, fixed=False).values()}
    assert shapes >= {(32, 640), (640, 32), (96, 640), (640, 96)}
    assert {image.shape[:2] for image in verify.inputs((640, 640), 32, fixed=True).values()} == {(640, 640)}
