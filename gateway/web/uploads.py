"""Request body → encoded images and form fields, in memory and bounded."""

import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from gateway.errors import (
    BadJSON,
    BadMultipart,
    ImageTooLarge,
    InvalidParameter,
    NoImage,
    TooManyImages,
    UnsupportedImage,
)
from gateway.settings import Settings
from gateway.web.parameters import NOTHING, PARAMETERS, Given, joined

FIELD = "image"
_ENVELOPE_BYTES = 64 * 1024  # boundaries, part headers and small fields around the images
_LONGEST_FIELD_BYTES = 4096
_MOST_OPTIONS = 32  # of a part's Content-Disposition: each takes the parser its time
_MOST_MEMBERS = 10_000  # of a JSON body, nested ones too
_BLANKS = b" \t\r\n"
_NAMES = PARAMETERS | {"url"}


@dataclass
class UploadedImage:
    """An encoded image; `data` is empty and `too_large` set when it exceeds the limit."""

    filename: str = ""
    data: bytes = b""
    too_large: bool = False


@dataclass
class Upload:
    """What the body of a request carries: images or the address of one, and parameters."""

    images: list[UploadedImage] = field(default_factory=list)
    fields: Given = NOTHING
    url: str = ""


# Only what is known is built: millions of other values would take a second and hundreds of megabytes.
_JSONBody = msgspec.defstruct(
    "_JSONBody",
    [
        ("image", str | None, None),
        ("url", str | None, None),
        *((name, msgspec.Raw | UnsetType, UNSET) for name in sorted(PARAMETERS)),
    ],
)


