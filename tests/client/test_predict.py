"""What people give to `predict` and what they get."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from yolo_gateway import Client, InvalidInput, Prediction, errors

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
        ("no/such/file.jpg", "no/such/file.jpg: No such file"),
        (Path("."), "Is a directory"),
        ("nul\0.jpg", "null"),
        (None, "a NoneType is no image; give a path, a URL"),
        ([PICTURE], "a list is no image"),
    ],
)
def test_what_is_no_image_is_refused_before_it_is_sent(given: Any, said: str) -> None:
    with Client("http://127.0.0.1:1", timeout=1) as client, pytest.raises(InvalidInput) as told:
        client.predict(given)
    assert said in str(told.value) and "\n" not in str(told.value)


def test_an_option_that_the_service_does_not_know_is_refused() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(InvalidInput, match="confidence is no option; there"):
        client.predict(PICTURE, confidence=0.5)  # type: ignore[call-arg]


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


@pytest.mark.parametrize("server", ["127.0.0.1:5000", "ftp://x", "http://", "http://exa mple", ""])
def test_a_server_that_is_no_address_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_GATEWAY_SERVER", "nonsense")
    with pytest.raises(InvalidInput, match=r"server .*give such as http://127.0.0.1:5000"):
        Client(server)


def test_server_and_key_from_the_environment(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_GATEWAY_SERVER", service + "/")
    with Client() as client:
        assert client.predict(PICTURE).detections
