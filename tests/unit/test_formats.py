import csv
import io
import json

import pytest

from gateway.task import Box, Detection, DetectionResult, ImageSize, ServedModel, TaskView
from gateway.web.formats import CSV_COLUMNS, coco, comma_separated, document, picture_type, yolo
from tests.support.shared import reference


def result(*detections: Detection, width: int = 810, height: int = 1080) -> DetectionResult:
    return DetectionResult(ServedModel("yolov5n", "1"), ImageSize(width, height), list(detections), {})


def succeeded(*detections: Detection) -> TaskView:
    return TaskView(task_id="t", status="SUCCESS", state="succeeded", result=result(*detections))


PERSON = Detection("person", 0, 0.82, Box(219.26, 407.82, 349.41, 862.75))
BUS = Detection("bus", 5, 0.52, Box(48.78, 236.83, 810.0, 772.04))


def test_coco_boxes_are_corner_width_and_height() -> None:
    annotation = coco({"t": result(PERSON)}).annotations[0]
    assert annotation.bbox == (219.26, 407.82, 130.15, 454.93)
    assert annotation.area == pytest.approx(130.15 * 454.93, abs=0.01)
    assert (annotation.id, annotation.image_id, annotation.category_id, annotation.score) == (1, 1, 0, 0.82)


def test_coco_refers_to_its_own_images_and_categories() -> None:
    dataset = coco({"a": result(PERSON, BUS), "b": result(), "c": result(BUS, width=900)})
    assert [(image.id, image.file_name, image.width) for image in dataset.images] == [
        (1, "a", 810),
        (2, "b", 810),
        (3, "c", 900),
    ]
    assert [(category.id, category.name) for category in dataset.categories] == [(0, "person"), (5, "bus")]
    assert [(found.id, found.image_id, found.category_id) for found in dataset.annotations] == [
        (1, 1, 0),
        (2, 1, 5),
        (3, 3, 5),
    ]


def test_coco_annotations_have_what_results_need() -> None:
    made = document(succeeded(PERSON), "coco")
    assert made is not None and made.media_type == "application/json" and made.filename == "t.json"
    body = json.loads(made.content)
    assert body.keys() == {"info", "images", "annotations", "categories", "licenses"}
    needed = {"image_id", "category_id", "bbox", "score", "area", "iscrowd", "segmentation"}
    assert needed <= body["annotations"][0].keys()


def test_yolo_lines_are_centres_and_sizes_by_the_images_size() -> None:
    box = Detection("x", 7, 0.5, Box(10, 20, 30, 60))
    assert yolo(result(box, width=100, height=200)) == "7 0.200000 0.200000 0.200000 0.200000\n"


def test_yolo_lines_of_a_whole_image_stay_within_one() -> None:
    whole = Detection("x", 0, 1.0, Box(0, 0, 810, 1080))
    assert yolo(result(whole)) == "0 0.500000 0.500000 1.000000 1.000000\n"


def test_yolo_lines_give_the_boxes_back() -> None:
    for answer in reference(square=False).values():
        width, height = answer["width"], answer["height"]
        found = [Detection(o["label"], o["class_id"], o["score"], Box(*o["box"])) for o in answer["detections"]]
        lines = yolo(result(*found, width=width, height=height)).splitlines()
        for line, detection in zip(lines, found, strict=True):
            class_id, cx, cy, w, h = (float(column) for column in line.split())
            box = detection.box
            assert class_id == detection.class_id
            assert (cx - w / 2) * width == pytest.approx(box.x1, abs=0.01)
            assert (cy - h / 2) * height == pytest.approx(box.y1, abs=0.01)
            assert (cx + w / 2) * width == pytest.approx(box.x2, abs=0.01)
            assert (cy + h / 2) * height == pytest.approx(box.y2, abs=0.01)


def test_csv_has_a_header_and_a_row_an_object() -> None:
    text = comma_separated({"t": result(PERSON, BUS)})
    assert text.split("\r\n") == [
        "task_id,label,class_id,score,x1,y1,x2,y2,image_width,image_height,model,version",
        "t,person,0,0.82,219.26,407.82,349.41,862.75,810,1080,yolov5n,1",
        "t,bus,5,0.52,48.78,236.83,810.0,772.04,810,1080,yolov5n,1",
        "",
    ]


@pytest.mark.parametrize("label", ['a "quoted", one', "Fußgänger", "自転車", "two\nlines", "cr\rlf", ""])
def test_csv_keeps_any_label(label: str) -> None:
    odd = Detection(label, 1, 0.5, Box(0, 0, 1, 1))
    made = document(succeeded(odd), "csv")
    assert made is not None and made.media_type.startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(made.content.decode(), newline="")))
    assert [row["label"] for row in rows] == [label]
    assert tuple(rows[0]) == CSV_COLUMNS


@pytest.mark.parametrize("label", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\r=1"])
def test_no_label_is_a_formula_in_a_spreadsheet(label: str) -> None:
    odd = Detection(label, 1, 0.5, Box(-1, 0, 1, 1))
    (row,) = csv.DictReader(io.StringIO(comma_separated({"t": result(odd)}), newline=""))
    assert (row["label"], row["x1"]) == (f"'{label}", "-1")


def test_an_answer_without_detections_is_empty_and_valid() -> None:
    empty = result()
    assert coco({"t": empty}).annotations == [] and coco({"t": empty}).categories == []
    assert yolo(empty) == ""
    assert comma_separated({"t": empty}).count("\r\n") == 1


@pytest.mark.parametrize(
    "view",
    [
        TaskView(task_id="t", status="PENDING", state="queued"),
        TaskView(task_id="t", status="FAILURE", state="failed", result="the image cannot be decoded"),
    ],
    ids=["pending", "failure"],
)
def test_a_task_without_detections_has_no_other_form(view: TaskView) -> None:
    assert document(view, "csv") is None


def test_json_is_the_task_itself() -> None:
    assert document(succeeded(PERSON), "json") is None


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "image/jpeg"),
        ("", "image/jpeg"),
        ("*/*", "image/jpeg"),
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/avif,image/webp,image/png,image/*;q=0.8,*/*;q=0.5", "image/png"),
        ("image/png;q=0.5, image/jpeg", "image/jpeg"),
        ("image/*, image/jpeg;q=0", "image/png"),
        ("text/html, */*;q=0.1", "image/jpeg"),
        ("image/webp", None),
        ("image/png;q=0", None),
        ("image/png;q=much", None),
        (",;,", None),
    ],
)
def test_picture_type_follows_accept(accept: str | None, expected: str | None) -> None:
    assert picture_type(accept) == expected
