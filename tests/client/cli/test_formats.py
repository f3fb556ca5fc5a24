"""Annotation files, read by pycocotools and by the standard library."""

import csv
import io
import json
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from pycocotools.coco import COCO
from yolo_gateway.formats import coco, json_lines, table, yolo
from yolo_gateway.formats.picture import Model, Picture

from tests.client.cli.datasets import MODEL, PICTURES, found, write


def test_pycocotools_reads_every_box_of_every_image(tmp_path: Path) -> None:
    write(tmp_path, "coco", PICTURES)
    data = COCO(str(tmp_path / "annotations" / "instances_default.json"))
    assert [each["name"] for each in data.loadCats(data.getCatIds())] == list(MODEL.labels)
    for picture, image in zip(PICTURES, data.loadImgs(data.getImgIds()), strict=True):
        assert (image["file_name"], image["width"], image["height"]) == (picture.name, picture.width, picture.height)
        anns = data.loadAnns(data.getAnnIds(imgIds=[image["id"]]))
        names = [data.loadCats([each["category_id"]])[0]["name"] for each in anns]
        assert names == [each.label for each in picture.detections]
        corners = [[x, y, x + w, y + h] for x, y, w, h in (each["bbox"] for each in anns)]
        assert corners == [[each.box.x1, each.box.y1, each.box.x2, each.box.y2] for each in picture.detections]
        assert [each["score"] for each in anns] == [each.score for each in picture.detections]


def test_pycocotools_takes_the_annotations_as_results(tmp_path: Path) -> None:
    write(tmp_path, "coco", PICTURES)
    data = COCO(str(tmp_path / "annotations" / "instances_default.json"))
    assert len(data.loadRes(data.loadAnns(data.getAnnIds())).getAnnIds()) == 4


def test_no_category_is_zero() -> None:
    assert [each["id"] for each in coco.categories(MODEL)] == [1, 2, 3]


def test_coco_of_no_images_is_a_data_set() -> None:
    data = json.loads("".join(coco.dataset(lambda: [], MODEL)))
    assert (data["images"], data["annotations"], len(data["categories"])) == ([], [], 3)


def test_a_warning_of_the_service_stays_with_its_image() -> None:
    images = json.loads("".join(coco.dataset(lambda: PICTURES, MODEL)))["images"]
    assert [each.get("warnings") for each in images] == [None, ["the file has no end: it was cut"], None, None]


@pytest.mark.parametrize(
    "label",
    ["yes", 'with "quotes" and \\', "two\nlines", "next\x85line", "\x7f\x00", "犬 🐕", "- # : {}", " spaces "],
)
def test_a_label_survives_yaml(label: str) -> None:
    assert yaml.safe_load(yolo.data_yaml(Model("m", "1", [label])))["names"] == {0: label}


def test_a_class_is_one_line_of_classes_txt() -> None:
    assert yolo.classes(Model("m", "1", ["two\nlines", "犬"])) == "two lines\n犬\n"


def test_csv_has_a_row_an_object() -> None:
    rows = list(csv.DictReader(io.StringIO("".join(table.table(PICTURES, MODEL)), newline="")))
    assert [(row["file"], row["label"]) for row in rows] == [
        ("one.png", "circle"),
        ("one.png", "“triangle”"),
        ("ünï code.jpg", "square, red"),
        ("upright.jpg", "circle"),
    ]
    assert [float(rows[0][side]) for side in ("x1", "y1", "x2", "y2", "score")] == [3.5, 4.25, 20.75, 40, 0.9]
    assert (rows[2]["image_width"], rows[2]["image_height"]) == ("90", "30")
    assert (rows[0]["model"], rows[0]["version"]) == ("shapes", "3")


def test_a_spreadsheet_runs_neither_a_name_nor_a_label() -> None:
    picture = Picture("=cmd|' /C calc'!A1.jpg", 9, 9, [found(0, 0.5, 1, 2, 3, 4)])
    (row,) = csv.DictReader(io.StringIO(table.header() + table.rows(picture, MODEL)))
    assert row["file"] == "'" + picture.name


def test_a_name_with_a_line_break_stays_one_name() -> None:
    picture = Picture("two\nlines.jpg", 9, 9, [found(0, 0.5, 1, 2, 3, 4)])
    (row,) = csv.DictReader(io.StringIO(table.header() + table.rows(picture, MODEL), newline=""))
    (line,) = json_lines.lines([picture], MODEL)
    image = json.loads("".join(coco.dataset(lambda: [picture], MODEL)))["images"][0]
    assert row["file"] == json.loads(line)["file"] == image["file_name"] == picture.name
    assert line.count("\n") == 1


def test_json_lines_have_the_names_of_the_service() -> None:
    first, *_ = json_lines.lines(PICTURES, MODEL)
    assert json.loads(first) == {
        "file": "one.png",
        "model": {"name": "shapes", "version": "3"},
        "image": {"width": 64, "height": 48},
        "detections": [
            {"label": "circle", "class_id": 0, "score": 0.9, "box": {"x1": 3.5, "y1": 4.25, "x2": 20.75, "y2": 40}},
            {"label": "“triangle”", "class_id": 2, "score": 0.5, "box": {"x1": 0, "y1": 0, "x2": 64, "y2": 48}},
        ],
        "warnings": [],
    }
