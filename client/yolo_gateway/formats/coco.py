"""COCO: one data set of many images, https://cocodataset.org/#format-data with the score of its results format."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from yolo_gateway.formats.picture import Model, Picture


def category_id(class_id: int) -> int:
    """Categories count from 1: readers take category 0 for the background (Datumaro, which CVAT's is made of)."""
    return class_id + 1


def categories(model: Model) -> list[dict[str, Any]]:
    """All classes of the model, found or not."""
    return [{"id": category_id(index), "name": label, "supercategory": ""} for index, label in enumerate(model.labels)]


def image(picture: Picture, image_id: int) -> dict[str, Any]:
    """What COCO says of an image; `warnings` of the service are kept where there are any."""
    entry = {"id": image_id, "file_name": picture.name, "width": picture.width, "height": picture.height}
    return entry | ({"warnings": list(picture.warnings)} if picture.warnings else {})


def annotations(picture: Picture, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """Its detections, best first; `bbox` is x, y, width, height in pixels. Their ids count from `first_id`."""
    found = []
    for number, each in enumerate(picture.detections, first_id):
        width, height = each.box.x2 - each.box.x1, each.box.y2 - each.box.y1
        found.append(
            {
                "id": number,
                "image_id": image_id,
                "category_id": category_id(each.class_id),
                "bbox": [each.box.x1, each.box.y1, round(width, 2), round(height, 2)],
                "area": round(width * height, 2),
                "score": each.score,
                "segmentation": [],
                "iscrowd": 0,
            }
        )
    return found


def dataset(pictures: Callable[[], Iterable[Picture]], model: Model) -> Iterator[str]:
    """The text of one data set, a line an image or annotation; ids count from 1 in the order given.

    `pictures` is called twice and must give the same each time, so that not all need be in memory.
    """
    info = {"description": f"detections of {model.name} version {model.version}"}
    yield f'{{"info": {_json(info)},\n"licenses": [],\n"categories": {_json(categories(model))},\n"images": ['
    yield from _items(image(each, number) for number, each in enumerate(pictures(), 1))
    yield '],\n"annotations": ['
    yield from _items(_all_annotations(pictures()))
    yield "]}\n"


def _all_annotations(pictures: Iterable[Picture]) -> Iterator[dict[str, Any]]:
    next_id = 1
    for image_id, picture in enumerate(pictures, 1):
        found = annotations(picture, image_id, next_id)
        next_id += len(found)
        yield from found


def _items(entries: Iterable[dict[str, Any]]) -> Iterator[str]:
    for number, entry in enumerate(entries):
        yield (",\n" if number else "\n") + _json(entry)


def _json(value: object) -> str:
    return json.dumps(value)  # all of it ASCII: some readers open the file in the encoding of their locale
