"""The forms of a result other than its JSON: COCO, YOLO, CSV; and which kind of picture a client prefers.

Sources of the formats:
    COCO   https://cocodataset.org/#format-data: bbox is [x, y, width, height] in pixels from the top left corner,
           0-based, area is width times height; #format-results: image_id, category_id, bbox, score.
    YOLO   one text file an image, a line an object: class x_center y_center width height [confidence], all but the
           class normalised by the image's width and height, as YOLOv5's `--save-txt [--save-conf]` writes and reads.
    CSV    RFC 4180: comma, CRLF, a header line, quotes doubled within quotes.
"""

import csv
import io
from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

from gateway.task import DetectionResult, TaskView

Format = Literal["json", "coco", "yolo", "csv"]
PictureType = Literal["image/jpeg", "image/png"]

CSV_COLUMNS = (
    "task_id",
    "label",
    "class_id",
    "score",
    "x1",
    "y1",
    "x2",
    "y2",
    "image_width",
    "image_height",
    "model",
    "version",
)


class CocoImage(msgspec.Struct):
    """`file_name` is the task id: the service never learns the name of an upload."""

    id: int
    file_name: str
    width: int
    height: int


class CocoCategory(msgspec.Struct):
    """A class of the model, under the model's own id."""

    id: int
    name: str
    supercategory: str = ""


class CocoAnnotation(msgspec.Struct):
    """One object: an annotation with the `score` of a result. `bbox` is x, y, width, height in pixels."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    score: float
    segmentation: list[list[float]] = []
    iscrowd: int = 0


class CocoDataset(msgspec.Struct):
    """A data set that loads as it is; `annotations` alone is a list of COCO results."""

    info: dict[str, str]
    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]
    licenses: list[dict[str, str]] = []


class Document(msgspec.Struct, frozen=True):
    """A body with its `Content-Type` and the name to save it under."""

    content: bytes
    media_type: str
    filename: str


def document(view: TaskView, form: Format) -> Document | None:
    """A task's result in one of the forms; None while there is none (PENDING, FAILURE) or when JSON is asked for:
    such a task is shown as it is.
    """
    if not isinstance(view.result, DetectionResult):
        return None
    if form == "coco":
        content = msgspec.json.encode(coco({view.task_id: view.result}))
        return Document(content, "application/json", f"{view.task_id}.json")
    if form == "yolo":
        return Document(yolo(view.result).encode(), "text/plain; charset=utf-8", f"{view.task_id}.txt")
    if form == "csv":
        text = comma_separated({view.task_id: view.result})
        return Document(text.encode(), "text/csv; charset=utf-8; header=present", f"{view.task_id}.csv")
    return None


def coco(results: Mapping[str, DetectionResult]) -> CocoDataset:
    """Results by task id → one COCO data set; images and annotations count from 1 in the order given.

    Categories are those that occur, by id. The models that answered stand in `info`.
    """
    images: list[CocoImage] = []
    annotations: list[CocoAnnotation] = []
    labels: dict[int, str] = {}
    for image_id, (task_id, result) in enumerate(results.items(), 1):
        images.append(CocoImage(image_id, task_id, result.image.width, result.image.height))
        for found in result.detections:
            labels[found.class_id] = found.label
            width, height = found.box.x2 - found.box.x1, found.box.y2 - found.box.y1
            annotations.append(
                CocoAnnotation(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=found.class_id,
                    bbox=(found.box.x1, found.box.y1, round(width, 2), round(height, 2)),
                    area=round(width * height, 2),
                    score=found.score,
                )
            )
    models = sorted({f"{result.model.name} version {result.model.version}" for result in results.values()})
    categories = [CocoCategory(class_id, label) for class_id, label in sorted(labels.items())]
    return CocoDataset({"description": f"detections of {', '.join(models)}"}, images, annotations, categories)


def yolo(result: DetectionResult) -> str:
    """A label file: one line per object, best first; empty when there is none.

    Without scores, so that it can be trained on: YOLOv5's loader takes exactly five columns.
    """
    width, height = result.image.width, result.image.height
    lines = []
    for found in result.detections:
        box = found.box
        columns = [
            (box.x1 + box.x2) / 2 / width,
            (box.y1 + box.y2) / 2 / height,
            (box.x2 - box.x1) / width,
            (box.y2 - box.y1) / height,
        ]
        lines.append(f"{found.class_id} " + " ".join(f"{column:.6f}" for column in columns) + "\n")
    return "".join(lines)


def comma_separated(results: Mapping[str, DetectionResult]) -> str:
    """Results by task id → a table of CSV_COLUMNS with a row an object, boxes in pixels of the upright source image.

    A label that a spreadsheet would take for a formula has an apostrophe before it.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text)  # its default dialect is RFC 4180's
    table.writerow(CSV_COLUMNS)
    for task_id, result in results.items():
        for found in result.detections:
            box, image, model = found.box, result.image, result.model
            corners = (box.x1, box.y1, box.x2, box.y2)
            what = (task_id, _no_formula(found.label), found.class_id, found.score)
            table.writerow((*what, *corners, image.width, image.height, model.name, model.version))
    return text.getvalue()


def _no_formula(text: str) -> str:
    """https://owasp.org/www-community/attacks/CSV_Injection"""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def picture_type(accept: str | None) -> PictureType | None:
    """What a client with this `Accept` header gets of JPEG and PNG; None if neither will do (406).

    The higher quality wins, JPEG on a tie; of several ranges that match, the most specific counts (RFC 9110, 12.5.1).
    """
    if accept is None or not accept.strip():
        return "image/jpeg"
    qualities = dict(_range(item) for item in accept.split(",") if item.strip())
    best: PictureType | None = None
    best_quality = 0.0
    for offered in get_args(PictureType):
        quality = next((qualities[name] for name in (offered, "image/*", "*/*") if name in qualities), 0.0)
        if quality > best_quality:
            best, best_quality = offered, quality
    return best


def _range(item: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in item.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return name, min(max(float(parameter[2:]), 0.0), 1.0)
            except ValueError:
                return name, 0.0
    return name, 1.0
