"""Request body → encoded images and form fields, in memory and bounded."""

import codecs
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from email.message import Message
from functools import lru_cache

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import ClientDisconnect, Request

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
from gateway.web.multipart import Part, from_base64, parts_of
from gateway.web.parameters import NOTHING, PARAMETERS, Given, joined

FIELD = "image"
_ENVELOPE_BYTES = 64 * 1024  # boundaries, part headers and small fields around the images
_LONGEST_FIELD_BYTES = 4096
_LONGEST_CONTENT_TYPE = 1024  # its parser takes the square of the length: 3.5 s for the most that a header may have
_MOST_FIELDS = 32  # of a form, besides the images
_MOST_MEMBERS = 10_000  # of a JSON body, nested ones too
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
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


async def read_upload(
    request: Request, settings: Settings, received: Callable[[int], None], any_file: bool = False
) -> Upload:
    """The images of a request: multipart fields `image`, a JSON body with `image` as base64, or else the raw body.

    With `any_file` the first file of a form counts, whatever its field's name, where no field is named so.

    `received` gets the number of bytes of each chunk, and may raise Overloaded.
    Raises NoImage, BadMultipart, BadJSON, ImageTooLarge, UnsupportedImage, TooManyImages, InvalidParameter, and
    Starlette's ClientDisconnect.
    """
    if (request.headers.get("content-encoding") or "identity").lower() != "identity":
        raise UnsupportedImage("send the body as it is, without Content-Encoding")
    content_type, boundary = _declared(request.headers.get("content-type", ""))
    chunks = _chunks(request, received)
    if content_type == "multipart/form-data":
        upload = await _read_multipart(request, chunks, boundary, settings, any_file)
    elif content_type == "application/json":
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


@lru_cache(maxsize=64)
def _declared(content_type: str) -> tuple[str, str]:
    """Type and boundary, as e-mail has them: that parser takes JavaMail's boundaries, with = and without quotes."""
    if len(content_type) > _LONGEST_CONTENT_TYPE:
        raise BadMultipart(
            f"the Content-Type header is longer than {_LONGEST_CONTENT_TYPE} bytes; let the HTTP client set it"
        )
    declared = Message()
    declared["Content-Type"] = content_type
    return declared.get_content_type(), declared.get_boundary("")


async def _chunks(request: Request, received: Callable[[int], None]) -> AsyncIterator[bytes]:
    """As `request.stream()`, which is one generator more."""
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
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
    body = _utf8(body)
    if body.count(b":") > _MOST_MEMBERS:
        raise BadJSON(f"the JSON has more than {_MOST_MEMBERS} members")
    try:
        given = msgspec.structs.asdict(msgspec.json.decode(body, type=_JSONBody))
        text, url = given.pop("image") or "", given.pop("url") or ""
        image = from_base64(text.encode())
        fields = {name: _typed(name, bytes(value)) for name, value in given.items() if value is not UNSET}
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadJSON(f"send a JSON object with `{FIELD}` as base64: {error}") from error
    if len(image) > max_image_bytes:
        raise too_large(max_image_bytes)
    return Upload([UploadedImage(data=image)] if image else [], Given(fields, typed=True), url)


def _utf8(body: bytes) -> bytes:
    """The same in UTF-8, by its byte order mark. Replacing what is wrong would take 0.15 microseconds a byte."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if body.startswith(mark):
            try:
                return body.decode(encoding).encode()
            except ValueError as error:
                raise BadJSON(f"the JSON is no {encoding.removesuffix('-sig').upper()}: {error}") from error
    return body


def _typed(name: str, value: bytes) -> object:
    if len(value) > _LONGEST_FIELD_BYTES and value.startswith((b"[", b"{")):
        raise InvalidParameter(f"{name}: give at most {_LONGEST_FIELD_BYTES} bytes")
    return msgspec.json.decode(value)


async def _read_multipart(
    request: Request, chunks: AsyncIterator[bytes], boundary: str, settings: Settings, any_file: bool
) -> Upload:
    most_bytes = max(settings.max_request_bytes, settings.max_image_bytes) + _ENVELOPE_BYTES
    _check_declared(request, most_bytes, settings.max_image_bytes)

    def limit_of(part: Part) -> int:
        is_image = part.name == FIELD or (any_file and part.is_file)
        return settings.max_image_bytes if is_image else _LONGEST_FIELD_BYTES

    most_parts = settings.max_images + _MOST_FIELDS
    parts = await parts_of(_bounded(chunks, most_bytes), boundary, most_parts, limit_of)
    images = [part for part in parts if part.name == FIELD]
    if any_file and not images:
        files = [part for part in parts if part.is_file]
        images = [part for part in files if part.data or part.too_large][:1] or files[:1]
    texts = [part for part in parts if part.name != FIELD and not part.is_file]
    for part in texts:
        if part.too_large and part.name in _NAMES:
            raise InvalidParameter(f"{part.name}: give at most {_LONGEST_FIELD_BYTES} bytes")
    if len(images) > settings.max_images:
        raise TooManyImages(f"the request has {len(images)} images, at most {settings.max_images} are accepted")
    given = [(part.name, part.content().decode(errors="replace")) for part in texts]
    urls = [text for name, text in given if name == "url"]
    return Upload(
        [_uploaded(part, settings) for part in images],
        joined((name, text) for name, text in given if name != "url"),
        urls[0] if urls else "",
    )


def _uploaded(part: Part, settings: Settings) -> UploadedImage:
    data = b"" if part.too_large else part.content()
    if len(data) > settings.max_image_bytes:
        return UploadedImage(part.filename, too_large=True)
    return UploadedImage(part.filename, data, part.too_large)


async def _bounded(chunks: AsyncIterator[bytes], most_bytes: int) -> AsyncIterator[bytes]:
    received = 0
    async for chunk in chunks:
        received += len(chunk)
        if received > most_bytes:
            raise ImageTooLarge(f"the request is larger than {most_bytes} bytes, the most that is accepted")
        yield chunk
