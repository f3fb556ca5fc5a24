"""Encoded bytes → pixels. Worker only: OpenCV stays out of the web process."""

import os

import numpy as np
import numpy.typing as npt

from gateway.errors import InvalidImage

# OpenCV reads its limit once, when it is imported: a second belt behind `images.probe`.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 28))

import cv2

cv2.setNumThreads(1)  # the processes are the parallelism


def decode(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode an encoded image to RGB uint8, shape (height, width, 3), upright (EXIF orientation applied).

    Grey, palette, CMYK and 16-bit images become 8-bit RGB, alpha is dropped, of an animation the first frame counts.
    Raises InvalidImage when the pixels cannot be read.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise InvalidImage("the image data cannot be decoded; the file is damaged") from error
    if image is None:
        raise InvalidImage("the image data cannot be decoded; the file is cut or damaged")
    return np.asarray(image, np.uint8)
