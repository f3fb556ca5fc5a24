"""Files made to break things, out of good ones."""

import base64
import json
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

SUFFIXES = (".jpg", ".png", ".webp", ".bmp", ".gif")
_TYPES = (
    "image/jpeg",
    "image/png",
    "image/gif",
    "text/plain",
    "application/octet-stream",
    "application/pdf",
    "",
    "x/y",
)
_NAMES = ("a.jpg", "../../etc/passwd", "a.exe", "a\x00b.png", "ä" * 300, "CON", "a.png.php", "-rf", "")
_BOUNDARY = "xYzZy"


class Body(NamedTuple):
    """What a POST sends: its Content-Type (none when empty) and the bytes."""

    content_type: str
    content: bytes


def good(images: Sequence[bytes], longest: int = 320) -> list[bytes]:
    """Each image in each accepted format, no side longer than `longest` pixels; with them the smallest pictures."""
    files = []
    for data in images:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        scale = min(1.0, longest / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        files += [cv2.imencode(suffix, small)[1].tobytes() for suffix in SUFFIXES]
        files.append(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes())
        files.append(cv2.imencode(".png", small.astype(np.uint16) * 257)[1].tobytes())
    return files


def corpus(files: Sequence[tuple[str, bytes]]) -> Iterator[Body]:
    """Each file as it is, in a form under its own name."""
    for name, data in files:
        yield form(data, name, "application/octet-stream")


def mutations(files: Sequence[bytes], number: int, seed: int = 5) -> Iterator[Body]:
    """Bodies with `number` corrupted files; the same for the same seed."""
    chance = random.Random(seed)
    for _ in range(number):
        yield envelope(corrupted(chance.choice(files), files, chance), chance)


def corrupted(data: bytes, files: Sequence[bytes], chance: random.Random) -> bytes:
    """The file cut, with bits flipped or bytes overwritten, or with a piece of itself or of another in its midst."""
    content = bytearray(data)
    kind = chance.choice(("cut", "bits", "head", "bytes", "piece", "splice", "length", "tail", "none"))
    if kind == "cut":
        del content[chance.randrange(len(content)) :]
    elif kind in ("bits", "head"):
        end = len(content) if kind == "bits" else min(len(content), 64)
        for _ in range(chance.choice((1, 3, 30))):
            content[chance.randrange(end)] ^= 1 << chance.randrange(8)
    elif kind == "bytes":
        start = chance.randrange(len(content))
        content[start : start + chance.randrange(1, 64)] = chance.choice((b"\xff", b"\0")) * chance.randrange(1, 64)
    elif kind == "piece":
        start, end = sorted(chance.randrange(len(content)) for _ in range(2))
        content[start:start] = content[start : min(end, start + 4096)]
    elif kind == "splice":
        other = chance.choice(files)
        content = content[: chance.randrange(len(content))] + other[chance.randrange(len(other)) :]
    elif kind == "length":
        start = chance.randrange(min(len(content), 256))
        content[start : start + 4] = chance.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1"))
    elif kind == "tail":
        content += chance.randbytes(chance.randrange(1, 4096))
    return bytes(content)


def envelope(data: bytes, chance: random.Random) -> Body:
    """The file as a raw body, in a form or in JSON, under a wrong type or name; sometimes the envelope is corrupted."""
    kind = chance.choices(("form", "raw", "json", "broken form", "broken json"), weights=(8, 6, 3, 2, 1))[0]
    if kind == "raw":
        return Body(chance.choice(_TYPES), data)
    if kind.endswith("json"):
        content = json.dumps(
            {"image": base64.b64encode(data).decode(), "conf": chance.choice((0.1, "x", None))}
        ).encode()
        return Body("application/json", content[: -chance.randrange(1, 60)] if kind.startswith("broken") else content)
    body = form(data, chance.choice(_NAMES), chance.choice(_TYPES))
    if kind == "form":
        return body
    spoilt_form = bytearray(body.content)
    for _ in range(chance.randrange(1, 4)):
        spoilt_form[chance.randrange(min(len(spoilt_form), 160))] = chance.randrange(256)
    kept = chance.choice((len(spoilt_form), len(spoilt_form) - 9, 40))
    return Body(body.content_type, bytes(spoilt_form[:kept]))


def form(data: bytes, name: str, content_type: str) -> Body:
    disposition = f'Content-Disposition: form-data; name="image"; filename="{name}"'
    head = f"--{_BOUNDARY}\r\n{disposition}\r\nContent-Type: {content_type}\r\n\r\n"
    content = head.encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return Body(f"multipart/form-data; boundary={_BOUNDARY}", content)
