"""What people have of an image, as the bytes that are sent."""

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_gateway.errors import InvalidInput

KINDS = "a path, a URL, bytes, a file opened with 'rb', a PIL image, or a numpy array of uint8"
_PILLOW = 'PIL images and numpy arrays are encoded by Pillow; install it with: pip install "yolo-gateway[images]"'


@dataclass(frozen=True)
class Source:
    """An image that can be read: from a `url`, or by `read`, which raises InvalidInput and may be called again."""

    read: Callable[[], bytes]
    url: str = ""


def source_of(given: Any, bgr: bool = False) -> Source:
    """Nothing is read yet but files that are open: they may be read only once. Raises InvalidInput."""
    if isinstance(given, str) and given.lower().startswith(("http://", "https://")):
        return Source(lambda: b"", given)
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


def _some(data: bytes, what: str) -> bytes:
    if not data:
        raise InvalidInput(f"{what} are empty; give {KINDS}")
    return data


def _of_path(path: Path) -> bytes:
    try:
        return _some(path.read_bytes(), f"{path}: its contents")
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise InvalidInput(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _of_file(file: Any) -> bytes:
    data = file.read()
    if not isinstance(data, bytes):
        raise InvalidInput("the file is opened as text; open it with open(path, 'rb')")
    return _some(data, "the contents of the file, read from where it stood,")


def _png(image: Any) -> bytes:
    """As a viewer shows it: EXIF orientation is applied, as YOLOv5 does with PIL images."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    buffer = io.BytesIO()
    upright.convert("RGB").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _png_of_array(array: Any, bgr: bool) -> bytes:
    try:
        from PIL import Image
    except ImportError as error:
        raise InvalidInput(_PILLOW) from error
    plane = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return _png(Image.fromarray(plane[..., ::-1] if bgr and plane.ndim == 3 else plane))
