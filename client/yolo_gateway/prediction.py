"""What the client returns: the detections of one image, and what can be made of them."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from yolo_gateway.errors import InvalidInput
from yolo_gateway.formats import coco
from yolo_gateway.formats.picture import Picture
from yolo_gateway.inputs import Source
from yolo_gateway.schema import Detection, ImageSize, ServedModel

if TYPE_CHECKING:
    from PIL.Image import Image
    from supervision import Detections


@dataclass(frozen=True)
class Prediction:
    """The detections of one image, best first.

    Boxes are in pixels of the image as a viewer shows it, of `image.width` x `image.height`. `warnings` says what may
    be wrong, such as a file that was cut. `timings_ms` maps each step of the service to its milliseconds. `raw` is the
    whole answer as plain data.
    """

    task_id: str
    model: ServedModel
    image: ImageSize
    detections: list[Detection]
    timings_ms: dict[str, float]
    warnings: list[str]
    raw: dict[str, Any] = field(repr=False)
    _source: Source | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.detections)

    def to_coco(self, image_id: int = 1, first_id: int = 1) -> list[dict[str, Any]]:
        """COCO annotations: `bbox` is x, y, width, height in pixels; categories count from 1, `class_id` + 1."""
        size = self.image
        return coco.annotations(Picture("", size.width, size.height, self.detections), image_id, first_id)

    def to_supervision(self) -> "Detections":
        """`supervision.Detections`, labels in `data["class_name"]`. Needs the package supervision."""
        import numpy as np
        from supervision import Detections

        rows = [(each.box.x1, each.box.y1, each.box.x2, each.box.y2) for each in self.detections]
        return Detections(
            xyxy=np.array(rows, np.float32).reshape(-1, 4),
            confidence=np.array([each.score for each in self.detections], np.float32),
            class_id=np.array([each.class_id for each in self.detections], int),
            data={"class_name": np.array([each.label for each in self.detections], str)},
        )

    def annotated(self) -> "Image":
        """The image with its detections drawn in, as the service's /image draws them. Needs Pillow.

        An image that was a path is read again. Raises InvalidInput where it cannot be read any more.
        """
        from yolo_gateway.drawing import draw

        if self._source is None:
            raise InvalidInput("this result was read by its task; its image is not here to draw in")
        return draw(self._source.read(), self.detections)


@dataclass(frozen=True)
class Item:
    """One image of many: its number from 0, what was given, and its `result` or its `error`."""

    index: int
    given: Any
    result: Prediction | None = None
    error: Exception | None = None
