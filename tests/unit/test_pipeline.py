import pytest

from gateway.errors import ImageTooLarge, InvalidImage, UnsupportedImage
from gateway.pipeline import Pipeline
from gateway.settings import Settings
from gateway.triton import TritonUnavailable
from tests.fakes import FakeTriton
from tests.pictures import encoded


def test_detect_maps_boxes_to_the_source_image() -> None:
    fake = FakeTriton([[100, 112, 300, 212, 0.87654, 2]])
    result = Pipeline(fake, Settings()).detect(encoded(1280, 720), "fake")
    assert fake.seen == [(384, 640, 3)]
    assert (result.image.width, result.image.height) == (1280, 720)
    assert (result.model.name, result.model.version) == ("fake", "1")
    (found,) = result.detections
    assert (found.label, found.class_id, found.score) == ("car", 2, 0.8765)
    assert (found.box.x1, found.box.y1, found.box.x2, found.box.y2) == (200, 200, 600, 400)


def test_detect_times_each_step() -> None:
    result = Pipeline(FakeTriton(), Settings()).detect(encoded(64, 48), "fake")
    assert list(result.timings_ms) == ["decode", "letterbox", "triton", "nms"]
    assert all(value >= 0 for value in result.timings_ms.values())


def test_detect_finds_nothing_in_an_empty_answer() -> None:
    fake = FakeTriton([[0, 0, 0, 0, 0, 0]])
    assert Pipeline(fake, Settings()).detect(encoded(64, 48), "fake").detections == []


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"not an image", UnsupportedImage),
        (encoded(64, 48)[:60], InvalidImage),
        (encoded(64, 65), ImageTooLarge),
    ],
    ids=["type", "cut", "large"],
)
def test_detect_refuses_bad_images_before_triton(data: bytes, error: type[Exception]) -> None:
    fake = FakeTriton()
    with pytest.raises(error):
        Pipeline(fake, Settings(max_image_side=64)).detect(data, "fake")
    assert fake.seen == []


def test_detect_passes_an_outage_on() -> None:
    with pytest.raises(TritonUnavailable):
        Pipeline(FakeTriton(outages=1), Settings()).detect(encoded(64, 48), "fake")
