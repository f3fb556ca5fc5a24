"""The photographs to send, and the tensors that the model sees of them."""

import os
from pathlib import Path

import cv2
import numpy as np

from gateway.vision.decode import decode
from gateway.vision.letterbox import letterbox
from local.wheel import ROOT

LARGE_WIDTH, LARGE_HEIGHT = 4000, 3000
_LARGE_COUNT = 4
_QUALITY = 90


def folder() -> Path:
    """Where photographs are looked for: `images` of the setting YOLO_SHARED, or of `shared` next to the checkout."""
    return Path(os.environ.get("YOLO_SHARED") or ROOT.parent / "shared") / "images"


def photographs(folder: Path) -> list[Path]:
    """JPEG files of `folder`, by name."""
    return sorted(folder.glob("*.jpg"))


def of_size(images: list[Path], long_side: int) -> list[Path]:
    """Those whose longer side is `long_side` pixels."""
    return [image for image in images if max(decode(image.read_bytes()).shape[:2]) == long_side]


def enlarged(images: list[Path], folder: Path) -> list[Path]:
    """Photographs of 12 megapixels, made from the largest few of `images` with the grain of a sensor added."""
    largest = sorted(images, key=lambda image: image.stat().st_size)[-_LARGE_COUNT:]
    grain = np.random.default_rng(1)
    made = []
    for image in largest:
        pixels = cv2.imread(str(image))
        assert pixels is not None
        size = (LARGE_WIDTH, LARGE_HEIGHT) if pixels.shape[1] >= pixels.shape[0] else (LARGE_HEIGHT, LARGE_WIDTH)
        large = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
        noise = grain.normal(0, 3, (size[1], size[0], 1)).astype(np.float32)
        noisy = np.clip(large + noise, 0, 255).astype(np.uint8)
        target = folder / f"large-{image.name}"
        cv2.imwrite(str(target), noisy, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        made.append(target)
    return made


def tensors(images: list[Path], size_hw: tuple[int, int], stride: int, fixed: bool, folder: Path) -> list[Path]:
    """The letterboxed images as `.npy` files, uint8 RGB (height, width, 3)."""
    made = []
    for image in images:
        pixels, _ = letterbox(decode(image.read_bytes()), size_hw=size_hw, stride=stride, fixed=fixed)
        target = folder / f"{image.stem}.npy"
        np.save(target, pixels)
        made.append(target)
    return made
