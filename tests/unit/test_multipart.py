"""Our search for a boundary finds what the patterns of Werkzeug's decoder find."""

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest
from werkzeug.sansio.multipart import MultipartDecoder

from gateway.errors import BadMultipart
from gateway.web.multipart import Part, _decoder, parts_of
from tests.support.shared import SHARED

LARGE = 20_000_000
PIECES = [b"--b", b"--", b"-", b"\r", b"\n", b"\r\n", b" ", b"\t", b"x", b"b", b"\x0b"]


@pytest.mark.parametrize("name", ["preamble_re", "boundary_re"])
def test_boundaries_are_found_as_by_the_patterns(name: str) -> None:
    theirs = getattr(MultipartDecoder(b"b"), name)
    chance, found = random.Random(1), 0
    for _ in range(20_000):
        data = bytearray(b"".join(chance.choices(PIECES, k=chance.randrange(12))))
        start = chance.randrange(3)
        wanted, got = theirs.search(data, start), getattr(_decoder(b"b", 9), name).search(data, start)
        assert (wanted is None) == (got is None), data
        if wanted:
            found += 1
            assert (wanted.start(), wanted.end(), wanted[1]) == (got.start(), got.end(), got.group(1)), data
    assert found > 500


def test_a_decoder_shares_nothing_with_another() -> None:
    first, second = _decoder(b"a", 1), _decoder(b"b", 2)
    first.receive_data(b"--a\r\n")
    assert (bytes(second.buffer), second.boundary, second.max_parts) == (b"", b"b", 2)


ALMOST = [b"--bx", b"\n--bx", b"\r--b-", b"--b \t"]


@pytest.mark.parametrize("repeated", ALMOST)
def test_a_body_of_almost_boundaries_is_refused_at_once(repeated: bytes) -> None:
    with pytest.raises(BadMultipart, match="its boundary stands in more than 1000 places"):
        parsed(repeated * (LARGE // len(repeated)))
    begun = time.process_time()
    with pytest.raises(BadMultipart):
        parsed(repeated * (LARGE // len(repeated)))
    refused = time.process_time() - begun
    begun = time.process_time()
    assert len(parsed(bytes(LARGE))[0].data) == LARGE
    assert refused < 2 * (time.process_time() - begun) + 0.1


def test_pictures_that_hold_their_boundary_are_read() -> None:
    picture = (b"--b" + random.Random(1).randbytes(10_000)) * 500
    assert bytes(parsed(picture)[0].data) == picture


def test_the_shared_pictures_hold_few_boundaries_even_of_one_letter() -> None:
    pictures = [path for name in ("images", "corpus") for path in (SHARED / name).rglob("*") if path.is_file()]
    if not pictures:
        pytest.skip("YOLO_SHARED has no images")
    for picture in pictures:
        data = picture.read_bytes()
        assert all(bytes(parsed(data, letter)[0].data) == data for letter in (b"b", b"-"))


def parsed(data: bytes, boundary: bytes = b"b") -> list[Part]:
    head = b"--" + boundary + b'\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'

    async def chunks() -> AsyncIterator[bytes]:
        yield head
        for start in range(0, len(data), 65_536):
            yield data[start : start + 65_536]
        yield b"\r\n--" + boundary + b"--\r\n"

    return asyncio.run(parts_of(chunks(), boundary.decode(), 9, lambda part: LARGE))
