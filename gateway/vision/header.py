"""What an upload is by its first bytes: type and size, nothing decoded.

Only the standard library: the web process imports this module, never a decoder.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

from gateway.errors import ImageTooLarge, UnsupportedImage
from gateway.vision import jpeg

PNG = b"\x89PNG\r\n\x1a\n"  # how each such file begins
ACCEPTED = "JPEG, PNG, WebP, BMP or GIF"


# What else clients send, by its first bytes. Of an ISO base media file the brand counts, ISO/IEC 14496-12, 4.3.
_OTHERS = {
    b"II*\0": "TIFF or camera raw",
    b"MM\0*": "TIFF or camera raw",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"\0\0\1\0": "Windows icon",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "SVG or other XML",
    b"\x1a\x45\xdf\xa3": "Matroska or WebM video",
}
_ISO_BRANDS = {
    "AVIF": {b"avif", b"avis"},
    "HEIC": {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"heif", b"mif1", b"msf1", b"miaf"},
    "camera raw (CR3)": {b"crx "},
}
_HEIC_ADVICE = " (an iPhone takes JPEG with Settings > Camera > Formats > Most Compatible)"


class ImageHeader(NamedTuple):
    """Format and size in pixels as stored, before EXIF orientation."""

    format: str
    width: int
    height: int


def _png_size(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR":
        raise ValueError("no IHDR")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp_size(data: bytes) -> tuple[int, int]:
    (header_size,) = struct.unpack_from("<I", data, 14)
    if header_size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)  # negative: rows from top to bottom


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("no frame header")


def _sniff(data: bytes) -> tuple[str, Callable[[bytes], tuple[int, int]]] | None:
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg", jpeg.size
    if data.startswith(PNG):
        return "png", _png_size
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp", _webp_size
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif", _gif_size
    if data.startswith(b"BM"):
        return "bmp", _bmp_size
    return None


def _other(data: bytes) -> str:
    """What an image of no accepted type is, as far as its first bytes tell, and what to do."""
    if data[4:8] == b"ftyp":
        brands = {data[at : at + 4] for at in (8, *range(16, min(int.from_bytes(data[:4]), 256), 4))}
        found = (name for name, known in _ISO_BRANDS.items() if known & brands)
        name = next(found, "video")
        return f"the body is a {name} file, which is not read here; send {ACCEPTED}{_HEIC_ADVICE * (name == 'HEIC')}"
    for begin, name in _OTHERS.items():
        if data.startswith(begin):
            return f"the body is a {name} file, which is not read here; send {ACCEPTED}"
    return f"the body is not a {ACCEPTED} image; send one of these formats"


def probe(data: bytes, *, max_pixels: int, max_side: int) -> ImageHeader:
    """Read type and size from the header of an encoded image.

    Raises UnsupportedImage when the signature is of no accepted type or the header is broken, and ImageTooLarge
    when the picture has more than `max_pixels` pixels or a side longer than `max_side` pixels.
    """
    found = _sniff(data)
    if found is None:
        raise UnsupportedImage(_other(data))
    kind, read_size = found
    try:
        width, height = read_size(data)
    except (ValueError, IndexError, struct.error) as error:
        raise UnsupportedImage(f"the {kind} header is broken or cut; send the whole file") from error
    if width < 1 or height < 1:
        raise UnsupportedImage(f"the {kind} header says {width}x{height} pixels; send an image with pixels in it")
    if width > max_side or height > max_side:
        raise ImageTooLarge(f"the image is {width}x{height} pixels, at most {max_side} a side are accepted")
    if width * height > max_pixels:
        raise ImageTooLarge(f"the image has {width * height} pixels, at most {max_pixels} are accepted")
    return ImageHeader(kind, width, height)
