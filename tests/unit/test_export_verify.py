import os
from pathlib import Path

import numpy as np
import pytest

from export import verify
from export.comparison import Image, Rows, Table, Tolerance
from export.errors import VerificationError
from export.verify import Check, check_batches, drawing

TOLERANCE = Tolerance(iou=0.99, score=0.005)


def rows(*scores: float) -> Rows:
    return np.array([[50.0 * i, 10, 50.0 * i + 40, 60, score, 0] for i, score in enumerate(scores)], np.float32)


def source(image: Image) -> Table:
    """Ten boxes of the only class."""
    return rows(*[0.9] * 10)[:, :5]


def test_a_wrong_answer_is_refused_by_name() -> None:
    check = Check(source, {"drawing": drawing()})
    with pytest.raises(VerificationError, match="ONNX Runtime does not answer as the checkpoint does"):
        check("ONNX Runtime", lambda image: rows(*[0.5] * 10), TOLERANCE)
    assert check.findings()["answers"] == {}


@pytest.mark.parametrize("number", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("column", [0, 4, 5], ids=["box", "score", "class"])
def test_an_answer_that_is_no_number_is_refused_in_one_line(number: float, column: int) -> None:
    def wrong(image: Image) -> Rows:
        found = rows(*[0.9] * 10)
        found[3, column] = number
        return found

    check = Check(source, {"drawing": drawing()})
    with pytest.raises(VerificationError, match=r"^Triton answers 'drawing' with NaN or infinite numbers, [^\n]*$"):
        check("Triton", wrong, TOLERANCE)


def test_a_source_that_answers_no_numbers_is_refused_by_its_name() -> None:
    with pytest.raises(VerificationError, match=r"^the model itself answers 'drawing' with NaN"):
        Check(lambda image: source(image) * np.float32(np.nan), {"drawing": drawing()})


def test_the_findings_tell_bytes_and_matches() -> None:
    check = Check(source, {"drawing": drawing()})
    check("Triton", lambda image: rows(*[0.9] * 10), TOLERANCE)
    findings = check.findings()
    assert findings["answers"]["Triton"]["matched"] == 20
    assert findings["answers"]["Triton"]["tolerance"] == {"iou": 0.99, "score": 0.005, "pixels": 0.05}
    assert findings["bytes_in_per_image"] == 480 * 640 * 3
    assert findings["bytes_out_per_image"] == 10 * 6 * 4


def test_a_batch_that_mixes_its_images_up_is_refused() -> None:
    def corner(images: Image) -> Rows:
        return np.broadcast_to(images[:, :1, :1, :1].reshape(-1, 1, 1), (len(images), 1000, 6)).astype(np.float32)

    lopsided = np.zeros((4, 4, 3), np.uint8)
    lopsided[:, 0] = 255
    check_batches(corner, {"a": lopsided}, 4, TOLERANCE)
    with pytest.raises(VerificationError, match="of a batch of 4"):
        check_batches(lambda images: corner(images[::-1]) * 1e-6, {"a": lopsided}, 4, TOLERANCE)
    with pytest.raises(VerificationError, match="of a batch of 4"):
        check_batches(lambda images: corner(images[::-1]), {"a": lopsided}, 4, TOLERANCE)


def test_the_most_extreme_shapes_are_among_the_inputs() -> None:
    shapes = {image.shape[:2] for image in verify.inputs((640, 640), 32, fixed=False).values()}
    assert shapes >= {(32, 640), (640, 32), (96, 640), (640, 96)}
    assert {image.shape[:2] for image in verify.inputs((640, 640), 32, fixed=True).values()} == {(640, 640)}


@pytest.mark.timeout(20)
def test_a_pipe_among_the_pictures_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_SHARED", str(tmp_path))
    (tmp_path / "images").mkdir()
    os.mkfifo(tmp_path / "images" / "a.jpg")
    assert "a.jpg" not in verify.inputs((64, 64), 32, False)
