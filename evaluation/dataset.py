"""A YOLO-format data set: its images and what is labelled in each. Read as YOLOv5's `val.py` reads it.

What `val.py` leaves out with a warning is left out here (`verify_image_label` in `utils/dataloaders.py` of
ultralytics/yolov5): an image that Pillow cannot open or that is below ten pixels, and one with a broken label file.
An image without a label file counts as a background. Unlike YOLOv5, no file is written.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm  # type: ignore[import-untyped]

from evaluation import labels
from evaluation.errors import DatasetError
from evaluation.listing import SUFFIXES, Listing, find, is_special

LEAST_SIDE = 10
MOST_NAMED = 3
_ORIENTATION, _TURNED = 274, (6, 8)  # EXIF: the picture lies on its side


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """`class_ids` is int64 (N,); `boxes_cxcywh` float32 (N, 4), relative to the upright image of `size_wh` pixels."""

    path: Path
    class_ids: npt.NDArray[np.int64]
    boxes_cxcywh: npt.NDArray[np.float32]
    size_wh: tuple[int, int]

    def boxes_xyxy_source(self, width: float, height: float) -> npt.NDArray[np.float32]:
        """The boxes as float32 (N, 4) corners in pixels of an image of this size."""
        sides = np.array([width, height], np.float32)
        centres, halves = self.boxes_cxcywh[:, :2] * sides, self.boxes_cxcywh[:, 2:] * sides / 2
        return np.concatenate([centres - halves, centres + halves], 1)


@dataclass(frozen=True, slots=True)
class Dataset:
    """`listing` says where the images come from; `notes` are lines for the user about what was read otherwise.

    `unlabelled` counts the images without a label file, `left_out` names those that do not count, with the reason.
    """

    listing: Listing
    images: tuple[LabelledImage, ...]
    unlabelled: int
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> dict[int, str]:
        """Those of data.yaml, empty without one."""
        return self.listing.names


@dataclass(slots=True)
class _Counts:
    unlabelled: int = 0
    duplicates: int = 0
    beside: int = 0
    mixed: int = 0
    left_out: list[str] = field(default_factory=list)


def read(data: Path, class_count: int, split: str = "") -> Dataset:
    """Read a split of the data set `data`, as `find` takes both, whose classes must be 0 to `class_count` - 1.

    Raises DatasetError for one without images or objects, and for a class out of range.
    """
    return load(find(data, split), class_count)


def load(listing: Listing, class_count: int) -> Dataset:
    """Read the images and label files of a listing. Raises DatasetError as `read` does."""
    counts, images = _Counts(), list[LabelledImage]()
    for path in tqdm(listing.images, desc="labels", unit="image", file=sys.stderr, delay=2, leave=False):
        try:
            images.append(_labelled(path, class_count, counts))
        except labels.LabelError as error:
            counts.left_out.append(str(error))
    _refuse_nothing(listing, images, counts)
    return Dataset(listing, tuple(images), counts.unlabelled, tuple(counts.left_out), tuple(_notes(images, counts)))


def _labelled(path: Path, class_count: int, counts: _Counts) -> LabelledImage:
    size_wh = _upright_size(path)
    file, beside = labels.label_file(path)
    found = labels.read(file) if file else labels.NOTHING
    for class_id in found.class_ids:
        if class_id not in range(class_count):
            raise DatasetError(f"{file}: class {class_id:g} is none of the model's 0 to {class_count - 1}")
    counts.unlabelled += file is None
    counts.beside += beside
    counts.duplicates += found.duplicates
    counts.mixed += found.mixed
    return LabelledImage(path, found.class_ids.astype(np.int64), found.boxes_cxcywh, size_wh)


def _upright_size(path: Path) -> tuple[int, int]:
    """Width and height, pixels, of an image that YOLOv5 takes. Raises LabelError for another."""
    if is_special(path):
        raise labels.LabelError(f"{path}: it is a pipe or a device, not a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's, about odd metadata
            with Image.open(path) as image:
                image.verify()
                (width, height), kind = image.size, (image.format or "").lower()
                turned = _is_turned(image)
    except Exception as error:  # Pillow's readers raise what they like, and YOLOv5 takes it as it comes
        raise labels.LabelError(f"{path}: the image cannot be read ({_reason(error)})") from error
    if kind not in SUFFIXES:
        raise labels.LabelError(f"{path}: YOLOv5 takes no {kind.upper()} images")
    if min(width, height) < LEAST_SIDE:
        raise labels.LabelError(f"{path}: {width}x{height} pixels, below {LEAST_SIDE} a side")
    return (height, width) if turned else (width, height)


def _is_turned(image: Image.Image) -> bool:
    with contextlib.suppress(Exception):
        exif: dict[int, object] = getattr(image, "_getexif", dict)() or {}
        return exif.get(_ORIENTATION) in _TURNED
    return False


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return "it is no image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__


def _refuse_nothing(listing: Listing, images: list[LabelledImage], counts: _Counts) -> None:
    places = ", ".join(listing.places)
    if not images:
        raise DatasetError(f"{places}: none of {len(counts.left_out)} images can be used; {counts.left_out[0]}")
    if counts.unlabelled == len(images):
        raise DatasetError(
            f"{places} holds {len(listing.images)} images but no label files; "
            "a data set has a .txt next to each image, or the folders images/ and labels/"
        )
    if not any(len(image.class_ids) for image in images):
        raise DatasetError(f"{places}: no label file names an object; there is nothing to score")


def _notes(images: list[LabelledImage], counts: _Counts) -> list[str]:
    said = {
        f"{counts.unlabelled} of {len(images)} images have no label file: backgrounds, as in val.py; whatever is found "
        "there is a false alarm": counts.unlabelled,
        f"{counts.beside} label files lie next to their images; val.py would look for them under labels/ and find "
        "none": counts.beside,
        f"{counts.duplicates} rows of label files left out: the same row is there already": counts.duplicates,
        f"{counts.mixed} label files have polygons and boxes; val.py takes the boxes there for two corners, so does "
        "this": counts.mixed,
    }
    notes = [line for line, count in said.items() if count]
    if counts.left_out:
        notes.append(f"{len(counts.left_out)} images left out, as val.py does: {several(counts.left_out)}")
    return notes


def several(items: list[str]) -> str:
    """The first few on one line, and how many more there are."""
    more = len(items) - MOST_NAMED
    return "; ".join(items[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
