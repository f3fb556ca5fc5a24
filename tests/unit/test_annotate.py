import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest

from gateway.task import Box, Detection, DetectionResult, ImageSize, ServedModel
from gateway.vision.annotate import LEAST_SIDE, LONGEST_SIDE, annotate, encode
from gateway.vision.colours import class_colour
from gateway.vision.decode import decode
from tests.support.pictures import gradient
from tests.support.shared import photograph, reference

GREY = 128


def result(width: int, height: int, *detections: Detection) -> DetectionResult:
    return DetectionResult(ServedModel("yolov5n", "1"), ImageSize(width, height), list(detections), {})


def grey(width: int, height: int) -> npt.NDArray[np.uint8]:
    return np.full((height, width, 3), GREY, np.uint8)


def drawn_at(picture: npt.NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is not grey."""
    rows, columns = np.nonzero((picture != GREY).any(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def label_of(label: str, class_id: int = 3, width: int = 800) -> npt.NDArray[np.uint8]:
    """The picture of one box with this label: two are equal only if their labels look the same."""
    return annotate(grey(width, 600), result(width, 600, Detection(label, class_id, 0.5, Box(200, 200, 500, 400))))


def test_the_box_is_drawn_where_the_object_is() -> None:
    picture = annotate(grey(800, 600), result(800, 600, Detection("cat", 0, 0.9, Box(200, 150, 600, 450))))
    red = (picture == class_colour(0)).all(axis=2)
    assert picture.shape == (600, 800, 3) and picture.dtype == np.uint8
    assert red[300, 200] and red[300, 600] and red[450, 400] and red[150, 500]
    assert (picture[160:440, 210:590] == GREY).all()
    assert (picture[:, :190] == GREY).all() and (picture[460:] == GREY).all()


def test_the_image_itself_stays_as_it_was() -> None:
    image = gradient(640, 480)
    before = image.copy()
    annotate(image, result(640, 480, Detection("cat", 0, 0.9, Box(10, 10, 100, 100))))
    assert (image == before).all()


def test_without_detections_the_picture_is_the_image() -> None:
    image = gradient(640, 480)
    assert (annotate(image, result(640, 480)) == image).all()


@pytest.mark.parametrize(
    ("size_wh", "drawn_wh"),
    [
        ((4000, 3000), (1920, 1440)),
        ((1920, 100), (1920, 100)),
        ((3001, 3999), (1441, 1920)),
        ((6000, 6000), (1920, 1920)),
        ((64, 48), (480, 360)),
        ((1, 1), (480, 480)),
        ((16_384, 1), (1920, 1)),
        ((1, 16_384), (1, 1920)),
        ((10, 2000), (10, 1920)),
    ],
    ids=lambda size: "x".join(map(str, size)),
)
def test_size_of_the_picture_is_bounded(size_wh: tuple[int, int], drawn_wh: tuple[int, int]) -> None:
    width, height = size_wh
    whole = Detection("a rather long label", 1, 0.9, Box(0, 0, width, height))
    nothing = Detection("point", 2, 0.8, Box(width, height, width, height))
    picture = annotate(grey(width, height), result(width, height, whole, nothing))
    assert picture.shape == (drawn_wh[1], drawn_wh[0], 3)
    assert LEAST_SIDE <= max(picture.shape) <= LONGEST_SIDE


@pytest.mark.parametrize("reduced", [1, 2, 4])
def test_boxes_are_scaled_with_the_picture(reduced: int) -> None:
    found = Detection("cat", 0, 0.9, Box(1000, 1500, 3000, 2500))
    picture = annotate(grey(4000 // reduced, 3000 // reduced), result(4000, 3000, found))
    height, width = picture.shape[:2]
    red = (picture == class_colour(0)).all(axis=2)
    left, top, right, bottom = width // 4, height // 2, width * 3 // 4, height * 5 // 6
    assert red[(top + bottom) // 2, left - 1 : left + 2].any() and red[(top + bottom) // 2, right - 1 : right + 2].any()
    assert red[bottom - 1 : bottom + 2, width // 2].any()


@pytest.mark.parametrize(
    "box",
    [Box(0, 0, 640, 480), Box(0, 0, 5, 5), Box(635, 475, 640, 480), Box(0, 475, 5, 480), Box(635, 0, 640, 5)],
    ids=["whole", "top-left", "bottom-right", "bottom-left", "top-right"],
)
def test_labels_stay_within_the_picture(box: Box) -> None:
    """The label is as large as that of a box in the middle, so nothing of it is cut."""
    label = "traffic light"
    colour = class_colour(4)
    middle = annotate(grey(640, 480), result(640, 480, Detection(label, 4, 0.9, Box(300, 200, 305, 205))))
    edge = annotate(grey(640, 480), result(640, 480, Detection(label, 4, 0.9, box)))
    assert (edge == colour).all(axis=2).sum() >= 0.95 * (middle == colour).all(axis=2).sum()


def test_labels_of_objects_in_one_place_are_all_shown() -> None:
    found = [Detection("person", class_id, 0.9, Box(300, 200, 304, 204)) for class_id in range(4)]
    together = annotate(grey(640, 480), result(640, 480, *found))
    for detection in found:
        alone = annotate(grey(640, 480), result(640, 480, detection))
        colour = class_colour(detection.class_id)
        assert (together == colour).all(axis=2).sum() > 0.7 * (alone == colour).all(axis=2).sum()


def test_the_best_of_a_crowd_keeps_its_label() -> None:
    rng = random.Random(5)
    corners = [(rng.uniform(0, 600), rng.uniform(0, 440)) for _ in range(300)]
    crowd = [Detection("person", 1, 0.5, Box(x, y, x + 40, y + 40)) for x, y in corners]
    best = Detection("person", 0, 0.99, Box(300, 200, 340, 240))
    picture = annotate(grey(640, 480), result(640, 480, best, *crowd))
    alone = annotate(grey(640, 480), result(640, 480, best))
    red = (picture == class_colour(0)).all(axis=2).sum()
    assert red >= 0.7 * (alone == class_colour(0)).all(axis=2).sum()


@pytest.mark.parametrize("label", ["Straßenköter", "человек", "σκύλος", "犬と猫", "自行车", "강아지", "dog?", "½ µ°"])
def test_labels_are_drawn_in_their_own_letters(label: str) -> None:
    assert not np.array_equal(label_of(label), label_of("?" * len(label)))
    assert not np.array_equal(label_of(label), label_of("#3"))


@pytest.mark.parametrize("label", ["ไทย", "हिन्दी", "😀", "עברית", "عربي", "", " ", "\x00\x07"])
def test_labels_that_cannot_be_set_become_the_class_id(label: str) -> None:
    assert np.array_equal(label_of(label), label_of("#3"))


def test_accents_may_be_composed_or_not() -> None:
    assert np.array_equal(label_of("cafe\u0301"), label_of("caf\u00e9"))


def test_a_label_wider_than_the_picture_is_cut_and_keeps_its_score() -> None:
    long, longer = label_of("bicycle " * 40), label_of("bicycle " * 41)
    assert drawn_at(long)[0] >= 0 and drawn_at(long)[2] <= 799
    assert long.shape == longer.shape == (600, 800, 3)
    other = annotate(grey(800, 600), result(800, 600, Detection("bicycle " * 40, 3, 0.99, Box(200, 200, 500, 400))))
    assert not np.array_equal(long, other)


def test_threads_draw_the_same_as_one() -> None:
    words = ["person", "человек", "犬と猫", "강아지"]
    cases = [(word, width) for word in words for width in (320, 480, 640, 960, 1600)]
    alone = [label_of(word, width=width) for word, width in cases]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            together = pool.map(lambda case: label_of(case[0], width=case[1]), cases)
            assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_encoded_pictures_decode_to_the_same_colours() -> None:
    image = gradient(320, 240)
    files = encode(image)
    assert list(files) == ["image/jpeg", "image/png"]
    assert (decode(files["image/png"]) == image).all()
    assert np.abs(decode(files["image/jpeg"]).astype(int) - image).mean() < 3


def test_photographs_with_their_reference_answers() -> None:
    for name, answer in reference(square=False).items():
        found = [Detection(o["label"], o["class_id"], o["score"], Box(*o["box"])) for o in answer["detections"]]
        image = decode(photograph(name))
        picture = annotate(image, result(answer["width"], answer["height"], *found))
        assert picture.shape == image.shape
        for detection in found:
            assert (picture == class_colour(detection.class_id)).all(axis=2).any()
