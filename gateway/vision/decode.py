"""Encoded bytes → pixels. Worker only: OpenCV stays out of the web process."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.errors import InvalidImage
from gateway.vision import jpeg
from gateway.vision.header import PNG, ImageHeader
from gateway.vision.opencv import cv2
from gateway.vision.orientation import orientation

_MOST_SCANS = 100  # a progressive JPEG has about ten; each of thousands would be decoded over the whole picture
_FLAGS = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 8: cv2.IMREAD_REDUCED_GRAYSCALE_8}
CUT = "the file has no end: what was cut off the picture is grey, and nothing is found there"
CUT_BEHIND = "the file has no end; nothing of the picture is missing"
# A segment of a JPEG that is cut takes what follows for its own, up to 64 kB; imread goes on giving ends, too.
_ENDS = {
    b"\xff\xd8": (CUT, [b"\xff\xd9" * 33_000]),
    PNG: (CUT_BEHIND, [bytes(4) + b"IEND\xae\x42\x60\x82"]),
    b"GIF8": (CUT_BEHIND, [b";", b"\0;"]),
}
# What decoding takes at its peak, a pixel: measured of the costliest file of each format, see docs/reliability.md.
_PEAK_BYTES = {"jpeg": 11, "png": 6, "webp": 11, "gif": 12, "bmp": 6}
_MARGIN = 1.5  # a reduced image stays this much larger than the model's input


def reduction(header: ImageHeader, imgsz: int) -> int:
    """By how much, 1, 2, 4 or 8, the sides of an image may shrink while it is decoded for an input of `imgsz` pixels.

    Only JPEG decodes faster so.
    """
    if header.format != "jpeg":
        return 1
    for divisor in (8, 4, 2):
        sides = -(-header.height // divisor), -(-header.width // divisor)
        distinct = header.height == header.width or sides[0] != sides[1]  # or `upright_hw` could not tell
        if max(sides) >= _MARGIN * imgsz and distinct:
            return divisor
    return 1


def peak_bytes(header: ImageHeader, encoded_bytes: int) -> int:
    """The memory that decoding an image of this header takes at its peak, at most; with two copies of the file."""
    return header.width * header.height * _PEAK_BYTES[header.format] + 2 * encoded_bytes


def upright_hw(header: ImageHeader, image: npt.NDArray[np.uint8], reduced: int) -> tuple[int, int]:
    """Height and width in pixels of the upright source of `image`, which was decoded with that reduction."""
    if reduced == 1:
        return image.shape[0], image.shape[1]
    if image.shape[:2] == (-(-header.height // reduced), -(-header.width // reduced)):
        return header.height, header.width
    return header.width, header.height


class Decoded(NamedTuple):
    """RGB uint8, shape (height, width, 3), upright; and what the client should know of the file."""

    pixels: npt.NDArray[np.uint8]
    warnings: list[str]


def decode(data: bytes, reduced: int = 1) -> npt.NDArray[np.uint8]:
    """The pixels alone of `decode_with_warnings`."""
    return decode_with_warnings(data, reduced).pixels


def decode_with_warnings(data: bytes, reduced: int = 1) -> Decoded:
    """Decode an encoded image, upright (the orientation in its EXIF or XMP is applied).

    Grey, palette, CMYK and 16-bit images become 8-bit RGB, alpha is dropped, of an animation the first frame counts.
    With `reduced` 2, 4 or 8 the sides are that much shorter, rounded up, each pixel the mean of those it replaces.

    A file without its end is taken where OpenCV's `imread`, with which YOLOv5 reads, or Pillow takes it, and a warning
    says so: a JPEG cut anywhere, a PNG or GIF that lacks no pixel. Raises InvalidImage when the pixels cannot be read.
    """
    if data.startswith(b"\xff\xd8") and jpeg.has_more_scans_than(_MOST_SCANS, data):
        raise InvalidImage(f"the JPEG file has more than {_MOST_SCANS} scans; save it anew")
    stored = _critical(data) if data.startswith(PNG) else data
    pixels, warnings = _pixels(stored, reduced), list[str]()
    for start, (warning, ends) in _ENDS.items():
        for end in ends if pixels is None and data.startswith(start) else ():
            pixels, warnings = _pixels(stored + end, reduced), [warning]
            if pixels is not None:
                break
    if pixels is None:
        raise InvalidImage("the image data cannot be decoded; the file is cut or damaged")
    return Decoded(_upright(pixels, orientation(data)), warnings)


def _pixels(data: bytes, reduced: int) -> npt.NDArray[np.uint8] | None:
    try:
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | _FLAGS[reduced]
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InvalidImage("the image data cannot be decoded; the file is damaged") from error
    return None if image is None else np.asarray(image, np.uint8)


def _critical(png: bytes) -> bytes:
    """The file without its ancillary chunks, which change no pixel here: libpng writes a line to standard error for
    each one that it does not like, and 10 MB have room for 800,000. A chunk that is cut is left out.
    """
    parts, position = [PNG], len(PNG)
    while position < len(png):
        end = position + 12 + int.from_bytes(png[position : position + 4])
        if end <= len(png) and not png[position + 4 : position + 5].islower():
            parts.append(png[position:end])
        position = end
    return b"".join(parts)


def _upright(image: npt.NDArray[np.uint8], turned: int) -> npt.NDArray[np.uint8]:
    """OpenCV's own turning misses WebP files whose EXIF begins with `Exif`."""
    if turned in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    rows = slice(None, None, -1 if turned in (3, 4, 7, 8) else None)
    columns = slice(None, None, -1 if turned in (2, 3, 6, 7) else None)
    return np.ascontiguousarray(image[rows, columns])