async def read_upload(request: Request, settings: Settings, received: Callable[[int], None]) -> Upload:
    """The images of a request: multipart fields `image`, a JSON body with `image` as base64, or else the raw body.

    `received` gets the number of bytes of each chunk, and may raise Overloaded.
    Raises NoImage, BadMultipart, BadJSON, ImageTooLarge, UnsupportedImage, TooManyImages, InvalidParameter, and
    Starlette's ClientDisconnect.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedImage("send the body as it is, without Content-Encoding")
    content_type, options = parse_options_header(request.headers.get("content-type"))
    chunks = _chunks(request, received)
    if content_type == b"multipart/form-data":
        upload = await _read_multipart(request, chunks, options.get(b"boundary", b""), settings)
    elif content_type == b"application/json":
        most_bytes = settings.max_image_bytes * 4 // 3 + _ENVELOPE_BYTES
        upload = _from_json(
            await _read_body(request, chunks, most_bytes, settings.max_image_bytes), settings.max_image_bytes
        )
    else:
        body = await _read_body(request, chunks, settings.max_image_bytes, settings.max_image_bytes)
        upload = Upload([UploadedImage(data=body)] if body else [])
    if not upload.url and not any(image.data or image.too_large for image in upload.images):
        raise NoImage(f"send the image as the multipart field `{FIELD}`, as base64 in JSON, or as the raw body")
    return upload


def too_large(max_image_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(f"the image is larger than {max_image_bytes} bytes, the most that is accepted")


async def _chunks(request: Request, received: Callable[[int], None]) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        received(len(chunk))
        yield chunk


async def _read_body(request: Request, chunks: AsyncIterator[bytes], most_bytes: int, max_image_bytes: int) -> bytes:
    _check_declared(request, most_bytes, max_image_bytes)
    parts, size = [], 0
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > most_bytes:
            raise too_large(max_image_bytes)
    return b"".join(parts)


def _check_declared(request: Request, most_bytes: int, max_image_bytes: int) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise too_large(max_image_bytes)


def _from_json(body: bytes, max_image_bytes: int) -> Upload:
    if body.count(b":") > _MOST_MEMBERS:
        raise BadJSON(f"the JSON has more than {_MOST_MEMBERS} members")
    try:
        given = msgspec.structs.asdict(msgspec.json.decode(body, type=_JSONBody))
        text, url = given.pop("image") or "", given.pop("url") or ""
        image = base64.b64decode((text.rpartition(",")[2] or text).encode().translate(None, _BLANKS), validate=True)
        fields = {name: _typed(name, bytes(value)) for name, value in given.items() if value is not UNSET}
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadJSON(f"send a JSON object with `{FIELD}` as base64: {error}") from error
    if len(image) > max_image_bytes:
        raise too_large(max_image_bytes)
    return Upload([UploadedImage(data=image)] if image else [], Given(fields, typed=True), url)


def _typed(name: str, value: bytes) -> object:
    if len(value) > _LONGEST_FIELD_BYTES and value.startswith((b"[", b"{")):
        raise InvalidParameter(f"{name}: give at most {_LONGEST_FIELD_BYTES} bytes")
    return msgspec.json.decode(value)


@dataclass
class _Part:
    name: str = ""
    filename: str = ""
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    data: bytearray = field(default_factory=bytearray)
    too_large: bool = False


class _Form:
    """Collects the parts of a multipart body, image or field; drops what is beyond the limits as it comes."""

    def __init__(self, settings: Settings) -> None:
        self.parts: list[_Part] = []
        self.complete = False
        self._settings = settings

    def upload(self) -> Upload:
        images = [
            UploadedImage(part.filename, bytes(part.data), part.too_large) for part in self.parts if part.name == FIELD
        ]
        texts = [part for part in self.parts if part.name not in (FIELD, "url") and not part.filename]
        for part in self.parts:
            if part.too_large and part.name in _NAMES:
                raise InvalidParameter(f"{part.name}: give at most {_LONGEST_FIELD_BYTES} bytes")
        fields = joined((part.name, bytes(part.data).decode(errors="replace")) for part in texts)
        urls = [bytes(part.data).decode(errors="replace") for part in self.parts if part.name == "url"]
        return Upload(images, fields, urls[0] if urls else "")

    def on_part_begin(self) -> None:
        if len(self.parts) >= self._settings.max_images + 32:
            raise TooManyImages(f"the form has too many parts; at most {self._settings.max_images} images are accepted")
        self.parts.append(_Part())

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].header_value += data[start:end]

    def on_header_end(self) -> None:
        part = self.parts[-1]
        if part.header_name.lower() == b"content-disposition":
            if part.header_value.count(b";") > _MOST_OPTIONS:
                raise BadMultipart(f"the Content-Disposition of a part has more than {_MOST_OPTIONS} semicolons")
            _, options = parse_options_header(bytes(part.header_value))
            part.name = options.get(b"name", b"").decode(errors="replace")
            part.filename = options.get(b"filename", b"").decode(errors="replace")
        part.header_name, part.header_value = bytearray(), bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        limit = self._settings.max_image_bytes if part.name == FIELD else _LONGEST_FIELD_BYTES
        if len(part.data) + end - start > limit:
            part.too_large = True
            part.data.clear()
        elif not part.too_large:
            part.data += memoryview(data)[start:end]

    def on_end(self) -> None:
        self.complete = True


async def _read_multipart(
    request: Request, chunks: AsyncIterator[bytes], boundary: bytes, settings: Settings
) -> Upload:
    if not boundary:
        raise BadMultipart("the Content-Type header names no boundary; let the HTTP client set that header")
    most_bytes = max(settings.max_request_bytes, settings.max_image_bytes) + _ENVELOPE_BYTES
    _check_declared(request, most_bytes, settings.max_image_bytes)
    form, received = _Form(settings), 0
    try:
        parser = MultipartParser(boundary, _callbacks(form))
        async for chunk in chunks:
            received += len(chunk)
            if received > most_bytes:
                raise ImageTooLarge(f"the request is larger than {most_bytes} bytes, the most that is accepted")
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise BadMultipart(f"the multipart body is malformed: {error}") from error
    if not form.complete:
        raise BadMultipart("the multipart body ends before its closing boundary; send it whole")
    upload = form.upload()
    if len(upload.images) > settings.max_images:
        raise TooManyImages(f"the request has {len(upload.images)} images, at most {settings.max_images} are accepted")
    return upload


if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


def _callbacks(form: _Form) -> "MultipartCallbacks":
    return {
        "on_part_begin": form.on_part_begin,
        "on_header_field": form.on_header_field,
        "on_header_value": form.on_header_value,
        "on_header_end": form.on_header_end,
        "on_part_data": form.on_part_data,
        "on_end": form.on_end,
    }
