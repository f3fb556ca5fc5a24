"""The annotated picture, for people to look at: boxes and labels drawn over the image.

Text is set with the fonts that OpenCV 5 carries: Latin, Greek, Cyrillic, Chinese, Japanese and Korean. A label in a
script that they lack, or that runs from right to left, which OpenCV cannot set, is drawn as `#` and the class id.
"""

import threading
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gateway.task import Detection, DetectionResult
from gateway.vision.colours import Colour, class_colour, ink_on
from gateway.vision.opencv import cv2

LONGEST_SIDE, LEAST_SIDE = 1920, 480
_WEIGHT = 500
_LINE_HEIGHT = 1.25  # of the font's size, which is its ascent
_HIDDEN, _LATER = 4.0, 0.03  # what a hidden label and a later place cost, when a hidden box costs 1
_TOO_HIDDEN = 0.25
_JPEG_QUALITY = 90

Picture = npt.NDArray[np.uint8]
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom are outside


@dataclass(frozen=True, slots=True)
class _Pen:
    """What grows with the picture, in pixels."""

    line: int
    font: int
    padding: int

    @classmethod
    def of(cls, picture: Picture) -> "_Pen":
        side = (picture.shape[0] + picture.shape[1]) / 2
        font = round(10 + side / 100)
        return cls(line=max(2, round(font / 10)), font=font, padding=round(font / 5))


@dataclass(frozen=True, slots=True)
class _Tag:
    """A label in its place."""

    text: str
    place: Rectangle
    colour: Colour


def annotate(image: Picture, result: DetectionResult, *, longest_side: int = LONGEST_SIDE) -> Picture:
    """Draw the detections into a copy of the image.

    `image` is RGB uint8 (height, width, 3): the source image or a smaller decoding of it, since boxes are scaled from
    `result.image`. The picture, of the same kind, keeps the aspect ratio; its longest side is at most `longest_side`
    pixels, and at least LEAST_SIDE, so that labels can be read on a thumbnail too. Best detections lie on top.
    """
    picture = resized(image, longest_side)
    pen = _Pen.of(picture)
    height, width = picture.shape[:2]
    scale = np.array([width / result.image.width, height / result.image.height] * 2)
    boxes = []
    for found in result.detections:
        corners = np.array([found.box.x1, found.box.y1, found.box.x2, found.box.y2])
        left, top, right, bottom = np.rint(corners * scale).astype(int).tolist()
        boxes.append((left, top, right, bottom))
    tags = _tags(result.detections, boxes, pen, width, height)
    for found, box in reversed(list(zip(result.detections, boxes, strict=True))):
        _draw_box(picture, box, class_colour(found.class_id), pen)
    for tag in reversed(tags):
        _draw_tag(picture, tag, pen)
    return picture


