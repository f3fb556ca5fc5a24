"""Small pictures for tests, made by OpenCV or by hand."""

import struct
import zlib

import cv2
import numpy as np
import numpy.typing as npt


def gradient(width: int, height: int) -> npt.NDArray[np.uint8]:
    """An RGB picture (height, width, 3) in which left and right, up and down differ."""
    columns = np.linspace(0, 255, width, dtype=np.uint8)
    rows = np.linspace(0, 255, height, dtype=np.uint8)
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0], picture[..., 1] = columns[None], rows[:, None]
    return picture


def encoded(width: int, height: int, suffix: str = ".png") -> bytes:
    """The gradient as a file of the type that `suffix` names."""
    done, data = cv2.imencode(suffix, gradient(width, height)[..., ::-1])
    assert done
    return data.tobytes()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels: what a decompression bomb looks like from outside."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
