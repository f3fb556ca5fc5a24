"""How an encoded picture is to be turned: the EXIF orientation of JPEG, PNG and WebP files."""

import struct
from collections.abc import Iterator

_ORIENTATION_TAG, _SHORT = 0x0112, 3
_PREFIX = b"Exif\x00\x00"


def orientation(data: bytes) -> int:
    """The EXIF orientation from 1 (upright) to 8; 1 where there is none, or none that makes sense."""
    readers = {b"\xff\xd8": _jpeg_exif, b"\x89P": _png_exif, b"RI": _webp_exif}
    reader = readers.get(data[:2])
    try:
        for exif in reader(data) if reader else ():
            return _of_tiff(exif.removeprefix(_PREFIX))
    except (struct.error, IndexError):
        pass
    return 1


def _of_tiff(tiff: bytes) -> int:
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    (directory,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, directory)
    for index in range(entries):
        tag, kind, count, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * index)
        if tag == _ORIENTATION_TAG:
            return value if kind == _SHORT and count == 1 and 1 <= value <= 8 else 1
    return 1


def _jpeg_exif(data: bytes) -> Iterator[bytes]:
    position = 2
    while data[position] == 0xFF and data[position + 1] not in (0xD9, 0xDA):
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4])
        if marker == 0xFF:
            position += 1  # a fill byte
            continue
        if marker == 0xE1 and data.startswith(_PREFIX, position + 4):
            yield data[position + 4 : position + 2 + length]
        position += 2 + max(length, 2)


def _png_exif(data: bytes) -> Iterator[bytes]:
    position = 8
    while position + 8 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4]), data[position + 4 : position + 8]
        if kind == b"eXIf":
            yield data[position + 8 : position + 8 + length]
        position += 12 + length


def _webp_exif(data: bytes) -> Iterator[bytes]:
    position = 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] == b"EXIF":
            yield data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
