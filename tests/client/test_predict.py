"""What people give to `predict` and what they get."""

import asyncio
import io
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from yolo_gateway import AsyncClient, Client, InvalidInput, Prediction, errors, flows
from yolo_gateway.messages import Answer

from tests.support.pictures import encoded, turned

PICTURE = encoded(640, 480)
GREY = np.full((40, 60), 80, np.uint8)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a photo.png"
    path.write_bytes(PICTURE)
    return path


@pytest.fixture
def found(service: str) -> Prediction:
    with Client(service) as client:
        return client.predict(PICTURE)


def cut_image() -> Image.Image:
    """Its header is read, its pixels are not there."""
    return Image.open(io.BytesIO(PICTURE[: len(PICTURE) // 2]))


def givens(path: Path) -> dict[str, Any]:
    image = Image.open(path)
    array = np.asarray(image.convert("RGB"))
    return {
        "path": path,
        "text": str(path),
        "bytes": path.read_bytes(),
        "bytearray": bytearray(path.read_bytes()),
        "file": io.BytesIO(path.read_bytes()),
        "pillow": image,
        "palette": image.convert("P"),
        "array": array,
    }


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "bytearray", "file", "pillow", "palette", "array"])
def test_every_kind_of_image(service: str, photo: Path, kind: str) -> None:
    with Client(service) as client:
        found = client.predict(givens(photo)[kind], conf=0.3, max_det=5)
    assert [(each.label, each.class_id) for each in found.detections] == [("person", 0)]
    assert found.detections[0].score == pytest.approx(0.9)
    assert (found.image.width, found.image.height) == (640, 480)
    assert (found.model.name, found.warnings, len(found)) == ("fake", [], 1)


def test_what_travels_is_the_picture_itself(service: str, photo: Path) -> None:
    """An array, RGB or with bgr=True, is the same picture as its file."""
    from yolo_gateway.inputs import source_of

    array = np.asarray(Image.open(photo).convert("RGB"))
    for source in (source_of(array), source_of(array[..., ::-1], bgr=True), source_of(Image.fromarray(array))):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(source.read()))), array)
    grey = Image.open(io.BytesIO(source_of(GREY[..., None]).read()))
    assert np.array_equal(np.asarray(grey)[..., 1], GREY)


def test_a_turned_photo_is_sent_upright() -> None:
    from yolo_gateway.inputs import source_of

    data = turned(6, ".jpg")
    with Image.open(io.BytesIO(data)) as image:
        sent = Image.open(io.BytesIO(source_of(image).read()))
        assert sent.size == image.size[::-1]


def closed_file() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


class NothingYet(io.RawIOBase):
    """As a pipe that does not block and that nobody has written to."""

    def read(self, size: int = -1) -> None:
        return None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((4, 4, 3), np.float32), "array of float32 (4x4x3); give uint8"),
        (np.zeros((4, 4, 4), np.uint8), "four channels; give three"),
        (np.zeros((1, 3, 4, 4), np.uint8), "1x3x4x4; give one image"),
        (np.zeros((0, 4, 3), np.uint8), "0x4x3; give one image"),
        (b"", "the bytes are empty"),
        (io.BytesIO(b""), "the contents of the file"),
        (io.StringIO("x"), "opened as text"),
        (closed_file(), "the file cannot be read: I/O operation on closed file"),
        (io.BufferedWriter(io.BytesIO()), "the file cannot be read: read"),
        (NothingYet(), "the file has nothing to read yet"),
        ("no/such/file.jpg", "no/such/file.jpg: No such file"),
        (Path("."), "Is a directory"),
        ("nul\0.jpg", "null"),
        (None, "a NoneType is no image; give a path, a URL"),
        ([PICTURE], "a list is no image"),
        ("http://[::1/bus.jpg", "is no URL"),
        ("https:///bus.jpg", "it has no host"),
        (Image.new("I;16", (4, 4)), "of mode I;16; give one of 8 bits"),
        (Image.new("F", (4, 4)), "of mode F; give one of 8 bits"),
        (cut_image(), "the PIL image cannot be read"),
    ],
)
def test_what_is_no_image_is_refused_before_it_is_sent(given: Any, said: str) -> None:
    with Client("http://127.0.0.1:1", timeout=1) as client, pytest.raises(InvalidInput) as told:
        client.predict(given)
    assert said in str(told.value) and "\n" not in str(told.value)


