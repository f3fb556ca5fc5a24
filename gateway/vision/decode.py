"""Encoded bytes → pixels. Worker only: OpenCV stays out of the web process."""

import numpy as np
import numpy.typing as npt

from gateway.errors import InvalidImage
from gateway.vision.header import PNG, ImageHeader
from gateway.vision.opencv import cv2
from gateway.vision.orientation import orientation

_MOST_SCANS = 100  # a progressive JPEG has about ten; each of thousands would be decoded over the whole picture
_FLAGS = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 8: cv2.IMREAD_REDUCED_GRAYSCALE_8}
_MARGIN = 1.5  # a reduced image stays this much larger than the model's input


def reduction(header: ImageHeader, imgsz: int) -> int:
    """By how much, 1, 2, 4 or 8, the sides of an image may shrink while it is decoded for an input of `imgsz` pixels.

    Only JPEG decodes faster so.
    """
    if header.format != "jpeg":
        return 1
    for divisor in (8, 4, 2):
        sides = -(-header.height // divisor), -(-header.width // divisor)
        told_apart = header.height == header.width or sides[0] != sides[1]  # or `upright_hw` could not tell
        if max(sides) >= _MARGIN * imgsz and told_apart:
            return divisor
    return 1


def upright_hw(header: ImageHeader, image: npt.NDArray[np.uint8], reduced: int) -> tuple[int, int]:
    """Height and width in pixels of the upright source of `image`, which was decoded with that reduction."""
    if reduced == 1:
        return image.shape[0], image.shape[1]
    if image.shape[:2] == (-(-header.height // reduced), -(-header.width // reduced)):
        return header.height, header.width
    return header.width, header.height


def decode(data: bytes, reduced: int = 1) -> npt.NDArray[np.uint8]:
    """Decode an encoded image to RGB uint8, shape (height, width, 3), upright (EXIF orientation applied).

    Grey, palette, CMYK and 16-bit images become 8-bit RGB, alpha is dropped, of an animation the first frame counts.
    With `reduced` 2, 4 or 8 the sides are that much shorter, rounded up, each pixel the mean of those it replaces.
    Raises InvalidImage when the pixels cannot be read.
    """
    encoded = np.frombuffer(_critical(data) if data.startswith(PNG) else data, np.uint8)
    if data.startswith(b"\xff\xd8") and _scans(encoded) > _MOST_SCANS:
        raise InvalidImage(f"the JPEG file has more than {_MOST_SCANS} scans; save it anew")
    try:
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | _FLAGS[reduced]
        image = cv2.imdecode(encoded, flags)
    except cv2.error as error:
        raise InvalidImage("the image data cannot be decoded; the file is damaged") from error
    if image is None:
        raise InvalidImage("the image data cannot be decoded; the file is cut or damaged")
    return _upright(np.asarray(image, np.uint8), orientation(data))


def _critical(png: bytes) -> bytes:
    """The file without its ancillary chunks, which change no pixel here: libpng writes a line to standard error for
    each one that it does not like, and 10 MB have room for 800,000.
    """
    parts, position = [PNG], len(PNG)
    while position < len(png):
        end = position + 12 + int.from_bytes(png[position : position + 4])
        if not png[position + 4 : position + 5].islower():
            parts.append(png[position:end])
        position = end
    return b"".join(parts)


def _scans(encoded: npt.NDArray[np.uint8]) -> int:
    """Start-of-scan markers, FF DA at an even or an odd offset, read as words; ten times as fast as bytes.count."""
    pairs = (encoded[start : start + (len(encoded) - start) // 2 * 2].view("<u2") for start in (0, 1))
    return sum(int(np.count_nonzero(each == 0xDAFF)) for each in pairs)


def _upright(image: npt.NDArray[np.uint8], turned: int) -> npt.NDArray[np.uint8]:
    """OpenCV's own turning misses WebP files whose EXIF begins with `Exif`."""
    if turned in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    rows = slice(None, None, -1 if turned in (3, 4, 7, 8) else None)
    columns = slice(None, None, -1 if turned in (2, 3, 6, 7) else None)
    return np.ascontiguousarray(image[rows, columns])
