import numpy as np
import pytest

from gateway.vision.letterbox import GREY, letterbox
from tests.support.pictures import gradient


@pytest.mark.parametrize(
    ("source", "square", "expected_hw"),
    [
        ((810, 1080), False, (640, 480)),
        ((1280, 720), False, (384, 640)),
        ((640, 478), False, (480, 640)),
        ((640, 478), True, (640, 640)),
        ((100, 100), False, (640, 640)),
        ((2000, 10), False, (32, 640)),
        ((1, 1), False, (640, 640)),
        ((10_000, 1), False, (32, 640)),
    ],
    ids=["portrait", "landscape", "odd", "square", "scale-up", "thin", "one-pixel", "line"],
)
def test_letterbox_shape(source: tuple[int, int], square: bool, expected_hw: tuple[int, int]) -> None:
    letterboxed, _ = letterbox(gradient(*source), imgsz=640, stride=32, square=square)
    assert letterboxed.shape == (*expected_hw, 3)
    assert letterboxed.dtype == np.uint8 and letterboxed.flags.c_contiguous


@pytest.mark.parametrize("source", [(480, 640), (640, 480), (10, 2000), (1, 1), (192, 320)], ids=str)
def test_letterbox_into_fixed_sides_that_differ(source: tuple[int, int]) -> None:
    letterboxed, placement = letterbox(gradient(*source), imgsz=(192, 320), stride=32, square=True)
    assert letterboxed.shape == (192, 320, 3)
    width, height = source
    assert placement.scale == min(192 / height, 320 / width)
    corners = np.array([[0, 0, width, height]], np.float32) * placement.scale
    corners += np.array([placement.left, placement.top] * 2, np.float32)
    np.testing.assert_allclose(corners[0, :2] + corners[0, 2:], [320, 192], atol=1e-3)
    np.testing.assert_allclose(placement.to_source(corners), [[0, 0, width, height]], atol=1e-2)


def test_letterbox_pads_with_grey_on_both_sides() -> None:
    letterboxed, _ = letterbox(np.zeros((320, 640, 3), np.uint8), imgsz=640, stride=32, square=True)
    assert (letterboxed[:160] == GREY).all() and (letterboxed[480:] == GREY).all()
    assert (letterboxed[160:480] == 0).all()


def test_placement_maps_boxes_back_to_the_source() -> None:
    _, placement = letterbox(gradient(1280, 720), imgsz=640, stride=32, square=True)
    boxes = np.array([[10, 150, 110, 250]], np.float32)
    assert placement.to_source(boxes).tolist() == [[20, 20, 220, 220]]


def test_placement_clips_to_the_source() -> None:
    _, placement = letterbox(gradient(1280, 720), imgsz=640, stride=32, square=True)
    boxes = np.array([[-50, 0, 700, 640]], np.float32)
    assert placement.to_source(boxes).tolist() == [[0, 0, 1280, 720]]


def test_placement_takes_no_boxes() -> None:
    _, placement = letterbox(gradient(64, 48), imgsz=640, stride=32, square=False)
    assert placement.to_source(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_letterbox_of_a_reduced_copy_has_the_placement_of_the_source() -> None:
    whole, placement = letterbox(gradient(1201, 901), imgsz=160, stride=32, square=False)
    reduced = gradient(301, 226)
    copy, copied = letterbox(reduced, imgsz=160, stride=32, square=False, source_hw=(901, 1201))
    assert copied == placement
    assert np.abs(copy.astype(int) - whole).max() <= 4
