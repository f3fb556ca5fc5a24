"""Request body → encoded image, in memory and bounded."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from gateway.errors import BadMultipart, ImageTooLarge, NoImage

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FIELD = "image"
_ENVELOPE_BYTES = 64 * 1024  # boundaries, part headers and small fields around the image


async def read_image(request: Request, max_bytes: int) -> bytes:
    """The encoded image of a request: the multipart field `image`, or else the raw body.

    Raises NoImage, BadMultipart, ImageTooLarge, and Starlette's ClientDisconnect.
    """
    content_type, options = parse_options_header(request.headers.get("content-type"))
    if content_type != b"multipart/form-data":
        image = bytes(await _read_body(request, max_bytes, max_bytes))
    else:
        body = await _read_body(request, max_bytes + _ENVELOPE_BYTES, max_bytes)
        image = _image_part(bytes(body), options.get(b"boundary", b""))
    if not image:
        raise NoImage(f"send the image as the multipart field `{FIELD}`, or as the raw body")
    if len(image) > max_bytes:
        raise _too_large(max_bytes)
    return image


async def _read_body(request: Request, most_bytes: int, max_image_bytes: int) -> bytearray:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise _too_large(max_image_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise _too_large(max_image_bytes)
    return body


def _too_large(max_image_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(f"the upload is larger than {max_image_bytes} bytes, the most that is accepted")


@dataclass
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    data: bytearray = field(default_factory=bytearray)

    @property
    def name(self) -> bytes:
        _, options = parse_options_header(self.headers.get(b"content-disposition"))
        return options.get(b"name", b"")


class _Parts:
    """Collects the parts of a multipart body; `complete` once the closing boundary was seen."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.complete = False

    def on_part_begin(self) -> None:
        self.parts.append(_Part())

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].header_value += data[start:end]

    def on_header_end(self) -> None:
        part = self.parts[-1]
        part.headers[bytes(part.header_name).lower()] = bytes(part.header_value)
        part.header_name, part.header_value = bytearray(), bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += memoryview(data)[start:end]

    def on_end(self) -> None:
        self.complete = True


def _image_part(body: bytes, boundary: bytes) -> bytes:
    if not boundary:
        raise BadMultipart("the Content-Type header names no boundary; let the HTTP client set that header")
    found = _Parts()
    callbacks: MultipartCallbacks = {
        "on_part_begin": found.on_part_begin,
        "on_header_field": found.on_header_field,
        "on_header_value": found.on_header_value,
        "on_header_end": found.on_header_end,
        "on_part_data": found.on_part_data,
        "on_end": found.on_end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
    except MultipartParseError as error:
        raise BadMultipart(f"the multipart body is malformed: {error}") from error
    if not found.complete:
        raise BadMultipart("the multipart body ends before its closing boundary; send it whole")
    images = [part for part in found.parts if part.name == FIELD.encode()]
    return bytes(images[0].data) if images else b""
