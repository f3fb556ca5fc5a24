"""What people have of an image, as the bytes that are sent."""

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from yolo_gateway.errors import InvalidInput

KINDS = "a path, a URL, bytes, a file opened with 'rb', a PIL image, or a numpy array of uint8"
MOST_BYTES = 1 << 30  # of a file: no service takes more, and a device never ends
_EIGHT_BITS = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"})
_PILLOW = 'PIL images and numpy arrays are encoded by Pillow; install it with: pip install "yolo-gateway[images]"'


@dataclass(frozen=True)
class Source:
    """An image that can be read: from a `url`, or by `read`, which raises InvalidInput and may be called again."""

    read: Callable[[], bytes]
    url: str = ""

    def after(self, body: bytes) -> "Source":
        """What is kept once it was sent: what came from a URL is not fetched again."""
        return Source(lambda: body) if self.url else self


def source_of(given: Any, bgr: bool = False) -> Source:
    """Nothing is read yet but files that are open: they may be read only once. Raises InvalidInput."""
    if isinstance(given, str) and given.lower().startswith(("http://", "https://")):
        return Source(lambda: b"", _url(given))
    if isinstance(given, (str, os.PathLike)):
        path = Path(given)
        return Source(lambda: _of_path(path))
    if isinstance(given, (bytes, bytearray, memoryview)):
        data = bytes(given)
        return Source(lambda: _some(data, "the bytes"))
    if _is(given, "PIL.Image", "Image"):
        return Source(lambda: _png(given))
    if _is(given, "numpy", "ndarray"):
        check_array(given)
        return Source(lambda: _png_of_array(given, bgr))
    if hasattr(given, "read"):
        data = _of_file(given)
        return Source(lambda: data)
    raise InvalidInput(f"a {type(given).__name__} is no image; give {KINDS}")


def check_array(array: Any) -> None:
    """Raises InvalidInput unless it is (H, W), (H, W, 1) or (H, W, 3) of uint8."""
    shape = "x".join(map(str, array.shape))
    if str(array.dtype) != "uint8":
        raise InvalidInput(f"a numpy array of {array.dtype} ({shape}); give uint8, 0 to 255, height x width x 3 (RGB)")
    if array.ndim == 3 and array.shape[2] == 4:
        raise InvalidInput(f"a numpy array of {shape}, four channels; give three, such as array[..., :3]")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)) or 0 in array.shape:
        raise InvalidInput(f"a numpy array of {shape}; give one image, height x width x 3 (RGB), or height x width")


def _is(given: object, module: str, name: str) -> bool:
    """Whether it is of a class of a library, which is not imported for that."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(given, getattr(loaded, name))


def _url(given: str) -> str:
    try:
        if httpx.URL(given).host:
            return given
        raise httpx.InvalidURL("it has no host")
    except httpx.InvalidURL as error:
        raise InvalidInput(f"{given!r} is no URL: {error}; give {KINDS}") from error


def _some(data: bytes, what: str) -> bytes:
    if not data:
        raise InvalidInput(f"{what} are empty; give {KINDS}")
    if len(data) > MOST_BYTES:
        raise InvalidInput(f"{what} are more than {MOST_BYTES} bytes; give {KINDS}")
    return data


def _of_path(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        return _some(data, f"{path}: its contents")
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise InvalidInput(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _of_file(file: Any) -> bytes:
    try:
        data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # closed, or opened for writing only
        raise InvalidInput(f"the file cannot be read: {error}; open it with open(path, 'rb')") from error
    if data is None:
        raise InvalidInput("the file has nothing to read yet; it does not block, so read it and give the bytes")
    if not isinstance(data, bytes):
        raise InvalidInput("the file is opened as text; open it with open(path, 'rb')")
    return _some(data, "the contents of the file, read from where it stood,")


def _png(image: Any) -> bytes:
    """As a viewer shows it: EXIF orientation is applied, as YOLOv5 does with PIL images."""
    from PIL import ImageOps

    if image.mode not in _EIGHT_BITS:
        raise InvalidInput(f"a PIL image of mode {image.mode}; give one of 8 bits a channel, such as RGB or L")
    buffer = io.BytesIO()
    try:
        ImageOps.exif_transpose(image).convert("RGB").save(buffer, "PNG", compress_level=1)
    except (OSError, ValueError, SyntaxError) as error:  # its file is only read now: cut, broken or closed
        raise InvalidInput(f"the PIL image cannot be read: {error}; give {KINDS}") from error
    return buffer.getvalue()


def _png_of_array(array: Any, bgr: bool) -> bytes:
    try:
        from PIL import Image
    except ImportError as error:
        raise InvalidInput(_PILLOW) from error
    plane = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return _png(Image.fromarray(plane[..., ::-1] if bgr and plane.ndim == 3 else plane))
