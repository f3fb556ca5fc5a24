"""A small data set: pictures on disk, and what was found in them."""

from dataclasses import dataclass
from pathlib import Path

import cv2
from yolo_gateway.formats import coco, yolo
from yolo_gateway.formats.picture import Model, Picture

from tests.support.pictures import encoded, turned

MODEL = Model("shapes", "3", ("circle", "square, red", "“triangle”"))


@dataclass(frozen=True)
class Corners:
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Found:
    label: str
    class_id: int
    score: float
    box: Corners


def found(class_id: int, score: float, *corners: float) -> Found:
    return Found(MODEL.labels[class_id], class_id, score, Corners(*corners))


PICTURES = [
    Picture("one.png", 64, 48, [found(0, 0.9, 3.5, 4.25, 20.75, 40), found(2, 0.5, 0, 0, 64, 48)]),
    Picture("ünï code.jpg", 90, 30, [found(1, 0.25, 10, 11, 12, 13)], ["the file has no end: it was cut"]),
    Picture("upright.jpg", 37, 21, [found(0, 0.75, 1, 2, 36, 20)]),  # stored lying, EXIF turns it
    Picture("without.png", 32, 32, []),
]


def write(folder: Path, form: str, pictures: list[Picture]) -> None:
    """The pictures in `images/`, and their annotations where the readers look for them."""
    for picture in pictures:
        path = folder / "images" / picture.name
        path.parent.mkdir(parents=True, exist_ok=True)
        upright = picture.name == "upright.jpg"
        path.write_bytes(turned(6, ".jpg") if upright else encoded(picture.width, picture.height, path.suffix))
        image = cv2.imread(str(path))
        assert image is not None and image.shape[:2] == (picture.height, picture.width)
    (write_coco if form == "coco" else write_yolo)(folder, pictures)


def write_coco(folder: Path, pictures: list[Picture]) -> None:
    (folder / "annotations").mkdir()
    text = "".join(coco.dataset(lambda: pictures, MODEL))
    (folder / "annotations" / "instances_default.json").write_text(text, encoding="utf-8")


def write_yolo(folder: Path, pictures: list[Picture]) -> None:
    (folder / "classes.txt").write_text(yolo.classes(MODEL), encoding="utf-8")
    (folder / "data.yaml").write_text(yolo.data_yaml(MODEL), encoding="utf-8")
    for picture in pictures:
        path = folder / "labels" / yolo.label_name(picture.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yolo.label_file(picture), encoding="utf-8")
