"""Small pictures for tests, made by OpenCV or by hand."""

import struct
import zlib

import cv2
import numpy as np
import numpy.typing as npt

RGB = npt.NDArray[np.uint8]


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


def turned(turn: int, suffix: str, order: str = "<", prefix: bytes = b"", picture: RGB | None = None) -> bytes:
    """A picture, the gradient of 37x21 when none is given, stored the way that EXIF orientation `turn` undoes."""
    stored = gradient(37, 21) if picture is None else picture
    rows, columns = turn in (3, 4, 7, 8), turn in (2, 3, 6, 7)
    stored = stored[:: -1 if rows else 1, :: -1 if columns else 1]
    if turn > 4:
        stored = stored.transpose(1, 0, 2)
    whole = [
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]  # else colours move as it is turned
    quality = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 100, *whole], ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101], ".png": []}[
        suffix
    ]
    done, data = cv2.imencode(suffix, np.ascontiguousarray(stored[..., ::-1]), quality)
    assert done
    return with_exif(data.tobytes(), suffix, prefix + exif(turn, order))


def exif(turn: int, order: str = "<", count: int = 1) -> bytes:
    """A TIFF structure with one entry before the orientation."""
    entries = struct.pack(order + "HHIHH", 0x010F, 2, 1, 0, 0) + struct.pack(order + "HHIHH", 0x0112, 3, count, turn, 0)
    return {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, 2) + entries + bytes(4)


def with_exif(data: bytes, suffix: str, content: bytes) -> bytes:
    """The file with EXIF in the place where its format keeps it."""
    if suffix == ".jpg":
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 8) + b"Exif\0\0" + content + data[2:]
    if suffix == ".png":
        chunk = b"eXIf" + content
        return data[:33] + struct.pack(">I", len(content)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    first = data[12:]
    bits = int.from_bytes(first[9:13], "little")  # VP8L
    canvas = (bits & 0x3FFF).to_bytes(3, "little") + (bits >> 14 & 0x3FFF).to_bytes(3, "little")
    body = (
        b"WEBPVP8X" + struct.pack("<II", 10, 8) + canvas + first + b"EXIF" + struct.pack("<I", len(content)) + content
    )
    body += bytes(len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body
