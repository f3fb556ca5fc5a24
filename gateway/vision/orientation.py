"""How an encoded picture is to be turned: the orientation that JPEG, PNG and WebP files hold as EXIF or XMP.

Pillow reads the EXIF; the blocks are found here, since Pillow's readers of whole files have no bounds. The places are
those of `Image.getexif` in Pillow.
"""

import re
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Literal

from PIL import Image

from gateway.vision import jpeg

_ORIENTATION_TAG = 0x0112
_AS_STORED = b"\x01\x12", b"\x12\x01"  # by the two orders of bytes: a block has one of them, or not the tag
_EXIF, _XMP = b"Exif\x00\x00", b"http://ns.adobe.com/xap/1.0/\x00"
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_MOST_BLOCKS, _MOST_EXIF_BLOCKS = 64, 16  # one of EXIF may take 9 ms
_MOST_BYTES = 65_536  # of a block: what EXIF in a JPEG can have; Pillow copies what each of its tags points at


def orientation(data: bytes) -> int:
    """The orientation from 1 (upright) to 8, as in EXIF; 1 where there is none, or none that makes sense."""
    readers = {b"\xff\xd8": _jpeg_blocks, b"\x89P": _png_blocks, b"RI": _webp_blocks}
    reader = readers.get(data[:2])
    if reader is None:
        return 1
    blocks = [block[:_MOST_BYTES] for block in islice(reader(data), _MOST_BLOCKS)]
    for block in islice((each for each in blocks if each.startswith((_EXIF, b"II", b"MM"))), _MOST_EXIF_BLOCKS):
        value = _of_exif(block)
        if value is not None:
            return value if value in range(1, 9) else 1
    found = filter(None, map(_IN_XMP.search, blocks))
    return next((turn for match in found if (turn := int(match[1])) in range(1, 9)), 1)


def _of_exif(block: bytes) -> int | None:
    if not any(tag in block for tag in _AS_STORED):
        return None
    exif = Image.Exif()
    try:
        exif.load(block)
        value = int(exif[_ORIENTATION_TAG])
    except Exception:  # whatever Pillow's reader meets in a broken block, and where it lacks the tag
        value = 0
    return value if value in range(1, 9) else _as_short(block.removeprefix(_EXIF))


def _as_short(tiff: bytes) -> int | None:
    """The orientation where the tag has a type or a count that Pillow does not take: OpenCV reads a SHORT always.

    TIFF 6.0, section 2: the directory is a count and entries of 12 bytes, the value from the ninth on.
    """
    order: Literal["little", "big"] = "little" if tiff.startswith(b"II") else "big"
    at = int.from_bytes(tiff[4:8], order)
    for entry in range(at + 2, at + 2 + 12 * int.from_bytes(tiff[at : at + 2], order), 12):
        if entry + 12 > len(tiff):
            return None
        if int.from_bytes(tiff[entry : entry + 2], order) == _ORIENTATION_TAG:
            return int.from_bytes(tiff[entry + 8 : entry + 10], order)
    return None


def _jpeg_blocks(data: bytes) -> Iterator[bytes]:
    for marker, position in jpeg.segments(data):
        if marker == jpeg.START_OF_SCAN:
            return
        if marker == 0xE1 and data.startswith((_EXIF, _XMP), position + 2):
            yield data[position + 2 : position + int.from_bytes(data[position : position + 2])]


def _png_blocks(data: bytes) -> Iterator[bytes]:
    position = 8
    while position + 8 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4]), data[position + 4 : position + 8]
        content = data[position + 8 : position + 8 + length]
        if kind == b"eXIf":
            yield content
        elif kind == b"iTXt" and content.startswith(b"XML:com.adobe.xmp\0"):
            yield _text(content)
        elif kind in (b"tEXt", b"zTXt") and content.startswith(b"Raw profile type exif\0"):
            yield _raw_profile(kind, content)
        position += 12 + length


def _webp_blocks(data: bytes) -> Iterator[bytes]:
    position = 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] in (b"EXIF", b"XMP "):
            yield data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2


def _text(chunk: bytes) -> bytes:
    """The text of an iTXt chunk: keyword, whether and how it is compressed, language, keyword again. PNG 11.3.4.5."""
    keyword_end = chunk.index(b"\0")
    *_, text = chunk[keyword_end + 3 :].split(b"\0", 2)
    return _inflated(text) if chunk[keyword_end + 1 : keyword_end + 2] == b"\1" else text


def _raw_profile(kind: bytes, chunk: bytes) -> bytes:
    """ImageMagick's EXIF: three lines of headings, then hexadecimal digits."""
    text = chunk.partition(b"\0")[2]
    lines = (_inflated(text[1:]) if kind == b"zTXt" else text[: 3 * _MOST_BYTES]).split(b"\n")
    try:
        return bytes.fromhex(b"".join(lines[3:]).decode("ascii"))
    except ValueError:
        return b""


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, 3 * _MOST_BYTES)
    except zlib.error:
        return b""
