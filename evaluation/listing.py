"""Which images a data set has: of a data.yaml, a folder or a text file. As YOLOv5 finds them, where that is clear.

Sources: `check_dataset` in `utils/general.py` and `LoadImagesAndLabels` in `utils/dataloaders.py` of YOLOv5, which
resolves a relative `path` from its own folder. Nobody has that here: it is looked for next to the data.yaml.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluation.described import SPLITS, Description, describe, description_in, expanded
from evaluation.errors import DatasetError
from evaluation.labels import label_file

SUFFIXES = frozenset({"bmp", "dng", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp", "pfm"})
DEFAULT_SPLIT = "val"
_SPLIT_FOLDER = re.compile(r"(train|val|test)(?:ing|id|idation)?(?:[-_]?\d{4})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Listing:
    """`images` in YOLOv5's order, each once. `split` is empty where the data set has none; `places` is for people."""

    root: Path
    images: tuple[Path, ...]
    names: dict[int, str] = field(default_factory=dict)
    split: str = ""
    places: tuple[str, ...] = ()


def find(data: Path, split: str = "") -> Listing:
    """The images of `data`: a data.yaml, a folder that has one, a folder of images or a .txt that lists them.

    `split` is train, val or test; empty takes val. Raises DatasetError for what is not there, a split that is not
    there, and a data set without images.
    """
    data = expanded(data)
    if data.suffix.lower() in (".yaml", ".yml") and data.is_file():
        return _described(describe(data), split)
    if data.is_file() and data.suffix.lower() == ".txt":
        _no_splits(data, split)
        return _listing(data.absolute(), [data.absolute()], data.absolute().parent)
    if not data.is_dir():
        other = "is neither a data.yaml nor a .txt" if data.is_file() else "is a pipe or a device, not a file"
        what = other if data.exists() else "is not a folder or a file"
        raise DatasetError(f"{data} {what}; give the data.yaml or the folder of a YOLO-format data set with DATA=")
    description = description_in(data)
    if description and description.splits:
        return _described(description, split)
    return _folder(data.absolute(), split, description.names if description else {})


def _described(description: Description, split: str) -> Listing:
    wanted = split or DEFAULT_SPLIT
    if not description.splits:
        raise DatasetError(
            f"{description.path} has none of {', '.join(SPLITS)}; add `{wanted}:` with the folder of the images"
        )
    if wanted not in description.splits:
        raise DatasetError(f"{description.path} has no {wanted}, it has {_advice(description.splits)}")
    root, entries = description.resolved(wanted)
    return _listing(description.path, entries, root, description.names, wanted)


def _folder(root: Path, split: str, names: dict[int, str]) -> Listing:
    """A folder that no data.yaml explains: all of it, unless folders in it are named as splits are."""
    found: dict[str, list[Path]] = {}
    for parent in (root / "images", root):
        for path in sorted(path for path in parent.glob("*") if path.is_dir()):
            if match := _SPLIT_FOLDER.fullmatch(path.name):
                found.setdefault(match[1].lower(), []).append(path)
    if not found:
        _no_splits(root, split)
        return _listing(root, [root], root, names)
    wanted = split or DEFAULT_SPLIT
    if wanted not in found:
        raise DatasetError(f"{root} has no folder {wanted}, it has {_advice(found)}")
    return _listing(root, found[wanted], root, names, wanted)


def _advice(splits: Collection[str]) -> str:
    first = DEFAULT_SPLIT if DEFAULT_SPLIT in splits else min(splits)
    return f"{' and '.join(splits)}; give SPLIT={first}"


def _no_splits(data: Path, split: str) -> None:
    if split:
        raise DatasetError(f"{data} has no splits; leave SPLIT={split} out, or give a data.yaml with `{split}:` in it")


def _listing(
    data: Path, entries: Sequence[Path], root: Path, names: dict[int, str] | None = None, split: str = ""
) -> Listing:
    paths: dict[str, None] = {}
    for entry in entries:
        paths |= dict.fromkeys(_with_labels(entry, root))
    images = tuple(Path(path) for path in sorted(paths))
    if not images:
        raise DatasetError(
            f"{', '.join(map(str, entries))} holds no images ({', '.join(sorted(SUFFIXES))}); "
            "a data set has a .txt next to each image, or the folders images/ and labels/"
        )
    return Listing(data, images, names or {}, split, tuple(map(str, entries)))


def _with_labels(entry: Path, root: Path) -> list[str]:
    """The images of a folder or list. YOLOv5 follows a link before it looks for labels; else they are by the link."""
    read = [_in_folder(each) if each.is_dir() else _in_list(each, root) for each in (entry.resolve(), entry)]
    return next((images for images in read if any(label_file(Path(image))[0] for image in images)), read[0])


def _in_folder(folder: Path) -> list[str]:
    """What lies below, through links too; nothing whose name begins with a dot."""
    found = glob.glob(str(Path(glob.escape(str(folder)), "**", "*.*")), recursive=True)
    return [path for path in found if is_image(path) and not Path(path).is_dir()]


def is_special(path: Path) -> bool:
    """Whether it is a pipe, a socket or a device: opening one may wait without end."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _in_list(file: Path, root: Path) -> list[str]:
    """A relative name is next to the list, else in `root`, else in the working directory."""
    if is_special(file):
        raise DatasetError(f"{file} is a pipe or a device, not a file; give a list of images, a name on each line")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file} cannot be read as a list of images, a name on each line: {error}") from error
    found = []
    for line in (line for line in lines if is_image(line)):
        places = [Path(folder, line) for folder in (file.parent, root, Path.cwd())]
        found.append(str(next((place for place in places if os.path.exists(place)), places[0])))
    return found


def is_image(name: str) -> bool:
    """Whether YOLOv5 takes a file of that name for an image."""
    return "." in name and name.rpartition(".")[2].lower() in SUFFIXES
