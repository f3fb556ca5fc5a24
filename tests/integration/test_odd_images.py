"""Pictures of every kind through the running service: turned, grey, deep, clear, tiny, long and thin."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.integration.test_service import answered, box, differences, labels
from tests.support.pictures import RGB, encoded, turned
from tests.support.shared import SHARED, photograph
from tests.support.stack import Stack


@pytest.fixture(scope="module")
def http(stack: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=stack.base_url, timeout=90) as client:
        yield client


def scaled(width: int) -> RGB:
    """The photograph of two people, RGB."""
    source = cv2.imdecode(np.frombuffer(photograph("zidane.jpg"), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert source is not None
    return np.asarray(cv2.resize(source, (width, width * 9 // 16), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture(scope="module", params=[(".jpg", 1280), (".jpg", 2560), (".png", 640), (".webp", 640)], ids=str)
def upright(request: pytest.FixtureRequest, http: httpx2.Client) -> tuple[str, RGB, dict[str, Any]]:
    """A format, the upright picture, the answer to it; the larger JPEG is decoded smaller than it is."""
    suffix, width = request.param
    picture = scaled(width)
    return suffix, picture, answered(http, turned(1, suffix, picture=picture))


@pytest.mark.parametrize("turn", range(2, 9))
def test_every_orientation_gives_the_same_detections(
    http: httpx2.Client, upright: tuple[str, RGB, dict[str, Any]], turn: int
) -> None:
    suffix, picture, expected = upright
    result = answered(http, turned(turn, suffix, picture=picture))
    assert result["image"] == expected["image"] == {"width": picture.shape[1], "height": picture.shape[0]}
    assert labels(expected).count("person") == 2
    assert differences(result["detections"], wanted(expected)) == []


def wanted(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**found, "box": box(found)} for found in result["detections"]]


def png(picture: npt.NDArray[Any]) -> bytes:
    done, data = cv2.imencode(".png", picture)
    assert done
    return data.tobytes()


def test_deep_and_clear_pictures_give_the_same_detections(http: httpx2.Client) -> None:
    bgr = scaled(640)[..., ::-1]
    expected = wanted(answered(http, png(bgr)))
    for other in (bgr.astype(np.uint16) * 257, np.dstack([bgr, np.full(bgr.shape[:2], 9, np.uint8)])):
        assert differences(answered(http, png(other))["detections"], expected) == []


def test_print_and_palette_pictures_give_the_same_people(http: httpx2.Client) -> None:
    picture = Image.fromarray(scaled(640))
    expected = labels(answered(http, png(scaled(640)[..., ::-1]))).count("person")
    assert expected == 2
    for form, format in ((picture.convert("CMYK"), "JPEG"), (picture.quantize(256), "PNG"), (picture, "GIF")):
        file = io.BytesIO()
        form.save(file, format)
        assert labels(answered(http, file.getvalue())).count("person") == expected, format


def test_people_are_found_in_grey_pictures(http: httpx2.Client) -> None:
    grey = cv2.cvtColor(scaled(640), cv2.COLOR_RGB2GRAY)
    assert "person" in labels(answered(http, png(grey)))


@pytest.mark.parametrize("size", [(1, 1), (16_384, 1), (1, 16_384), (3, 3_000)], ids=str)
def test_tiny_long_and_thin_pictures_are_answered(http: httpx2.Client, size: tuple[int, int]) -> None:
    result = answered(http, encoded(*size))
    assert result["image"] == {"width": size[0], "height": size[1]}


@pytest.mark.parametrize("name", ["hopper_gray.jpg", "hopper.bmp", "hopper.png", "chi.gif"])
def test_files_of_other_makers_are_answered(http: httpx2.Client, name: str) -> None:
    path: Path = SHARED / "corpus" / name
    if not path.is_file():
        pytest.skip(f"no {name}: YOLO_SHARED names no folder with corpus/")
    answered(http, path.read_bytes())
