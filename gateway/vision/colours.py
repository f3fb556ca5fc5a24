"""Colours of classes: stable, as far apart as can be, and bright enough to stand out in a photograph."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Colour = tuple[int, int, int]  # sRGB

COUNT = 256
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)

# Linear sRGB → cone response → OKLab, https://bottosson.github.io/posts/oklab/
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def class_colour(class_id: int) -> Colour:
    """The colour of a class, the same in every picture; they repeat after 256 classes."""
    return _palette()[class_id % COUNT]


def ink_on(ground: Colour) -> Colour:
    """Black or white, whichever contrasts more: WCAG 2.2 contrast of at least 4.5 on any ground."""
    return BLACK if _luminance(ground) > 0.179 else WHITE  # both contrast alike at (L + 0.05)² = 1.05 · 0.05


def _luminance(colour: Colour) -> float:
    """WCAG 2.2 relative luminance."""
    return float(_linear(np.array(colour)) @ (0.2126, 0.7152, 0.0722))


def _linear(srgb: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    fraction = srgb / 255
    return np.where(fraction <= 0.04045, fraction / 12.92, ((fraction + 0.055) / 1.055) ** 2.4)


def oklab(srgb: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """sRGB 0-255 (N, 3) → OKLab (N, 3), in which distance is about what an eye sees."""
    return np.asarray(np.cbrt(_linear(srgb) @ _TO_CONES.T) @ _TO_OKLAB.T)


@lru_cache(maxsize=1)
def _palette() -> tuple[Colour, ...]:
    """Each next colour is the one farthest from all before it (Glasbey et al. 2007), among the vivid ones."""
    levels = np.arange(0, 256, 17)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    seen = oklab(candidates)
    vivid = (np.hypot(seen[:, 1], seen[:, 2]) > 0.11) & (seen[:, 0] > 0.5) & (seen[:, 0] < 0.92)
    candidates, seen = candidates[vivid], seen[vivid]
    chosen = int(np.argmin(np.abs(candidates - (255, 51, 51)).sum(axis=1)))
    distance = np.full(len(candidates), np.inf)
    palette: list[Colour] = []
    for _ in range(COUNT):
        red, green, blue = candidates[chosen].tolist()
        palette.append((red, green, blue))
        distance = np.minimum(distance, np.linalg.norm(seen - seen[chosen], axis=1))
        chosen = int(np.argmax(distance))
    return tuple(palette)
