import itertools

import numpy as np
import pytest

from gateway.vision.colours import class_colour, ink_on, oklab


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """WCAG 2.2: https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""

    def luminance(colour: tuple[int, int, int]) -> float:
        parts = [c / 255 for c in colour]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_class_colours_are_stable() -> None:
    assert [class_colour(class_id) for class_id in range(4)] == [
        (255, 51, 51),
        (0, 255, 0),
        (0, 68, 255),
        (34, 119, 34),
    ]
    assert class_colour(256 + 3) == class_colour(3)


@pytest.mark.parametrize(("classes", "least_distance"), [(8, 0.2), (20, 0.12), (80, 0.06)])
def test_class_colours_are_distinct(classes: int, least_distance: float) -> None:
    seen = oklab(np.array([class_colour(class_id) for class_id in range(classes)]))
    distances = [float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2)]
    assert min(distances) > least_distance


def test_ink_is_readable_on_every_class_colour() -> None:
    assert min(contrast(class_colour(i), ink_on(class_colour(i))) for i in range(256)) >= 4.5


def test_oklab_of_known_colours() -> None:
    known = oklab(np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]]))
    expected = [
        [1, 0, 0],
        [0, 0, 0],
        [0.62796, 0.22486, 0.12585],
    ]  # the last: CSS Color 4, `oklab(0.62796 0.22486 ...)`
    assert known == pytest.approx(np.array(expected), abs=1e-3)
