"""Boxes are in the upright picture: what a file says of its turning counts, wherever it says it."""

import numpy as np
import pytest

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
    [b"", b"II*\0", exif(0), exif(9), exif(6, count=2), exif(6)[:-6], b"II*\0" + b"\xff" * 40, b"XX*\0" + bytes(40)],
    ids=["empty", "cut", "zero", "nine", "two values", "cut entry", "far directory", "no byte order"],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_without_sense_turns_nothing(content: bytes, suffix: str) -> None:
    data = with_exif(encoded(37, 21, suffix), suffix, content)
    assert orientation(data) in (1, 6) if content == exif(6)[:-6] else orientation(data) == 1


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".gif"])
def test_no_cut_of_a_file_is_an_error(suffix: str) -> None:
    data = turned(6, suffix) if suffix in (".jpg", ".png", ".webp") else encoded(37, 21, suffix)
    assert {orientation(data[:length]) for length in range(len(data))} <= {1, 6}


def test_segments_and_chunks_of_length_zero_end() -> None:
    assert orientation(b"\xff\xd8" + b"\xff\xe1\0\0" * 1000) == 1
    assert orientation(b"\x89PNG\r\n\x1a\n" + bytes(12) * 1000) == 1
    assert orientation(b"RIFF\0\0\0\0WEBP" + bytes(8) * 1000) == 1
