"""Detections drawn into an image: boxes and labels in the colours of the service's own pictures."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from yolo_gateway.colours import class_colour, ink_on
from yolo_gateway.schema import Detection


def draw(data: bytes, detections: Sequence[Detection]) -> Image.Image:
    """An RGB image, upright; the best detections lie on top."""
    with Image.open(io.BytesIO(data)) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    pen = ImageDraw.Draw(image)
    line = max(2, round(max(image.size) / 400))
    font = ImageFont.load_default(max(12, round(max(image.size) / 50)))
    for each in reversed(detections):
        colour = class_colour(each.class_id)
        box = each.box
        x1, y1, x2, y2 = min(box.x1, box.x2), min(box.y1, box.y2), max(box.x1, box.x2), max(box.y1, box.y2)
        pen.rectangle((x1, y1, x2, y2), outline=colour, width=line)
        text = f"{each.label} {each.score:.2f}"
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
        width, height = right - left + 2 * line, bottom - top + 2 * line
        x, y = max(0, min(x1, image.width - width)), y1 - height if y1 >= height else y1
        pen.rectangle((x, y, x + width, y + height), fill=colour)
        pen.text((x + line - left, y + line - top), text, fill=ink_on(colour), font=font)
    return image
