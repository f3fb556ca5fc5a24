"""Letterbox: scale into the model's input with the aspect ratio kept, pad with grey. As YOLOv5 does it.

Source of the arithmetic: `utils/augmentations.py:letterbox` of ultralytics/yolov5 (scale up allowed, linear
interpolation, grey 114, odd padding to the right and the bottom).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.vision.opencv import cv2

GREY = 114


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the source image is in the letterboxed input. Sizes are (height, width) in pixels.

    `left` and `top` are half the whole padding, as YOLOv5's `scale_boxes` has it, not rounded to the pixel.
    """

    source_hw: tuple[int, int]
    scale: float
    left: float
    top: float

    def to_source(self, boxes_xyxy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map float32 (N, 4) boxes from input pixels to source pixels, clipped to the source image."""
        height, width = self.source_hw
        offset = np.array([self.left, self.top, self.left, self.top], np.float32)
        limits = np.array([width, height, width, height], np.float32)
        boxes: npt.NDArray[np.float32] = np.clip((boxes_xyxy - offset) / np.float32(self.scale), 0, limits)
        return boxes


def letterbox(
    image: npt.NDArray[np.uint8],
    *,
    size_hw: tuple[int, int],
    stride: int,
    fixed: bool,
    source_hw: tuple[int, int] | None = None,
    canvas: Callable[[tuple[int, int, int]], npt.NDArray[np.uint8]] = lambda shape: np.empty(shape, np.uint8),
) -> tuple[npt.NDArray[np.uint8], Placement]:
    """Fit an image into the model's input.

    `image` is RGB uint8 (height, width, 3). It is scaled to the largest that has room in `size_hw` (height, width); the
    result is RGB uint8 of exactly that size when `fixed`, otherwise padded by the least that makes both sides multiples
    of `stride`. `source_hw` is the source's (height, width) in pixels where `image` is a reduced copy of it; the
    placement is the source's. `canvas` gives the array of a shape that the result is made in.
    """
    height, width = source_hw or image.shape[:2]
    scale = min(size_hw[0] / height, size_hw[1] / width)
    fitted_w, fitted_h = max(round(width * scale), 1), max(round(height * scale), 1)
    if fixed:
        input_h, input_w = size_hw
    else:
        input_h, input_w = -(-fitted_h // stride) * stride, -(-fitted_w // stride) * stride
    left, top = round((input_w - fitted_w) / 2 - 0.1), round((input_h - fitted_h) / 2 - 0.1)

    letterboxed = canvas((input_h, input_w, 3))
    bottom, right = top + fitted_h, left + fitted_w
    letterboxed[:top] = letterboxed[bottom:] = GREY
    letterboxed[top:bottom, :left] = letterboxed[top:bottom, right:] = GREY
    inside = letterboxed[top:bottom, left:right]
    if (fitted_h, fitted_w) == image.shape[:2]:
        inside[:] = image
    else:
        cv2.resize(image, (fitted_w, fitted_h), dst=inside, interpolation=cv2.INTER_LINEAR)
    padding_w, padding_h = input_w - width * scale, input_h - height * scale
    return letterboxed, Placement((height, width), scale, padding_w / 2, padding_h / 2)
