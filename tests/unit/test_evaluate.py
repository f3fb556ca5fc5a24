"""Data sets, counting and the table; models here are plain functions."""

import json
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from evaluation.dataset import read
from evaluation.errors import DatasetError
from evaluation.evaluate import main
from evaluation.record import keep
from evaluation.report import columns, costs, notes, table, verdict
from evaluation.scoring import Scores, Truth, matches, score
from evaluation.steps import CUT, LETTERBOX, ONE_CLASS, SERVED, VAL, evaluate
from evaluation.validation import best_class, every_class, input_shapes
from tests.support.datasets import write
from tests.support.fakes import SPEC
from tests.support.pictures import encoded

ROW = "0 0.5 0.5 0.25 0.5"
CLASSES = len(SPEC.labels)
BEST = 0.995  # no score is larger: precision falls to 0 at recall 1
NO_BOXES = np.zeros((0, 4), np.float32)


def answering(*rows: list[float]) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    return lambda letterboxed: np.array(rows, np.float32).reshape(-1, 6)


def test_a_model_is_scored_in_source_pixels(tmp_path: Path) -> None:
    # 64 x 48 becomes 640 x 480 in the model's input.
    dataset = read(write(tmp_path, {"a.png": encoded(64, 48), "a.txt": ROW}), CLASSES)

    def scores(*rows: list[float]) -> Scores:
        return evaluate(dataset, SPEC, answering(*rows)).scores[SERVED]

    assert scores([240, 120, 400, 360, 0.9, 0]).per_class[0] == pytest.approx((BEST, BEST))
    loose = scores([240, 120, 400, 300, 0.9, 0])
    assert loose.map50 == pytest.approx(BEST)
    assert loose.map50_95 == pytest.approx(0.6 * BEST)  # IoU 0.75: the thresholds 0.50 to 0.75 of ten
    assert scores([240, 120, 400, 360, 0.9, 1]).map50 == 0
    assert scores().map50 == 0


