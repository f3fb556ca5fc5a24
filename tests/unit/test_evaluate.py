"""Data sets, counting and the table; models here are plain functions."""

import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from evaluation.dataset import DatasetError, read
from evaluation.evaluate import evaluate, main, table, verdict
from evaluation.scoring import Scores, Truth, score
from tests.support.fakes import SPEC
from tests.support.pictures import encoded

ROW = "0 0.5 0.5 0.25 0.5"
CLASSES = len(SPEC.labels)


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def answering(*rows: list[float]) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    return lambda letterboxed: np.array(rows, np.float32).reshape(-1, 6)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("a.png", "a.txt"),
        ("images/a.png", "labels/a.txt"),
        ("images/val/a.png", "labels/val/a.txt"),
        ("val/images/a.png", "val/labels/a.txt"),
    ],
    ids=["beside", "folders", "split below", "split above"],
)
def test_labels_are_found(tmp_path: Path, image: str, label: str) -> None:
    dataset = read(write(tmp_path, {image: encoded(64, 48), label: ROW}), CLASSES)
    assert dataset.images[0].class_ids.tolist() == [0]
    assert dataset.images[0].boxes_xyxy_source(64, 48).tolist() == [[24, 12, 40, 36]]


def test_labels_are_found_from_the_images_folder_itself(tmp_path: Path) -> None:
    write(tmp_path, {"images/a.png": encoded(64, 48), "labels/a.txt": ROW})
    assert len(read(tmp_path / "images", CLASSES).images) == 1


def test_an_image_without_a_label_file_is_left_out_and_counted(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": encoded(8, 8), "b.png": encoded(8, 8), "b.txt": ROW, "c.png": encoded(8, 8), "c.txt": ""})
    dataset = read(tmp_path, CLASSES)
    assert [image.path.name for image in dataset.images] == ["b.png", "c.png"]
    assert dataset.unlabelled == 1


@pytest.mark.parametrize("names", ["[circle, square]", "{0: circle, 1: square}"], ids=["list", "map"])
def test_names_come_from_data_yaml(tmp_path: Path, names: str) -> None:
    write(tmp_path, {"a.png": encoded(8, 8), "a.txt": ROW, "data.yaml": f"names: {names}"})
    assert read(tmp_path, CLASSES).names == {0: "circle", 1: "square"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no images"),
        ({"a.png": b""}, "holds 1 images but no label files"),
        ({"a.png": b"", "a.txt": "3 0.5 0.5 0.1 0.1"}, "line 1: class 3 is none of the model's 0 to 2"),
        ({"a.png": b"", "a.txt": "0.5 0.5 0.5 0.1 0.1"}, "class 0.5 is none"),
        ({"a.png": b"", "a.txt": f"{ROW}\n0 0.5 0.5 0.1"}, "line 2: 4 numbers instead of the five"),
        ({"a.png": b"", "a.txt": "zero 0.5 0.5 0.1 0.1"}, "is not five numbers"),
        ({"a.png": b"", "a.txt": "0 320 240 64 64"}, "must lie between 0 and 1"),
        ({"a.png": b"", "a.txt": "0 nan 0.5 0.1 0.1"}, "must lie between 0 and 1"),
        ({"a.png": b"", "a.txt": b"\xff\xfe"}, "cannot be read"),
        ({"a.png": b"", "a.txt": ""}, "no label file names an object"),
        ({"a.png": b"", "a.txt": ROW, "data.yaml": "names: 3"}, "no readable `names`"),
        ({"a.png": b"", "a.txt": ROW, "data.yaml": "{"}, "no readable `names`"),
    ],
)
def test_a_broken_data_set_is_refused_in_one_line(tmp_path: Path, files: dict[str, str | bytes], message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read(write(tmp_path, files), CLASSES)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder"):
        read(tmp_path / "nowhere", CLASSES)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    dataset = read(write(tmp_path, {"a.png": b"no image", "a.txt": ROW}), CLASSES)
    with pytest.raises(DatasetError, match=r"a\.png: .*; replace or remove it"):
        evaluate(dataset, SPEC, {"served": answering()})


def test_a_model_is_scored_in_source_pixels(tmp_path: Path) -> None:
    # 64 x 48 becomes 640 x 480 in the model's input.
    dataset = read(write(tmp_path, {"a.png": encoded(64, 48), "a.txt": ROW}), CLASSES)
    models = {
        "right": answering([240, 120, 400, 360, 0.9, 0]),
        "loose": answering([240, 120, 400, 300, 0.9, 0]),
        "confused": answering([240, 120, 400, 360, 0.9, 1]),
        "blind": answering(),
    }
    scores = evaluate(dataset, SPEC, models)
    assert scores["right"].per_class[0] == pytest.approx((1, 1))
    assert scores["loose"].map50 == pytest.approx(1)
    assert scores["loose"].map50_95 == pytest.approx(0.6)  # IoU 0.75: the thresholds 0.50 to 0.75 of ten
    assert (scores["confused"].map50, scores["blind"].map50) == (0, 0)


def test_false_alarms_cost_precision() -> None:
    truth = Truth(np.array([0]), np.array([[0, 0, 10, 10]], np.float32))
    rows = np.array([[20, 20, 30, 30, 0.9, 0], [0, 0, 10, 10, 0.8, 0]], np.float32)
    assert score([truth], [rows], 1).map50 == pytest.approx(0.5)


def test_classes_without_objects_do_not_count() -> None:
    truth = Truth(np.array([1]), np.array([[0, 0, 10, 10]], np.float32))
    rows = np.array([[0, 0, 10, 10, 0.8, 1], [0, 0, 10, 10, 0.9, 0]], np.float32)
    scores = score([truth], [rows], 2)
    assert list(scores.per_class) == [1]
    assert scores.map50 == pytest.approx(1)


def test_the_table_has_a_line_per_class(tmp_path: Path) -> None:
    labels = f"{ROW}\n2 0.2 0.2 0.1 0.1\n2 0.8 0.8 0.1 0.1"
    dataset = read(write(tmp_path, {"a.png": encoded(64, 48), "a.txt": labels}), CLASSES)
    model = answering([240, 120, 400, 360, 0.9, 0])
    lines = table(dataset, SPEC.labels, evaluate(dataset, SPEC, {"served": model, "PyTorch": model})).splitlines()
    assert lines[0].split() == [
        "class",
        "images",
        "objects",
        *"mAP50 served mAP50-95 served".split(),
        *"mAP50 PyTorch mAP50-95 PyTorch".split(),
    ]
    assert lines[1].split() == ["all", "1", "3", "0.5000", "0.5000", "0.5000", "0.5000"]
    assert lines[2].split() == ["person", "1", "1", "1.0000", "1.0000", "1.0000", "1.0000"]
    assert lines[3].split() == ["car", "1", "2", "0.0000", "0.0000", "0.0000", "0.0000"]


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
        (["--speed", "9"], "--speed"),
    ],
    ids=["no data", "empty values", "bad tolerance", "unknown option"],
)
def test_a_wrong_command_line_is_told_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
