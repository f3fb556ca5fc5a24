"""Bodies that are written in other ways than browsers and curl do: what Flask takes is taken."""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.support.pictures import encoded

PICTURE = encoded(640, 480, ".jpg")
TEXT = base64.b64encode(PICTURE)
HEAD = b'Content-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n'
PART = b"--x\r\n" + HEAD + b"\r\n" + PICTURE + b"\r\n--x--\r\n"
LINES = base64.encodebytes(PICTURE)

BODIES = {
    "preamble": b"This is a MIME message.\r\n" + PART,
    "epilogue": PART + b"and good-bye\r\n--x\r\n",
    "an empty line first": b"\r\n" + PART,
    "blanks behind the boundaries": PART.replace(b"--x\r\n", b"--x \t\r\n").replace(b"--x--", b"--x--  "),
    "nothing behind the end": PART.removesuffix(b"\r\n"),
    "lines end in LF": PART.replace(HEAD, HEAD.replace(b"\r\n", b"\n"))
    .replace(b"\n\r\n" + PICTURE + b"\r\n", b"\n\n" + PICTURE + b"\n")
    .replace(b"--x\r\n", b"--x\n"),
    "folded header": PART.replace(b"form-data; name", b"form-data;\r\n\tname"),
    "small letters": PART.replace(b"Content-Disposition", b"content-disposition"),
    "no blank behind the colon": PART.replace(b"Disposition: ", b"Disposition:"),
    "name without quotes": PART.replace(b'name="image"', b"name=image"),
    "name in Latin-1": PART.replace(b"a.jpg", "café.jpg".encode("latin-1")),
    "name by RFC 2231": PART.replace(b'filename="a.jpg"', b"filename*=UTF-8''caf%C3%A9.jpg"),
    "base64": PART.replace(PICTURE, LINES).replace(b"image/jpeg", b"image/jpeg\r\nContent-Transfer-Encoding: base64"),
    "BASE64 in one line": PART.replace(PICTURE, TEXT).replace(
        b"image/jpeg", b"image/jpeg\r\ncontent-transfer-encoding:BASE64"
    ),
    "base64 with a comment": PART.replace(PICTURE, LINES).replace(
        b"image/jpeg", b"image/jpeg\r\nContent-Transfer-Encoding: base64 (as MIME has it)"
    ),
    "binary": PART.replace(b"image/jpeg", b"image/jpeg\r\nContent-Transfer-Encoding: binary"),
}
JSON: dict[str, bytes] = {
    "BOM": b"\xef\xbb\xbf" + json.dumps({"image": TEXT.decode()}).encode(),
    "UTF-16": json.dumps({"image": TEXT.decode()}).encode("utf-16"),
    "no padding": json.dumps({"image": base64.b64encode(PICTURE + b"\0").decode().rstrip("=")}).encode(),
    "URL-safe": json.dumps({"image": base64.urlsafe_b64encode(PICTURE).decode()}).encode(),
    "in lines": json.dumps({"image": LINES.decode()}).encode(),
    "in lines of Windows": json.dumps({"image": LINES.decode().replace("\n", "\r\n")}).encode(),
    "data URL": json.dumps({"image": f"data:image/jpeg;base64,{TEXT.decode()}"}).encode(),
}


def finished(client: httpx2.Client, work: Callable[[], None], body: bytes, content_type: str) -> dict[str, Any]:
    answer = client.post("/predict", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 202, answer.text
    work()
    view: dict[str, Any] = client.get(answer.headers["location"]).json()
    return view


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_form_that_is_written_in_another_way(client: httpx2.Client, work: Callable[[], None], body: bytes) -> None:
    view = finished(client, work, body, "multipart/form-data; boundary=x")
    assert (view["status"], view["result"]["warnings"]) == ("SUCCESS", []), view
    assert view["result"]["image"] == {"width": 640, "height": 480}


@pytest.mark.parametrize("body", JSON.values(), ids=JSON)
def test_json_that_is_written_in_another_way(client: httpx2.Client, work: Callable[[], None], body: bytes) -> None:
    view = finished(client, work, body, "application/json")
    assert (view["status"], view["result"]["warnings"]) == ("SUCCESS", []), view


def test_a_boundary_in_quotes(client: httpx2.Client, work: Callable[[], None]) -> None:
    body = PART.replace(b"--x", b"--a b:c")
    assert finished(client, work, body, 'multipart/form-data; charset=utf-8; boundary="a b:c"')["status"] == "SUCCESS"


@pytest.mark.parametrize(
    ("boundary", "content_type"),
    [
        (b"----=_Part_1_2.3", "multipart/form-data; boundary=----=_Part_1_2.3"),
        (b"x", "Multipart/Form-Data; Boundary = x"),
    ],
    ids=["JavaMail's", "capitals and blanks"],
)
def test_a_content_type_that_is_written_in_another_way(
    client: httpx2.Client, work: Callable[[], None], boundary: bytes, content_type: str
) -> None:
    body = PART.replace(b"--x", b"--" + boundary)
    assert finished(client, work, body, content_type)["status"] == "SUCCESS"
    assert finished(client, work, JSON["BOM"], "Application/JSON; charset=utf-8")["status"] == "SUCCESS"


def test_a_content_type_without_end_takes_no_time(client: httpx2.Client) -> None:
    content_type = 'multipart/form-data; boundary="' + ";" * 60_000
    begun = time.monotonic()
    answer = client.post("/predict", content=PART, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_multipart")
    assert time.monotonic() - begun < 2.5


def test_base64_that_is_none(client: httpx2.Client) -> None:
    body = PART.replace(PICTURE, b"!!!").replace(b"image/jpeg", b"image/jpeg\r\nContent-Transfer-Encoding: base64")
    answer = client.post("/predict", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_multipart")
    assert "base64" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [b"p" * 200_000 + PART, PART.replace(b"--x\r\n", b"--x\r\nX-Long: " + b"a" * 200_000 + b"\r\n")],
    ids=["preamble", "header"],
)
def test_what_is_before_a_part_is_bounded(client: httpx2.Client, body: bytes) -> None:
    answer = client.post("/predict", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_multipart")
