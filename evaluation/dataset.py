"""A YOLO-format data set: images and, for each, a text file with a row `class cx cy w h` per object.

Centre and size are relative to the image's. The text files are next to the images, or under `labels/` where the images
lie under `images/`. An empty one says that there is nothing in the image; an image without one is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml  # type: ignore[import-untyped]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


class DatasetError(ValueError):
    """The data set cannot be used; the message is one line: what, where, what to do."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """`class_ids` is int64 (N,); `boxes_cxcywh` float32 (N, 4), relative to the upright image."""

    path: Path
    class_ids: npt.NDArray[np.int64]
    boxes_cxcywh: npt.NDArray[np.float32]

    def boxes_xyxy_source(self, width: int, height: int) -> npt.NDArray[np.float32]:
        """The boxes as float32 (N, 4) corners in pixels of an image of this size."""
        sides = np.array([width, height], np.float32)
        centres, halves = self.boxes_cxcywh[:, :2] * sides, self.boxes_cxcywh[:, 2:] * sides / 2
        return np.concatenate([centres - halves, centres + halves], 1)


@dataclass(frozen=True, slots=True)
class Dataset:
    """`names` are those of data.yaml, empty without one; `unlabelled` counts the images without a text file."""

    root: Path
    images: tuple[LabelledImage, ...]
    names: dict[int, str]
    unlabelled: int


def read(root: Path, class_count: int) -> Dataset:
    """Read the data set under `root`, whose classes must be 0 to `class_count` - 1.

    Raises DatasetError for a missing folder, one without images or objects, a broken row and a class out of range.
    """
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder; give the folder of a YOLO-format data set")
    root = root.resolve()
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    labelled = [(path, label) for path in found if (label := label_file(root, path)) is not None]
    if not labelled:
        held = f"{len(found)} images but no label files" if found else "no images"
        raise DatasetError(
            f"{root} holds {held}; a data set has a .txt next to each image, or the folders images/ and labels/"
        )
    images = tuple(_labelled_image(path, label, class_count) for path, label in labelled)
    if not any(len(image.class_ids) for image in images):
        raise DatasetError(f"{root}: no label file names an object; there is nothing to score")
    return Dataset(root, images, _names(root), len(found) - len(images))


def label_file(root: Path, image: Path) -> Path | None:
    """The text file of an image: next to it, or where `images` in its path under `root` reads `labels`."""
    parts = list(image.relative_to(root.parent).parts)
    candidates = [image.with_suffix(".txt")]
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
        candidates.append(root.parent.joinpath(*parts).with_suffix(".txt"))
    return next((path for path in candidates if path.is_file()), None)


def _labelled_image(image: Path, label: Path, class_count: int) -> LabelledImage:
    try:
        lines = label.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{label} cannot be read: {error}") from error
    rows = [_row(line, f"{label}, line {number}", class_count) for number, line in enumerate(lines, 1) if line.strip()]
    table = np.array(rows, np.float64).reshape(-1, 5)
    return LabelledImage(image, table[:, 0].astype(np.int64), table[:, 1:].astype(np.float32))


def _row(line: str, where: str, class_count: int) -> list[float]:
    try:
        row = [float(word) for word in line.split()]
    except ValueError:
        raise DatasetError(f"{where}: {line.strip()!r} is not five numbers; write `class cx cy w h`") from None
    if len(row) != 5:
        raise DatasetError(f"{where}: {len(row)} numbers instead of the five of `class cx cy w h`")
    if row[0] not in range(class_count):
        raise DatasetError(f"{where}: class {row[0]:g} is none of the model's 0 to {class_count - 1}")
    if not all(0 <= value <= 1 for value in row[1:]):
        raise DatasetError(f"{where}: cx cy w h must lie between 0 and 1, relative to the image's size")
    return row


def _names(root: Path) -> dict[int, str]:
    path = root / "data.yaml"
    if not path.is_file():
        return {}
    try:
        names = yaml.safe_load(path.read_text())["names"]
        return {
            int(key): str(name) for key, name in (names if isinstance(names, dict) else dict(enumerate(names))).items()
        }
    except (yaml.YAMLError, OSError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{path} has no readable `names`; give a list or a map of class names, or remove it"
        ) from error
