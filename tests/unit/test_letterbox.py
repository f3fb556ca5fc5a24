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
    letterboxed, _ = letterbox(gradient(*source), size_hw=(640, 640), stride=32, fixed=square)
    assert letterboxed.shape == (*expected_hw, 3)
    assert letterboxed.dtype == np.uint8 and letterboxed.flags.c_contiguous


@pytest.mark.parametrize(
    ("source", "scale", "left", "top"),
    [((1280, 720), 320 / 720, (640 - 1280 * 320 / 720) / 2, 0), ((640, 160), 1.0, 0, 80), ((100, 400), 0.8, 280, 0)],
    ids=["landscape", "wide", "portrait"],
)
def test_letterbox_of_a_fixed_input_that_is_no_square(
    source: tuple[int, int], scale: float, left: float, top: float
) -> None:
    """As YOLOv5's letterbox with new_shape=(320, 640) and auto=False."""
    letterboxed, placement = letterbox(gradient(*source), size_hw=(320, 640), stride=32, fixed=True)
    assert letterboxed.shape == (320, 640, 3)
    assert (placement.scale, placement.left, placement.top) == pytest.approx((scale, left, top))
    corners = np.array([[left, top, 640 - left, 320 - top]], np.float32)
    assert placement.to_source(corners)[0] == pytest.approx([0, 0, *source], abs=0.01)


def test_letterbox_pads_with_grey_on_both_sides() -> None:
    letterboxed, _ = letterbox(np.zeros((320, 640, 3), np.uint8), size_hw=(640, 640), stride=32, fixed=True)
    assert (letterboxed[:160] == GREY).all() and (letterboxed[480:] == GREY).all()
    assert (letterboxed[160:480] == 0).all()


@pytest.mark.parametrize("square", [False, True], ids=["free sides", "square"])
@pytest.mark.parametrize("source", [(640, 480), (1280, 720), (500, 999), (37, 1), (640, 640)], ids=str)
def test_letterbox_covers_what_was_on_the_canvas(source: tuple[int, int], square: bool) -> None:
    expected, placement = letterbox(gradient(*source), size_hw=(640, 640), stride=32, fixed=square)
    used = np.random.default_rng(0).integers(0, 256, 640 * 640 * 3, np.uint8)
    made, made_placement = letterbox(
        gradient(*source),
        size_hw=(640, 640),
        stride=32,
        fixed=square,
        canvas=lambda shape: used[: int(np.prod(shape))].reshape(shape),
    )
    np.testing.assert_array_equal(made, expected)
    assert made_placement == placement and np.shares_memory(made, used)


def test_placement_maps_boxes_back_to_the_source() -> None:
    _, placement = letterbox(gradient(1280, 720), size_hw=(640, 640), stride=32, fixed=True)
    boxes = np.array([[10, 150, 110, 250]], np.float32)
    assert placement.to_source(boxes).tolist() == [[20, 20, 220, 220]]


def test_placement_clips_to_the_source() -> None:
    _, placement = letterbox(gradient(1280, 720), size_hw=(640, 640), stride=32, fixed=True)
    boxes = np.array([[-50, 0, 700, 640]], np.float32)
    assert placement.to_source(boxes).tolist() == [[0, 0, 1280, 720]]


def test_placement_takes_no_boxes() -> None:
    _, placement = letterbox(gradient(64, 48), size_hw=(640, 640), stride=32, fixed=False)
    assert placement.to_source(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_letterbox_of_a_reduced_copy_has_the_placement_of_the_source() -> None:
    whole, placement = letterbox(gradient(1201, 901), size_hw=(160, 160), stride=32, fixed=False)
    reduced = gradient(301, 226)
    copy, copied = letterbox(reduced, size_hw=(160, 160), stride=32, fixed=False, source_hw=(901, 1201))
    assert copied == placement
    assert np.abs(copy.astype(int) - whole).max() <= 4
