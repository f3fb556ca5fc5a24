import pytest

from gateway.errors import ImageTooLarge, UnsupportedImage
from gateway.vision.header import ImageHeader, probe
from tests.support.pictures import encoded, png_header


def probed(data: bytes, max_pixels: int = 50_000_000, max_side: int = 16_384) -> ImageHeader:
    return probe(data, max_pixels=max_pixels, max_side=max_side)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".gif"])
def test_probe_reads_type_and_size(suffix: str) -> None:
    header = probed(encoded(37, 21, suffix))
    assert header == ImageHeader({".jpg": "jpeg"}.get(suffix, suffix[1:]), 37, 21)


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"%PDF-1.7 ...", b"II*\x00 a tiff", b"RIFF\x00\x00\x00\x00WAVEfmt ", b"<svg/>"],
    ids=["empty", "text", "pdf", "tiff", "wave", "svg"],
)
def test_probe_refuses_what_is_no_image(data: bytes) -> None:
    with pytest.raises(UnsupportedImage, match="JPEG, PNG, WebP, BMP or GIF"):
        probed(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC file.*Most Compatible"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "CR3"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "video"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"%PDF-1.7", "PDF"),
        (b"\xff\x0a\0", "JPEG XL"),
    ],
    ids=["HEIC", "AVIF", "AVIF by its second brand", "CR3", "MP4", "TIFF", "PDF", "JPEG XL"],
)
def test_probe_names_what_is_not_read_here(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=name):
        probed(data)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".gif"])
def test_probe_survives_every_cut_of_the_header(suffix: str) -> None:
    data = encoded(37, 21, suffix)
    for length in range(64):
        try:
            assert probed(data[:length])[1:] == (37, 21)
        except UnsupportedImage:
            continue


def test_probe_finds_the_frame_behind_long_metadata() -> None:
    data = encoded(37, 21, ".jpg")
    exif = b"\xff\xe1" + (60_002).to_bytes(2) + bytes(60_000)
    assert probed(data[:2] + exif + data[2:])[1:] == (37, 21)


def test_probe_refuses_a_jpeg_without_a_frame() -> None:
    with pytest.raises(UnsupportedImage, match="jpeg header is broken"):
        probed(b"\xff\xd8\xff\xda" + bytes(100))


def test_probe_ends_on_a_segment_of_length_zero() -> None:
    with pytest.raises(UnsupportedImage):
        probed(b"\xff\xd8\xff\xe1\x00\x00" * 100)


def test_probe_refuses_pixels_before_they_are_decoded() -> None:
    with pytest.raises(ImageTooLarge, match="120000000 pixels, at most 50000000"):
        probed(png_header(12_000, 10_000))


def test_probe_refuses_a_side_beyond_the_limit() -> None:
    with pytest.raises(ImageTooLarge, match="20000x10 pixels, at most 16384 a side"):
        probed(png_header(20_000, 10))


def test_probe_refuses_an_image_without_pixels() -> None:
    with pytest.raises(UnsupportedImage, match="0x10"):
        probed(png_header(0, 10))