def encode(image: Picture) -> dict[str, bytes]:
    """An RGB uint8 (height, width, 3) image as JPEG and as PNG, by media type."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    _, png = cv2.imencode(".png", bgr)  # OpenCV's default is its fast one
    return {"image/jpeg": jpeg.tobytes(), "image/png": png.tobytes()}


def resized(image: Picture, longest_side: int = LONGEST_SIDE) -> Picture:
    """A copy whose longest side is between LEAST_SIDE and `longest_side`: what `annotate` draws into."""
    height, width = image.shape[:2]
    side = max(height, width)
    target = min(max(side, LEAST_SIDE), longest_side)
    if target == side:
        return image.copy()
    size_wh = max(1, round(width * target / side)), max(1, round(height * target / side))
    shrink = side // target
    if shrink > 1 and shrink <= min(height, width):  # averaging whole pixels is ten times as fast as parts of them
        height, width = height // shrink, width // shrink
        whole = image[: height * shrink, : width * shrink]
        image = np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    method = cv2.INTER_LINEAR if target < side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size_wh, interpolation=method), np.uint8)


def _draw_box(picture: Picture, box: Rectangle, colour: Colour, pen: _Pen) -> None:
    """The line is inside the picture and has a dark edge, to show on any ground."""
    height, width = picture.shape[:2]
    inset = pen.line // 2
    left, top = max(box[0], inset), max(box[1], inset)
    right, bottom = min(box[2], width - 1 - inset), min(box[3], height - 1 - inset)
    cv2.rectangle(picture, (left, top), (right, bottom), (0, 0, 0), pen.line + 2)
    cv2.rectangle(picture, (left, top), (right, bottom), colour, pen.line)


def _draw_tag(picture: Picture, tag: _Tag, pen: _Pen) -> None:
    left, top, right, bottom = tag.place
    cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), tag.colour, cv2.FILLED)
    origin = (left + pen.padding, top + pen.padding + pen.font)
    cv2.putText(picture, tag.text, origin, ink_on(tag.colour), _font(), pen.font, _WEIGHT)


def _tags(detections: list[Detection], boxes: list[Rectangle], pen: _Pen, width: int, height: int) -> list[_Tag]:
    """Each label next to its box, where it hides least; none if better ones would hide a quarter of it."""
    boxes_xyxy = np.array(boxes, np.int64).reshape(-1, 4)
    box_areas = np.maximum((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1), 1)
    taken = np.zeros((0, 4), np.int64)
    tags = []
    for found, box in zip(detections, boxes, strict=True):
        text = _text(found, pen, width)
        tag_wh = (_text_width(text, pen.font) + 2 * pen.padding, round(pen.font * _LINE_HEIGHT) + 2 * pen.padding)
        places = _places(box, tag_wh, pen, width, height)
        hidden = _shared(places, taken).sum(axis=1) / (tag_wh[0] * tag_wh[1])
        hiding = (_shared(places, boxes_xyxy) / box_areas).sum(axis=1)
        best = int(np.argmin(_HIDDEN * hidden + hiding + _LATER * np.arange(len(places))))
        if hidden[best] > _TOO_HIDDEN:
            continue
        taken = np.vstack([taken, places[best : best + 1]])
        left, top, right, bottom = places[best].tolist()
        tags.append(_Tag(text, (left, top, right, bottom), class_colour(found.class_id)))
    return tags


def _places(box: Rectangle, tag_wh: tuple[int, int], pen: _Pen, width: int, height: int) -> npt.NDArray[np.int64]:
    """Where a label may go, (N, 4): above the box, below it, next to it, in its corners; all within the picture."""
    left, top, right, bottom = box
    tag_width, tag_height = tag_wh
    outer = pen.line // 2 + 1
    left, top, right, bottom = left - outer, top - outer, right + outer, bottom + outer
    above, below = top - tag_height + 2 * outer, bottom - 2 * outer
    corners = [(x, y) for y in (above, below) for x in (left, right - tag_width)]
    corners += [(right, top), (left - tag_width, top)]
    corners = [(x, y) for x, y in corners if 0 <= y <= height - tag_height]
    corners += [(x, y) for y in (top, bottom - tag_height) for x in (left, right - tag_width)]
    kept = np.clip(np.array(corners, np.int64), 0, [max(0, width - tag_width), max(0, height - tag_height)])
    return np.hstack([kept, kept + tag_wh])


def _shared(places: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Pixels that each of (N, 4) rectangles shares with each of (M, 4) others: (N, M)."""
    least = np.minimum(places[:, None, 2:], others[None, :, 2:])
    most = np.maximum(places[:, None, :2], others[None, :, :2])
    return np.asarray(np.clip(least - most, 0, None).prod(axis=2), np.int64)


def _text(found: Detection, pen: _Pen, width: int) -> str:
    """The label, cut to fit the picture, and the score."""
    label = " ".join(unicodedata.normalize("NFC", found.label).split())
    if not label or not all(_drawable(character) for character in label):
        label = f"#{found.class_id}"
    text = f"{label} {found.score:.2f}"
    while _text_width(text, pen.font) + 2 * pen.padding > width and label:
        label = label[: len(label) * 3 // 4]
        text = f"{label}… {found.score:.2f}"
    return text


def _text_width(text: str, size: int) -> int:
    left, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), _font(), size, _WEIGHT)
    return int(left + width)


@lru_cache(maxsize=4096)
def _drawable(character: str) -> bool:
    """Whether the fonts have the character: OpenCV draws `?` for those that they lack."""
    if unicodedata.bidirectional(character) in {"R", "AL"}:
        return False
    return character in " ?" or not np.array_equal(_glyph(character), _glyph("?"))


def _glyph(character: str) -> Picture:
    canvas = np.zeros((32, 48, 3), np.uint8)
    cv2.putText(canvas, character, (8, 24), (255, 255, 255), _font(), 20, _WEIGHT)
    return canvas


class _Fonts(threading.local):
    """A font a thread: OpenCV's faces keep the size and weight in use and are not safe to share."""

    def __init__(self) -> None:
        self.sans = cv2.FontFace("sans")


_fonts = _Fonts()


def _font() -> cv2.FontFace:
    return _fonts.sans
