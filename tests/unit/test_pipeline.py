import msgspec
import pytest

from gateway.errors import ImageTooLarge, InvalidImage, ModelMismatch, UnsupportedImage
from gateway.queue.records import TaskRequest
from gateway.settings import Settings
from gateway.task import DetectionResult
from gateway.triton.client import TritonUnavailable
from gateway.worker.pipeline import Pipeline, wanted_ids
from tests.support.fakes import SPEC, FakeTriton
from tests.support.pictures import encoded

ASKED = TaskRequest(model="fake", accepted_at=0.0)


def test_detect_maps_boxes_to_the_source_image() -> None:
    fake = FakeTriton([[100, 112, 300, 212, 0.87654, 2]])
    result, _ = Pipeline(fake, Settings()).detect(encoded(1280, 720), ASKED)
    assert fake.seen == [(384, 640, 3)]
    assert (result.image.width, result.image.height) == (1280, 720)
    assert (result.model.name, result.model.version) == ("fake", "1")
    (found,) = result.detections
    assert (found.label, found.class_id, found.score) == ("car", 2, 0.8765)
    assert (found.box.x1, found.box.y1, found.box.x2, found.box.y2) == (200, 200, 600, 400)


def test_detect_times_each_step() -> None:
    result, _ = Pipeline(FakeTriton(), Settings()).detect(encoded(64, 48), ASKED)
    assert list(result.timings_ms) == ["decode", "letterbox", "triton", "nms"]
    assert all(value >= 0 for value in result.timings_ms.values())


def test_detect_finds_nothing_in_an_empty_answer() -> None:
    fake = FakeTriton([[0, 0, 0, 0, 0, 0]])
    result, _ = Pipeline(fake, Settings()).detect(encoded(64, 48), ASKED)
    assert result.detections == []


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
        Pipeline(fake, Settings(max_image_side=64)).detect(data, ASKED)
    assert fake.seen == []


def test_detect_passes_an_outage_on() -> None:
    with pytest.raises(TritonUnavailable):
        Pipeline(FakeTriton(outages=1), Settings()).detect(encoded(64, 48), ASKED)


def test_detect_keeps_to_what_the_request_asks() -> None:
    fake = FakeTriton([[0, 0, 50, 50, 0.9, 0], [5, 5, 55, 55, 0.8, 1], [100, 100, 150, 150, 0.4, 2]])

    def labels(**choices: object) -> list[str]:
        asked = msgspec.convert({"model": "fake", "accepted_at": 0.0, **choices}, TaskRequest)
        result, _ = Pipeline(fake, Settings()).detect(encoded(640, 640), asked)
        return [found.label for found in result.detections]

    assert labels() == ["person", "bicycle", "car"]
    assert labels(confidence=0.5) == ["person", "bicycle"]
    assert labels(max_detections=1) == ["person"]
    assert labels(classes=[2]) == ["car"]
    assert labels(agnostic_nms=True) == ["person", "car"]


def test_detect_maps_boxes_of_a_reduced_jpeg_to_the_source_image() -> None:
    def detected(**choices: object) -> DetectionResult:
        fake = FakeTriton([[100, 112, 300, 212, 0.87654, 2]])
        asked = msgspec.convert({"model": "fake", "accepted_at": 0.0, **choices}, TaskRequest)
        result, image = Pipeline(fake, Settings()).detect(encoded(2560, 1440, ".jpg"), asked)
        assert (image is None) is not bool(choices)
        assert image is None or image.shape == (1080, 1920, 3)
        assert fake.seen == [(384, 640, 3)]
        return result

    result = detected()
    assert (result.image.width, result.image.height) == (2560, 1440)
    box = result.detections[0].box
    assert (box.x1, box.y1, box.x2, box.y2) == (400, 400, 1200, 800)
    assert detected(annotate=True).detections == result.detections


@pytest.mark.parametrize(
    ("classes", "labels", "ids"),
    [
        (None, None, None),
        ([2, 0], None, {0, 2}),  # of a gateway of an earlier release
        ([2], ["car"], {2}),
        ([0], ["car"], {2}),  # its id in the version that was served when the task was accepted
        ([9, 1], ["person", "bicycle"], {0, 1}),
    ],
)
def test_classes_are_those_of_the_version_that_answers(
    classes: list[int] | None, labels: list[str] | None, ids: set[int] | None
) -> None:
    request = msgspec.structs.replace(ASKED, classes=classes, labels=labels)
    assert wanted_ids(request, SPEC) == ids


def test_a_class_that_the_answering_version_lacks_is_named() -> None:
    request = msgspec.structs.replace(ASKED, classes=[0], labels=["zebra"])
    with pytest.raises(ModelMismatch, match="classes=zebra: version 1 of fake"):
        wanted_ids(request, SPEC)


@pytest.mark.parametrize("class_id", [3, -1])
def test_a_class_without_a_label_is_no_defect_of_the_service(class_id: int) -> None:
    fake = FakeTriton([[100, 112, 300, 212, 0.9, class_id]])
    with pytest.raises(ModelMismatch, match=rf"finds class {class_id}, and has 3 labels"):
        Pipeline(fake, Settings()).detect(encoded(64, 48), ASKED)
