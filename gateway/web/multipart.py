"""A multipart body → its parts, by Werkzeug's parser, which takes what Flask takes; bounded as it comes.

That is lines ended by LF, a preamble, blanks behind a boundary, folded headers. Content-Transfer-Encoding is undone
here.
"""

import binascii
import copy
import quopri
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from gateway.errors import BadMultipart

_SLICE_BYTES = 64 * 1024  # fed at once
_LONGEST_HEADERS_BYTES = 8192  # of a part
_LONGEST_NAME = 255  # characters of a file's name: what file systems take; the rest is cut off
_MOST_OPTIONS = 32  # of a part's headers: each takes the parser its time
_MOST_NEAR_BOUNDARIES = 1_000  # of a body; a photograph of 10 MB has none of a boundary of two letters and more
_ENCODED = {"base64": 1.4, "quoted-printable": 3.0}  # by how much the largest are larger, with their line ends
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_BLANKS = b" \t\r\n"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # each takes six bytes in JSON
_WORD = re.compile(r"[\s;(\"]")  # ends the first word of a header
_LINE_END = re.compile(rb"(?:\r\n|\n|\r)\Z")
_BEHIND_BOUNDARY = re.compile(rb"(--[^\S\n\r]*(?:\r\n|\n|\r)?|[^\S\n\r]*(?:\r\n|\n|\r))")


@dataclass
class Part:
    """A part of a form, with the bytes that were sent in it; `too_large` when they were more than its limit."""

    name: str = ""
    filename: str = ""
    is_file: bool = False
    encoding: str = ""
    data: bytearray = field(default_factory=bytearray)
    too_large: bool = False

    def content(self) -> bytes:
        """The bytes without their Content-Transfer-Encoding. Raises BadMultipart."""
        if self.encoding == "base64":
            try:
                return from_base64(bytes(self.data))
            except ValueError as error:
                raise BadMultipart(f"the part `{self.name}` is no base64: {error}") from error
        return quopri.decodestring(bytes(self.data)) if self.encoding == "quoted-printable" else bytes(self.data)


async def parts_of(
    chunks: AsyncIterator[bytes], boundary: str, most_parts: int, limit_of: Callable[[Part], int]
) -> list[Part]:
    """All parts of a body; of a part no more than `limit_of` it is kept. Raises BadMultipart."""
    if not boundary:
        raise BadMultipart("the Content-Type header names no boundary; let the HTTP client set that header")
    decoder, parts = _decoder(boundary.encode(), most_parts), list[Part]()
    try:
        async for chunk in chunks:
            for start in range(0, len(chunk), _SLICE_BYTES):
                decoder.receive_data(chunk[start : start + _SLICE_BYTES])
                _read(decoder, parts, limit_of)
        decoder.receive_data(None)
        _read(decoder, parts, limit_of)
    except RequestEntityTooLarge as error:
        raise BadMultipart(
            f"the form has more than {most_parts} parts, or what is before or behind them is longer than "
            f"{_SLICE_BYTES} bytes; is the boundary that of the Content-Type header?"
        ) from error
    except ValueError as error:
        reason = "it ends before its closing boundary; send it whole" if decoder.complete else str(error)
        raise BadMultipart(f"the multipart body is malformed: {reason}") from error
    return parts


def from_base64(text: bytes) -> bytes:
    """Bytes from base64, with or without padding, URL-safe or not, in lines, as a data: URL. Raises ValueError."""
    text = (text.rpartition(b",")[2] or text).translate(_URL_SAFE, _BLANKS).rstrip(b"=")
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)


class _Decoder(MultipartDecoder):
    """Bounds the headers of a part, and reads names in another encoding than UTF-8 as far as it can."""

    def _parse_headers(self, data: bytes | bytearray):  # type: ignore[no-untyped-def]
        if len(data) > _LONGEST_HEADERS_BYTES or data.count(b";") > _MOST_OPTIONS:
            raise ValueError(
                f"the headers of a part are longer than {_LONGEST_HEADERS_BYTES} bytes or have more than "
                f"{_MOST_OPTIONS} semicolons"
            )
        return super()._parse_headers(data.decode(errors="replace").encode())


_FRESH = _Decoder(b"")  # copied: a decoder compiles its patterns for a millisecond, and each request has a new boundary


def _decoder(boundary: bytes, most_parts: int) -> _Decoder:
    """A new one. Of its patterns it calls `search` alone, which tests hold against the patterns themselves."""
    decoder = copy.copy(_FRESH)
    decoder.buffer, decoder.boundary = bytearray(), boundary
    decoder.max_form_memory_size, decoder.max_parts = 2 * _SLICE_BYTES, most_parts
    decoder.preamble_re = _Boundary(boundary, needs_line_end=False)  # type: ignore[assignment]
    decoder.boundary_re = _Boundary(boundary)  # type: ignore[assignment]
    return decoder


class _Boundary:
    """In place of the decoder's patterns of the same names, and with their answers: the words are looked for first.

    Raises ValueError once a body has too many places that begin like a boundary: each takes microseconds.
    """

    def __init__(self, boundary: bytes, *, needs_line_end: bool = True) -> None:
        self._words, self._needs_line_end = b"--" + boundary, needs_line_end
        self._near = 0

    def search(self, data: bytearray, start: int = 0) -> "_Found | None":
        at = data.find(self._words, start)
        while at >= 0:
            behind = _BEHIND_BOUNDARY.match(data, at + len(self._words))
            before = _LINE_END.search(data, max(start, at - 2), at)
            if behind and (before or not self._needs_line_end):
                return _Found(before.start() if before else at, behind)
            self._near += 1
            if self._near > _MOST_NEAR_BOUNDARIES:
                raise ValueError(
                    f"its boundary stands in more than {_MOST_NEAR_BOUNDARIES} places where no part ends; "
                    "choose a longer one, at random"
                )
            at = data.find(self._words, at + 1)
        return None


class _Found:
    """As much of a `re.Match` as the decoder asks for."""

    def __init__(self, start: int, behind: re.Match[bytes]) -> None:
        self._start, self._behind = start, behind

    def start(self) -> int:
        return self._start

    def end(self) -> int:
        return self._behind.end()

    def group(self, number: int) -> bytes:
        return self._behind[number]


def _read(decoder: MultipartDecoder, parts: list[Part], limit_of: Callable[[Part], int]) -> None:
    while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
        if isinstance(event, Field | File):
            encoding = _WORD.split(event.headers.get("content-transfer-encoding", "").strip('" ').lower())[0]
            filename = _CONTROL.sub("\ufffd", event.filename[:_LONGEST_NAME]) if isinstance(event, File) else ""
            parts.append(Part(event.name or "", filename, isinstance(event, File), encoding))
        elif isinstance(event, Data):
            part = parts[-1]
            most = limit_of(part) * _ENCODED.get(part.encoding, 1)
            if len(part.data) + len(event.data) > most:
                part.too_large = True
                part.data.clear()
            elif not part.too_large:
                part.data += event.data
