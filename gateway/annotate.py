"""Detections drawn into a picture."""

import cv2
import numpy as np
import numpy.typing as npt

from gateway.detections import DetectionResult


def annotate(image: npt.NDArray[np.uint8], result: DetectionResult) -> npt.NDArray[np.uint8]:
    """A copy of an RGB uint8 (height, width, 3) image with the boxes drawn in."""
    drawn = image.copy()
    for found in result.detections:
        box = found.box
        cv2.rectangle(drawn, (round(box.x1), round(box.y1)), (round(box.x2), round(box.y2)), (255, 64, 64), 2)
    return drawn


def encode(image: npt.NDArray[np.uint8]) -> dict[str, bytes]:
    """The picture as JPEG and as PNG, by media type."""
    bgr = image[..., ::-1]
    return {
        "image/jpeg": cv2.imencode(".jpg", bgr)[1].tobytes(),
        "image/png": cv2.imencode(".png", bgr)[1].tobytes(),
    }
