"""JSON lines: an object an image."""

import json
from collections.abc import Iterable, Iterator

from yolo_gateway.formats.picture import Model, Picture


def line(picture: Picture, model: Model) -> str:
    """One image with its line break; the names are those of the service's own JSON, and `file`."""
    value = {
        "file": picture.name,
        "model": {"name": model.name, "version": model.version},
        "image": {"width": picture.width, "height": picture.height},
        "detections": [
            {
                "label": found.label,
                "class_id": found.class_id,
                "score": found.score,
                "box": {"x1": found.box.x1, "y1": found.box.y1, "x2": found.box.x2, "y2": found.box.y2},
            }
            for found in picture.detections
        ],
        "warnings": list(picture.warnings),
    }
    return json.dumps(value, ensure_ascii=False) + "\n"


def lines(pictures: Iterable[Picture], model: Model) -> Iterator[str]:
    """All of them."""
    for picture in pictures:
        yield line(picture, model)
