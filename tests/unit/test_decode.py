import io
import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from gateway.errors import InvalidImage
from gateway.vision.decode import CUT, CUT_BEHIND, decode, decode_with_warnings, reduction, upright_hw
from gateway.vision.header import ImageHeader, probe
from tests.support.pictures import encoded, gradient


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


@pytest.mark.parametrize(
    ("kind", "width", "height", "expected"),
    [
        ("jpeg", 4000, 3000, 4),
        ("jpeg", 3000, 4000, 4),
        ("jpeg", 8000, 6000, 8),
        ("jpeg", 1920, 1080, 2),
        ("jpeg", 1280, 720, 1),
        ("jpeg", 640, 480, 1),
        ("jpeg", 3999, 4000, 1),
        ("jpeg", 4000, 4000, 4),
        ("png", 4000, 3000, 1),
    ],
    ids=["12-mpx", "upright", "48-mpx", "hd", "720p", "vga", "nearly-square", "square", "png"],
)
def test_reduction_leaves_more_than_the_input_needs(kind: str, width: int, height: int, expected: int) -> None:
    assert reduction(ImageHeader(kind, width, height), 640) == expected


@pytest.mark.parametrize("size", [(192, 640), (640, 192), 640, (640, 608)], ids=str)
@pytest.mark.parametrize(("width", "height"), [(4000, 3000), (3000, 4000), (1920, 1080), (900, 800), (3000, 500)])
def test_a_reduced_image_is_larger_than_its_place_however_it_lies(
    size: int | tuple[int, int], width: int, height: int
) -> None:
    divisor = reduction(ImageHeader("jpeg", width, height), size)
    most_h, most_w = (size, size) if isinstance(size, int) else size
    for sides in ((height, width), (width, height)):
        scale = min(most_h / sides[0], most_w / sides[1])
        assert divisor == 1 or divisor * scale <= 1 / 1.5 + 1e-3


