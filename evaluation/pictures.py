"""The pixels of an image: as the service decodes it, and whole."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.errors import GatewayError
from gateway.vision.decode import decode, reduction, upright_hw
from gateway.vision.header import probe

Pixels = npt.NDArray[np.uint8]


class Picture(NamedTuple):
    """Both are RGB uint8 (height, width, 3) and upright; a large JPEG is smaller as `served`.

    `source_hw` is the size of `whole`; `refused` says why the service would not take the file, empty if it would.
    """

    whole: Pixels
    served: Pixels
    source_hw: tuple[int, int]
    refused: str


def read(path: Path, imgsz: int, max_pixels: int, max_side: int) -> Picture:
    """Decode a file as the service does for an input of `imgsz` pixels. What it refuses (TIFF) is decoded all the same.

    Raises InvalidImage when the pixels cannot be read, OSError when the file cannot.
    """
    data = path.read_bytes()
    whole = decode(data)
    source_hw = whole.shape[0], whole.shape[1]
    try:
        header = probe(data, max_pixels=max_pixels, max_side=max_side)
    except GatewayError as error:
        return Picture(whole, whole, source_hw, str(error))
    reduced = reduction(header, imgsz)
    if reduced == 1:
        return Picture(whole, whole, source_hw, "")
    served = decode(data, reduced)
    return Picture(whole, served, upright_hw(header, served, reduced), "")