def test_a_large_jpeg_is_scored_as_the_service_decodes_it(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []
    jpeg = encoded(4000, 3000, ".jpg")
    dataset = read(write(tmp_path, {"a.jpg": jpeg, "a.txt": ROW}), CLASSES)

    def model(letterboxed: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        seen.append(letterboxed.shape)
        return np.array([[240, 120, 400, 360, 0.9, 0]], np.float32)

    assert evaluate(dataset, SPEC, model).scores[SERVED].map50_95 == pytest.approx(BEST)
    assert seen == [(480, 640, 3)]


def test_images_that_the_service_refuses_are_scored_and_told(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, {"a.tif": encoded(64, 48, ".tif"), "a.txt": ROW}), CLASSES)
    result = evaluate(dataset, SPEC, answering([240, 120, 400, 360, 0.9, 0]))
    assert result.scores[SERVED].map50 == pytest.approx(BEST)
    assert len(notes(result)) == 1 and "a.tif" in notes(result)[0] and "TIFF" in notes(result)[0]


def test_both_halves_get_the_same_cut_and_its_cost_is_a_line_of_its_own(tmp_path: Path) -> None:
    rows = "0 0.25 0.5 0.25 0.5\n0 0.75 0.5 0.25 0.5"
    dataset = read(write(tmp_path, {"a.png": encoded(64, 48), "a.txt": rows}), CLASSES)
    boxes = np.array([[80, 120, 240, 360], [400, 120, 560, 360]], np.float32)

    def network(letterboxed: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        height = letterboxed.shape[0]  # val.py pads further, as do the boxes
        shift = np.array([(letterboxed.shape[1] - 640) / 2, (height - 480) / 2] * 2, np.float32)
        return boxes + shift, np.array([[0.9, 0, 0], [0.8, 0.1, 0]], np.float32)

    result = evaluate(dataset, SPEC, answering([80, 120, 240, 360, 0.9, 0]), network)
    assert result.rows == 1
    scores = {step: each.map50 for step, each in result.scores.items()}
    assert scores[VAL] == scores[LETTERBOX] == scores[ONE_CLASS] == pytest.approx(BEST)
    assert scores[CUT] == scores[SERVED] < BEST - 0.2
    lines = costs(result).splitlines()
    assert "best 1 boxes" in lines[3] and f"{scores[CUT] - BEST:+.4f}" in lines[3]
    assert verdict(result.scores[SERVED], result.scores[CUT], 0) == 0


def test_every_class_of_a_box_counts_for_val_py_and_the_best_alone_for_the_service() -> None:
    boxes, scores = np.array([[0, 0, 9, 9]], np.float32), np.array([[0.6, 0.0005, 0.3]], np.float32)
    assert every_class(boxes, scores, 0.001)[:, 4:].tolist() == [[pytest.approx(0.6), 0], [pytest.approx(0.3), 2]]
    assert best_class(boxes, scores)[:, 4:].tolist() == [[pytest.approx(0.6), 0]]


@pytest.mark.parametrize(
    ("sizes_wh", "shapes"),
    [
        ([(640, 480)], [(512, 672)]),
        ([(480, 640), (640, 480)], [(672, 672)] * 2),
        ([(1280, 640), (640, 480)], [(512, 672)] * 2),
        ([(640, 320)] * 32 + [(320, 640)], [(352, 672)] * 32 + [(672, 352)]),
    ],
    ids=["one", "upright and lying", "the tallest of a batch", "two batches"],
)
def test_the_inputs_have_val_pys_shapes(sizes_wh: list[tuple[int, int]], shapes: list[tuple[int, int]]) -> None:
    assert input_shapes(sizes_wh, 640, 32) == shapes


def test_a_model_that_finds_nothing_is_told(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, {"a.png": encoded(64, 48), "a.txt": ROW}), CLASSES)
    assert notes(evaluate(dataset, SPEC, answering()))[0].startswith("nothing that is labelled was found")


def test_an_image_that_cannot_be_decoded_is_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": encoded(64, 48), "a.txt": ROW, "b.png": encoded(64, 48), "b.txt": ROW})
    dataset = read(tmp_path, CLASSES)
    (tmp_path / "b.png").write_bytes(b"no image")
    result = evaluate(dataset, SPEC, answering([240, 120, 400, 360, 0.9, 0]))
    assert result.scores[SERVED].map50 == pytest.approx(BEST)
    assert notes(result)[0].startswith(f"1 images left out: {tmp_path / 'b.png'}: ")
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match="no image with an object can be decoded"):
        evaluate(dataset, SPEC, answering())


def test_false_alarms_cost_precision() -> None:
    truth = Truth(np.array([0]), np.array([[0, 0, 10, 10]], np.float32))
    rows = np.array([[20, 20, 30, 30, 0.9, 0], [0, 0, 10, 10, 0.8, 0]], np.float32)
    assert score([truth], [rows]).map50 == pytest.approx(0.5 * BEST)


def test_a_false_alarm_on_a_background_costs_precision() -> None:
    truths = [Truth(np.array([0]), np.array([[0, 0, 10, 10]], np.float32)), Truth(np.zeros(0, int), NO_BOXES)]
    rows = np.array([[0, 0, 10, 10, 0.8, 0]], np.float32)
    assert score(truths, [rows, rows * np.float32(1.1)]).map50 == pytest.approx(0.5 * BEST)


def test_a_detection_whose_object_is_taken_does_not_fall_back_on_another() -> None:
    truth = Truth(np.array([0, 0]), np.array([[0, 0, 10, 10], [0, 4, 10, 14]], np.float32))
    rows = np.array([[0, 0, 10, 10, 0.9, 0], [0, 1, 10, 11, 0.8, 0]], np.float32)
    assert matches(truth, rows)[:, 0].tolist() == [True, False]