@pytest.mark.parametrize("reduced", [2, 4, 8])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_decode_reduces_and_the_source_size_stays_known(reduced: int, orientation: int) -> None:
    data = oriented(encoded(403, 201, ".jpg"), orientation)
    image = decode(data, reduced)
    expected = (403, 201) if orientation > 4 else (201, 403)
    assert image.shape[:2] == tuple(-(-side // reduced) for side in expected)
    assert upright_hw(ImageHeader("jpeg", 403, 201), image, reduced) == expected


def oriented(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF orientation."""
    tiff = b"MM\x00*" + struct.pack(">IH", 8, 1) + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)
    exif = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def test_decode_refuses_a_jpeg_of_very_many_scans() -> None:
    done, data = cv2.imencode(".jpg", gradient(64, 48), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert done
    progressive = data.tobytes()
    assert decode(progressive).shape == (48, 64, 3)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    with pytest.raises(InvalidImage, match="more than 100 scans"):
        decode(progressive[:-2] + scan * 1000 + progressive[-2:])


@pytest.mark.parametrize("size", [(1, 1), (2000, 1), (1, 2000)], ids=["1x1", "wide", "tall"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".gif"])
def test_decode_and_probe_agree_on_odd_sizes(size: tuple[int, int], suffix: str) -> None:
    data = encoded(*size, suffix)
    header = probe(data, max_pixels=10_000, max_side=2_000)
    assert decode(data).shape == (header.height, header.width, 3) == (size[1], size[0], 3)


def test_decode_refuses_a_frame_that_is_larger_than_its_header_says() -> None:
    frame = b"," + struct.pack("<HHHHB", 0, 0, 16_000, 16_000, 0) + b"\x02\x02\x4c\x01\x00;"
    data = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + frame
    assert probe(data, max_pixels=1, max_side=1) == ("gif", 1, 1)
    with pytest.raises(InvalidImage):
        decode(data)


def as_cmyk(*, ycck: bool) -> bytes:
    """The gradient as print shops keep it: four inverted inks, and with `ycck` three of them as YCbCr."""
    inks = 255 - np.dstack([gradient(64, 48), np.full((48, 64), 255, np.uint8)])
    if ycck:
        colours = Image.fromarray(np.ascontiguousarray(inks[..., :3])).convert("YCbCr")
        inks[..., :3] = 255 - np.asarray(colours)
    file = io.BytesIO()
    Image.fromarray(inks, "CMYK").save(file, "JPEG", quality=100)
    data = bytearray(file.getvalue())
    data[data.index(b"Adobe") + len("Adobe") + 6] = 2 if ycck else 0
    return bytes(data)


@pytest.mark.parametrize("ycck", [False, True], ids=["cmyk", "ycck"])
def test_decode_turns_inks_into_light(ycck: bool) -> None:
    data = as_cmyk(ycck=ycck)
    assert probe(data, max_pixels=10_000, max_side=100) == ("jpeg", 64, 48)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "CMYK" and image.info["adobe_transform"] == (2 if ycck else 0)
    for reduced in (1, 2):
        difference = decode(data, reduced).astype(int) - gradient(64, 48)[::reduced, ::reduced]
        assert np.abs(difference).max() <= 10


def as_palette(format: str, colours: int) -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(gradient(64, 48)).quantize(colours)
    picture.save(file, format, **({"transparency": 3} if format == "PNG" else {}))
    return file.getvalue()


@pytest.mark.parametrize("colours", [2, 16, 256])
@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF"])
def test_decode_reads_palettes_of_every_size(format: str, colours: int) -> None:
    data = as_palette(format, colours)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode in ("P", "1")
        assert np.array_equal(decode(data), np.asarray(image.convert("RGBA"))[..., :3])


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_decode_drops_alpha(suffix: str) -> None:
    half = np.dstack([gradient(64, 48)[..., ::-1], np.full((48, 64), 128, np.uint8)])
    done, data = cv2.imencode(suffix, half, [cv2.IMWRITE_WEBP_QUALITY, 101])
    assert done and np.array_equal(decode(data.tobytes()), gradient(64, 48))


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_decode_is_silent_about_chunks_that_libpng_dislikes(capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded(64, 48)
    assert np.array_equal(decode(data[:33] + chunk(b"tEXt") * 1000 + data[33:]), gradient(64, 48))
    with pytest.raises(InvalidImage):
        decode(data[:33] + chunk(b"NEED") + data[33:])
    assert len(capfd.readouterr().err.splitlines()) < 5


def test_decode_gives_the_still_picture_of_an_animated_png() -> None:
    frames, file = [Image.fromarray(gradient(64, 48)), Image.new("RGB", (64, 48))], io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    assert b"acTL" in file.getvalue() and np.array_equal(decode(file.getvalue()), gradient(64, 48))


def test_decode_drops_alpha_and_reads_grey_and_palettes() -> None:
    clear = np.dstack([gradient(8, 8)[..., ::-1], np.zeros((8, 8, 1), np.uint8)])
    done, data = cv2.imencode(".png", clear)
    assert done and np.array_equal(decode(data.tobytes()), gradient(8, 8))
    done, data = cv2.imencode(".png", gradient(8, 8)[..., 0])
    assert done and np.array_equal(decode(data.tobytes())[..., 2], gradient(8, 8)[..., 0])


def jpeg(*, progressive: bool = False) -> bytes:
    done, data = cv2.imencode(".jpg", gradient(640, 480)[..., ::-1], [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)])
    assert done
    return data.tobytes()


@pytest.mark.parametrize("progressive", [False, True], ids=["sequential", "progressive"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, -2, -1], ids=str)
def test_a_jpeg_that_is_cut_gives_what_imread_gives_and_a_warning(
    tmp_path: Path, kept: float, progressive: bool
) -> None:
    data = jpeg(progressive=progressive)
    cut = data[:kept] if isinstance(kept, int) else data[: int(kept * len(data))]
    (tmp_path / "cut.jpg").write_bytes(cut)
    expected = cv2.imread(str(tmp_path / "cut.jpg"), cv2.IMREAD_COLOR_RGB)
    found = decode_with_warnings(cut)
    assert expected is not None and np.array_equal(found.pixels, expected)
    assert found.warnings == [CUT]
    assert decode_with_warnings(data).warnings == []


def test_a_jpeg_that_is_cut_inside_a_segment_gives_what_imread_gives(tmp_path: Path) -> None:
    data, path, read = jpeg(progressive=True), tmp_path / "cut.jpg", 0
    for at in [match.start() + 2 + more for match in re.finditer(b"\xff\xc4", data) for more in (1, 5, 12, 20)]:
        path.write_bytes(data[:at])
        expected = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if expected is not None:
            assert np.array_equal(decode(data[:at]), expected), at
            read += 1
    assert read


def test_a_jpeg_without_any_pixel_is_refused() -> None:
    data = jpeg()
    with pytest.raises(InvalidImage, match="cut or damaged"):
        decode(data[: data.index(b"\xff\xda")])


@pytest.mark.parametrize(("format", "lost"), [("PNG", 1), ("PNG", 12), ("GIF", 1), ("GIF", 2)], ids=str)
def test_a_file_that_lacks_only_its_end_is_whole(format: str, lost: int) -> None:
    file = io.BytesIO()
    picture = Image.fromarray(gradient(64, 48)).quantize(64)
    picture.save(file, format)
    found = decode_with_warnings(file.getvalue()[:-lost])
    assert np.array_equal(found.pixels, np.asarray(picture.convert("RGB")))
    assert found.warnings == [CUT_BEHIND]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".gif"])
def test_a_file_of_another_format_that_lacks_pixels_is_refused(suffix: str) -> None:
    data = encoded(640, 480, suffix)
    with pytest.raises(InvalidImage, match="cut or damaged"):
        decode(data[: len(data) * 9 // 10])


def segment(marker: int, content: bytes, lie: int = 0) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2 + lie).to_bytes(2) + content


@pytest.mark.parametrize(
    "stray",
    [
        segment(0xFE, b"a comment") + b"and more",
        segment(0xFE, b"a comment", lie=-4),
        b"\0",
        bytes(600) + b"\xff\0\xff\xff",
        b"\xff" * 50,
        b"\xff\x01\xff\xd0",
        segment(0xEC, b"\xff\xda\xff\xd9" * 200),
    ],
    ids=["text behind", "too short", "one byte", "many bytes", "fill", "without segment", "markers inside"],
)
@pytest.mark.parametrize(
    "place", [b"\xff\xdb", b"\xff\xc0", b"\xff\xc4", b"\xff\xda"], ids=["DQT", "SOF", "DHT", "SOS"]
)
def test_what_is_between_the_segments_of_a_jpeg_is_passed_over(stray: bytes, place: bytes) -> None:
    data = jpeg()
    at = data.index(place)
    odd = data[:at] + stray + data[at:]
    assert probe(odd, max_pixels=640 * 480, max_side=640) == ("jpeg", 640, 480)
    assert np.array_equal(decode(odd), decode(data))


def test_a_film_behind_a_jpeg_is_no_scan_of_it() -> None:
    film = np.random.default_rng(1).integers(0, 256, 9_000_000, np.uint8).tobytes() + b"\xff\xda" * 200
    assert np.array_equal(decode(jpeg() + film), decode(jpeg()))


def test_a_thumbnail_in_a_jpeg_does_not_hide_its_scans() -> None:
    progressive = jpeg(progressive=True)
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    hidden = progressive[:2] + segment(0xE1, b"\xff\xd8\xff\xd9") + progressive[2:-2] + scan * 200 + b"\xff\xd9"
    with pytest.raises(InvalidImage, match="more than 100 scans"):
        decode(hidden)
