"""Boxes are in the upright picture: what a file says of its turning counts, wherever it says it."""

import io
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from gateway.vision.decode import decode
from gateway.vision.orientation import orientation
from tests.support.pictures import encoded, exif, gradient, turned, with_exif


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_decode_turns_the_picture_upright(turn: int, suffix: str) -> None:
    image = decode(turned(turn, suffix))
    assert image.shape == (21, 37, 3)
    assert np.abs(image.astype(int) - gradient(37, 21)).mean() < 3


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_exif_may_begin_with_its_name(suffix: str) -> None:
    assert orientation(turned(6, suffix, prefix=b"Exif\0\0")) == 6


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(order: str) -> None:
    assert orientation(turned(8, ".jpg", order)) == 8


@pytest.mark.parametrize(
    "content",
    [b"", b"II*\0", exif(0), exif(9), exif(6)[:-6], b"II*\0" + b"\xff" * 40, b"XX*\0" + bytes(40)],
    ids=["empty", "cut", "zero", "nine", "cut entry", "far directory", "no byte order"],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_without_sense_turns_nothing(content: bytes, suffix: str) -> None:
    data = with_exif(encoded(37, 21, suffix), suffix, content)
    assert orientation(data) in (1, 6) if content == exif(6)[:-6] else orientation(data) == 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 6, 7, 99])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_tag_of_any_type_counts_where_opencv_or_pillow_reads_it(
    tmp_path: Path, order: str, kind: int, count: int
) -> None:
    value = struct.pack(f"{order}I", 6) if kind == 4 else struct.pack(f"{order}HH", 6, 0)
    tag = struct.pack(f"{order}HHI", 0x0112, kind, count) + value
    tiff = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, 1) + tag + bytes(4)
    path = tmp_path / "turned.jpg"
    path.write_bytes(with_exif(encoded(37, 21, ".jpg"), ".jpg", tiff))
    by_opencv = cv2.imread(str(path)).shape[:2] == (37, 21)  # type: ignore[union-attr]
    with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
        by_pillow = picture.getexif().get(0x0112) == 6
    assert (orientation(path.read_bytes()) == 6) == (by_opencv or by_pillow)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".gif"])
def test_no_cut_of_a_file_is_an_error(suffix: str) -> None:
    data = turned(6, suffix) if suffix in (".jpg", ".png", ".webp") else encoded(37, 21, suffix)
    assert {orientation(data[:length]) for length in range(len(data))} <= {1, 6}


def test_segments_and_chunks_of_length_zero_end() -> None:
    assert orientation(b"\xff\xd8" + b"\xff\xe1\0\0" * 1000) == 1
    assert orientation(b"\x89PNG\r\n\x1a\n" + bytes(12) * 1000) == 1
    assert orientation(b"RIFF\0\0\0\0WEBP" + bytes(8) * 1000) == 1


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def tiff(kind: int, value: bytes, order: str = "<") -> bytes:
    """EXIF with the orientation as a value of another kind than SHORT."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, 1)
    return head + struct.pack(order + "HHI", 0x0112, kind, 1) + value.ljust(4, b"\0") + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_orientation_may_be_a_long(order: str, suffix: str) -> None:
    content = tiff(4, struct.pack(order + "I", 6), order)
    assert orientation(with_exif(encoded(37, 21, suffix), suffix, content)) == 6


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def profile() -> bytes:
    """EXIF as ImageMagick writes it into a PNG."""
    content = b"Exif\0\0" + exif(6)
    return b"\nexif\n%8d\n" % len(content) + content.hex().encode() + b"\n"


def after_header(chunk: bytes) -> bytes:
    data = encoded(37, 21, ".png")
    return data[:33] + chunk + data[33:]


ODD_PLACES = {
    "JPEG, XMP": lambda: with_segment(b"http://ns.adobe.com/xap/1.0/\0" + XMP),
    "PNG, XMP": lambda: after_header(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
    "PNG, XMP compressed": lambda: after_header(
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))
    ),
    "PNG, raw profile": lambda: after_header(png_chunk(b"tEXt", b"Raw profile type exif\0" + profile())),
    "PNG, raw profile compressed": lambda: after_header(
        png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile()))
    ),
    "JPEG, second EXIF": lambda: with_segment(b"Exif\0\0" + tiff(3, b"\6"), b"Exif\0\0"),
    "JPEG, stray bytes before": lambda: with_segment(b"Exif\0\0" + exif(6), stray=bytes(99)),
}


def with_segment(*contents: bytes, stray: bytes = b"") -> bytes:
    data = encoded(37, 21, ".jpg")
    segments = [b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content for content in contents]
    return data[:20] + stray + b"".join(segments) + data[20:]  # behind JFIF's


@pytest.mark.parametrize("make", ODD_PLACES.values(), ids=ODD_PLACES)
def test_orientation_is_found_where_pillow_finds_it(make: Callable[[], bytes]) -> None:
    data = make()
    with Image.open(io.BytesIO(data)) as image:
        assert Image.Image.getexif(image).get(0x0112) == 6
    assert orientation(data) == 6
    assert decode(data).shape == (37, 21, 3)


def test_a_png_of_many_bombs_is_read_in_no_time() -> None:
    bomb = png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(10_000_000)))
    began = time.process_time()
    assert orientation(after_header(bomb * 500)) == 1
    assert time.process_time() - began < 0.5


def test_exif_behind_many_blocks_of_xmp_is_found() -> None:
    data = turned(6, ".jpg")
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x/>"
    segment = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    assert orientation(data[:2] + 40 * segment + data[2:]) == 6


def test_many_directories_without_the_tag_are_read_in_no_time() -> None:
    tiff = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 5000) + 5000 * struct.pack("<HHII", 0x9000, 3, 1, 0)
    segment = b"\xff\xe1" + struct.pack(">H", len(tiff) + 2) + tiff
    begun = time.process_time()
    assert orientation(b"\xff\xd8" + 64 * segment + b"\xff\xda") == 1
    assert time.process_time() - begun < 0.4


def test_tags_that_point_at_megabytes_are_read_in_no_time() -> None:
    entries = b"".join(struct.pack("<HHII", 0x9000 + index, 1, 9_000_000, 8) for index in range(20_000))
    content = b"II*\0" + struct.pack("<IH", 8, 20_000) + entries + bytes(9_000_000)
    began = time.process_time()
    assert orientation(with_exif(encoded(37, 21, ".png"), ".png", content)) == 1
    assert time.process_time() - began < 0.5