def test_an_option_that_the_service_does_not_know_is_refused() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(InvalidInput, match="confidence is no option; there"):
        client.predict(PICTURE, confidence=0.5)  # type: ignore[call-arg]


@pytest.mark.parametrize("classes", [[], (), set(), "", " , "], ids=["list", "tuple", "set", "text", "comma"])
def test_a_list_of_classes_that_came_out_empty_is_not_taken_for_all(classes: Any) -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(InvalidInput, match="classes is empty; give labels"):
        client.predict(PICTURE, classes=classes)


@pytest.mark.parametrize("images", ["bus.jpg", b"bytes", Path("bus.jpg")], ids=["text", "bytes", "path"])
def test_one_image_is_not_many(images: Any) -> None:
    with (
        Client("http://127.0.0.1:1") as client,
        pytest.raises(InvalidInput, match=r"is one \w+; give a list of images"),
    ):
        client.predict_many(images)


UNUSABLE = [("ALL_PROXY", "gopher://127.0.0.1:9"), ("SSL_CERT_FILE", "/no/such/file")]


@pytest.mark.parametrize(("name", "value"), UNUSABLE, ids=["proxy", "certificates"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_environment_that_httpx_cannot_use_is_named(
    kind: type[Client | AsyncClient], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match=f"cannot be used: .*{name}"):
        kind("http://127.0.0.1:1")


def test_an_option_out_of_range_is_an_error_with_its_code(service: str) -> None:
    with Client(service) as client, pytest.raises(errors.InvalidParameter, match=r"conf.*\(request \w+\)") as told:
        client.predict(PICTURE, conf=2)
    assert (told.value.code, told.value.status) == ("invalid_parameter", 422)


def test_what_is_not_an_image_is_refused_by_the_service(service: str) -> None:
    with Client(service) as client, pytest.raises(errors.UnsupportedImage):
        client.predict(b"not an image at all")


def test_a_task_that_fails_says_why(service: str) -> None:
    with Client(service) as client, pytest.raises(errors.InvalidImage) as told:
        client.predict(PICTURE[: len(PICTURE) // 2])
    assert told.value.task_id and told.value.code == "invalid_image"
    assert told.value.request_id in str(told.value)


def test_unknown_fields_are_kept(found: Prediction) -> None:
    assert found.raw["detections"][0]["box"]["x1"] == found.detections[0].box.x1
    assert set(found.raw) >= {"model", "image", "detections", "timings_ms", "warnings"}


def test_unknown_fields_of_the_models_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"default": "coco", "models": [], "unavailable": [], "licence": "AGPL-3.0"}'

    def newer(*_: Any) -> Any:
        yield from ()
        return Answer(200, {}, body)

    monkeypatch.setattr(flows, "answered", newer)
    with Client("http://127.0.0.1:1") as client:
        listed = client.models()
    assert (listed.default, listed.raw["licence"]) == ("coco", "AGPL-3.0")


def test_coco(found: Prediction) -> None:
    (entry,) = found.to_coco(image_id=7)
    box = found.detections[0].box
    assert entry["bbox"] == [box.x1, box.y1, round(box.x2 - box.x1, 2), round(box.y2 - box.y1, 2)]
    assert (entry["image_id"], entry["category_id"]) == (7, 1)


def test_the_picture_has_the_box_in_the_services_colour(found: Prediction) -> None:
    from gateway.vision.colours import class_colour

    picture = found.annotated()
    box = found.detections[0].box
    assert picture.size == (640, 480)
    assert picture.getpixel((int(box.x1), int(box.y2) - 5)) == class_colour(0)


def test_supervision(found: Prediction) -> None:
    pytest.importorskip("supervision")
    given = found.to_supervision()
    assert given.xyxy.shape == (1, 4) and given.data["class_name"].tolist() == ["person"]


def test_the_key_is_in_no_text(service: str) -> None:
    client = Client(service, "top-secret-key")
    assert "top-secret" not in repr(client) + repr(vars(client))
    client.close()
    with pytest.raises(TypeError):
        pickle.dumps(client)


def test_a_closed_client_says_so(service: str) -> None:
    client = Client(service)
    client.close()
    with pytest.raises(RuntimeError, match="this client is closed"):
        client.predict(PICTURE)

    async def ask() -> None:
        other = AsyncClient(service)
        await other.close()
        await other.predict(PICTURE)

    with pytest.raises(RuntimeError, match="this client is closed"):
        asyncio.run(ask())


@pytest.mark.parametrize("server", ["http://me:top-secret@127.0.0.1", "http://127.0.0.1/?key=top-secret"])
def test_a_secret_in_the_address_is_refused_and_not_said(server: str) -> None:
    with pytest.raises(InvalidInput, match="give the key as key") as told:
        Client(server)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("name", ["traceparent", "idempotency_key"])
@pytest.mark.parametrize("value", ["two\nlines", "ü"])
def test_what_no_header_can_carry_is_refused(name: str, value: str) -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(InvalidInput, match=f"{name} .*no header"):
        client.predict(PICTURE, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["timeout", "idempotency_key", "traceparent"])
def test_an_option_of_another_type_is_named(option: str) -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(InvalidInput, match=f"{option}.* give "):
        client.predict(PICTURE, **{option: [5]})  # type: ignore[arg-type]


@pytest.mark.parametrize("task_id", ["../models", "", "a?b", 5])
def test_what_is_no_task_id_is_not_asked_for(task_id: Any) -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(InvalidInput, match="is no task id; give the task_id"):
        client.task(task_id)

    async def ask() -> None:
        async with AsyncClient("http://127.0.0.1:1") as other:
            await other.task(task_id)

    with pytest.raises(InvalidInput, match="is no task id; give the task_id"):
        asyncio.run(ask())


@pytest.mark.parametrize("concurrency", [0, 1.5, "2"])
def test_a_concurrency_that_is_none_is_refused(concurrency: Any) -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(InvalidInput, match="give a whole number, 1 or more"):
        client.predict_many([PICTURE], concurrency=concurrency)


def test_a_port_that_there_is_none_of_is_refused() -> None:
    with pytest.raises(InvalidInput, match="70000 is no port; give one from 1 to 65535"):
        Client("http://127.0.0.1:70000")


@pytest.mark.parametrize("server", ["127.0.0.1:5000", "ftp://x", "http://", "http://exa mple", ""])
def test_a_server_that_is_no_address_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_GATEWAY_SERVER", "nonsense")
    with pytest.raises(InvalidInput, match=r"server .*give such as http://127.0.0.1:5000"):
        Client(server)


def test_server_and_key_from_the_environment(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_GATEWAY_SERVER", service + "/")
    with Client() as client:
        assert client.predict(PICTURE).detections


def test_a_result_without_detections_is_a_result(service: str) -> None:
    with Client(service) as client:
        found = client.predict(PICTURE, conf=0.99)
    assert found and len(found) == 0


def test_a_file_that_never_ends_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolo_gateway.inputs.MOST_BYTES", 1000)
    with Client("http://127.0.0.1:1") as client, pytest.raises(InvalidInput, match="more than 1000 bytes"):
        client.predict("/dev/zero")


def test_an_image_that_is_too_large_is_said_to_be(service: str) -> None:
    """Though the service answers before it has read all of it."""
    with Client(service, timeout=20) as client, pytest.raises(errors.ImageTooLarge):
        client.predict(PICTURE + bytes(60_000_000))


def test_a_picture_that_pillow_cannot_read_is_said_to_be(found: Prediction) -> None:
    from yolo_gateway.drawing import draw

    with pytest.raises(InvalidInput, match="Pillow cannot read the image"):
        draw(PICTURE[: len(PICTURE) // 2], found.detections)


@pytest.mark.parametrize(("call", "extra"), [("annotated", "images"), ("to_supervision", "supervision")])
def test_a_package_that_is_missing_is_named(
    found: Prediction, monkeypatch: pytest.MonkeyPatch, call: str, extra: str
) -> None:
    for name in ("PIL", "supervision", "yolo_gateway.drawing"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"pip install .*\[{extra}\]"):
        getattr(found, call)()
