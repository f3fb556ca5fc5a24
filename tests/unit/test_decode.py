import cv2
import numpy as np
import pytest

from gateway.decode import decode
from gateway.errors import InvalidImage
from tests.pictures import encoded, gradient


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_decode_gives_rgb(suffix: str) -> None:
    assert np.array_equal(decode(encoded(37, 21, suffix)), gradient(37, 21))


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".gif"])
def test_decode_gives_rgb_of_lossy_formats(suffix: str) -> None:
    difference = decode(encoded(64, 48, suffix)).astype(int) - gradient(64, 48)
    assert np.abs(difference).mean() < 8


def test_decode_makes_grey_and_16_bit_into_8_bit_rgb() -> None:
    deep = (np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000)[..., None]
    done, data = cv2.imencode(".png", deep)
    assert done
    image = decode(data.tobytes())
    assert image.shape == (3, 4, 3) and image.dtype == np.uint8
    assert np.abs(image[..., 0].astype(int) - (deep[..., 0] / 257)).max() <= 1


@pytest.mark.parametrize("kept", [10, 60, 200])
def test_decode_refuses_a_png_that_is_cut(kept: int) -> None:
    with pytest.raises(InvalidImage):
        decode(encoded(64, 48, ".png")[:kept])


def test_decode_refuses_noise() -> None:
    with pytest.raises(InvalidImage):
        decode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
