"""Our search for a boundary finds what the patterns of Werkzeug's decoder find."""

import random

import pytest
from werkzeug.sansio.multipart import MultipartDecoder

from gateway.web.multipart import _decoder

PIECES = [b"--b", b"--", b"-", b"\r", b"\n", b"\r\n", b" ", b"\t", b"x", b"b", b"\x0b"]


@pytest.mark.parametrize("name", ["preamble_re", "boundary_re"])
def test_boundaries_are_found_as_by_the_patterns(name: str) -> None:
    theirs, ours = getattr(MultipartDecoder(b"b"), name), getattr(_decoder(b"b", 9), name)
    chance, found = random.Random(1), 0
    for _ in range(20_000):
        data = bytearray(b"".join(chance.choices(PIECES, k=chance.randrange(12))))
        start = chance.randrange(3)
        wanted, got = theirs.search(data, start), ours.search(data, start)
        assert (wanted is None) == (got is None), data
        if wanted:
            found += 1
            assert (wanted.start(), wanted.end(), wanted[1]) == (got.start(), got.end(), got.group(1)), data
    assert found > 500


def test_a_decoder_shares_nothing_with_another() -> None:
    first, second = _decoder(b"a", 1), _decoder(b"b", 2)
    first.receive_data(b"--a\r\n")
    assert (bytes(second.buffer), second.boundary, second.max_parts) == (b"", b"b", 2)