def test_classes_without_objects_do_not_count() -> None:
    truth = Truth(np.array([1]), np.array([[0, 0, 10, 10]], np.float32))
    rows = np.array([[0, 0, 10, 10, 0.9, 0], [0, 0, 10, 10, 0.8, 1]], np.float32)
    scores = score([truth], [rows])
    assert list(scores.per_class) == [1]
    assert scores.map50 == pytest.approx(BEST)


def test_the_table_has_a_line_per_class(tmp_path: Path) -> None:
    labels = f"{ROW}\n2 0.2 0.2 0.1 0.1\n2 0.8 0.8 0.1 0.1"
    dataset = read(write(tmp_path, {"a.png": encoded(64, 48), "a.txt": labels}), CLASSES)
    scores = evaluate(dataset, SPEC, answering([240, 120, 400, 360, 0.9, 0])).scores
    lines = table(dataset.images, SPEC.labels, columns(scores | {VAL: scores[SERVED]})).splitlines()
    assert lines[0].split() == [
        "class",
        "images",
        "objects",
        *"mAP50 served mAP50-95 served".split(),
        *"mAP50 PyTorch mAP50-95 PyTorch".split(),
    ]
    assert lines[1].split() == ["all", "1", "3", "0.4975", "0.4975", "0.4975", "0.4975"]
    assert lines[2].split() == ["person", "1", "1", "0.9950", "0.9950", "0.9950", "0.9950"]
    assert lines[3].split() == ["car", "1", "2", "0.0000", "0.0000", "0.0000", "0.0000"]


def test_the_score_is_kept_next_to_the_version(tmp_path: Path) -> None:
    dataset = read(write(tmp_path / "data", {"a.png": encoded(64, 48), "a.txt": ROW}), CLASSES)
    repository, scores = tmp_path / "models", Scores(0.51234, 0.3, {})
    keep(repository, SPEC, dataset, 1, scores)
    keep(None, SPEC, dataset, 1, scores)
    assert not repository.exists()
    (repository / SPEC.name / SPEC.version).mkdir(parents=True)
    keep(repository, SPEC, dataset, 1, scores)
    kept = json.loads((repository / SPEC.name / SPEC.version / "evaluation.json").read_text())
    assert datetime.fromisoformat(kept.pop("evaluated")).tzinfo is not None
    assert kept == {"map50": 0.5123, "map50_95": 0.3, "data": str(tmp_path / "data"), "split": "", "images": 1}


@pytest.mark.parametrize(("apart", "status"), [(0.004, 0), (0.006, 1)], ids=["within", "beyond"])
def test_a_difference_beyond_the_tolerance_is_a_failure(
    apart: float, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    answered, expected = Scores(0.5, 0.3 + apart, {}), Scores(0.5, 0.3, {})
    assert verdict(answered, expected, 0.005) == status
    said = capsys.readouterr()
    assert f"differ by {apart:.4f}" in (said.err if status else said.out)


def test_without_triton_the_command_says_how_to_start_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        assert main(["--data", str(tmp_path), "--triton", f"127.0.0.1:{taken.getsockname()[1]}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("evaluate: Triton does not answer")
    assert "make run" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "make evaluate DATA=folder"),
        (
            ["--data", "", "--model", "", "--weights", "", "--triton", "", "--tolerance", ""],
            "make evaluate DATA=folder",
        ),
        (["--data", "x", "--tolerance", "much"], "much is no number from 0 to 1"),
        (["--data", "x", "--split", "vla"], "--split"),
        (["--speed", "9"], "--speed"),
        (
            ["--data", "x", "--served-only", "--names", "a"],
            "SERVED_ONLY=1 leaves the checkpoint out, and takes no NAMES=",
        ),
        (["--data", "x", "--served-only", "maybe"], "1 or 0"),
    ],
    ids=["no data", "empty values", "bad tolerance", "no split", "unknown option", "names", "flag"],
)
def test_a_wrong_command_line_is_told_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
