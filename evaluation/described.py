"""A data.yaml: where the splits of a data set are, and what its classes are called."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.errors import DatasetError
from export.errors import shortened
from export.sources import class_names

SPLITS = ("train", "val", "test")
_NOTHING = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class Description:
    """`folder` is the key `path`, empty without one; `splits` has the entries of train, val and test that are there."""

    path: Path
    folder: str
    splits: dict[str, list[str]]
    names: dict[int, str]

    def resolved(self, split: str) -> tuple[Path, list[Path]]:
        """The folder that `path` means and the split's folders and lists in it. Raises DatasetError.

        A relative `path` is next to the data.yaml, else next to its folder, else in the working directory: the first
        that has the whole split. YOLOv5 takes `../x` for `x` where there is no `../x`; so do the files of Roboflow.
        """
        folder = expanded(Path(self.folder), f"{self.path}: `path`")
        bases = (self.path.parent, self.path.parent.parent, Path.cwd())
        roots = (
            [folder]
            if folder.is_absolute()
            else list(dict.fromkeys(Path(os.path.normpath(base / folder)) for base in bases))
        )
        for root in roots:
            entries = [_existing(root, entry) for entry in self.splits[split]]
            if all(entries):
                return root, [entry for entry in entries if entry]
        missing = [entry for entry in self.splits[split] if not _existing(roots[0], entry)]
        raise DatasetError(
            f"{self.path}: {split} is {', '.join(missing)}, which is in none of {', '.join(map(str, roots))}; "
            "set `path` to the folder of the data set"
        )


def describe(path: Path) -> Description:
    """Read a data.yaml. Raises DatasetError for one that cannot be read or has no usable names or splits."""
    path = path.absolute()
    content = _content(path)
    if not isinstance(content, dict):
        raise DatasetError(f"{path} is no data.yaml; it must have `names` and `val`, the folder of the images")
    splits = {split: _entries(path, split, content[split]) for split in SPLITS if _is_said(content, split)}
    folder = content["path"] if _is_said(content, "path") else ""
    if not isinstance(folder, str):
        raise DatasetError(f"{path}: `path` must be the folder of the data set, not {folder!r}")
    return Description(path, folder, splits, _names(path, content))


def expanded(path: Path, where: str = "DATA") -> Path:
    """The path with `~` as the home folder. Raises DatasetError where that is nobody's."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise DatasetError(f"{where}: there is no home folder for {path}; write it without `~`") from error


def description_in(folder: Path) -> Description | None:
    """The data.yaml of a folder, or the only other .yaml there that describes a data set; None without one."""
    usual = [folder / name for name in ("data.yaml", "data.yml") if (folder / name).is_file()]
    others = sorted(path for path in folder.glob("*.y*ml") if path.suffix in (".yaml", ".yml") and path.is_file())
    found = usual[:1] or [path for path in others if _is_description(path)]
    if len(found) > 1:
        raise DatasetError(f"{folder} has {' and '.join(path.name for path in found)}; give one of them with DATA=")
    return describe(found[0]) if found else None


def _is_description(path: Path) -> bool:
    try:
        content = _content(path)
    except DatasetError:
        return False
    return isinstance(content, dict) and "names" in content and any(_is_said(content, split) for split in SPLITS)


def _content(path: Path) -> Any:
    """All values as they are written: names are compared with those of a model, and `no` is one."""
    try:
        return class_names.of_yaml(path.read_text(encoding="utf-8-sig", errors="ignore"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} has no readable `names`: {error}; write it as YAML") from error


def _is_said(content: dict[Any, Any], key: str) -> bool:
    value = content.get(key)
    return bool(value) and value not in _NOTHING


def _entries(path: Path, split: str, value: object) -> list[str]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) and entry for entry in entries):
        raise DatasetError(f"{path}: `{split}` must be a folder, a .txt or a list of these, not {value!r}")
    return [str(entry) for entry in entries]


def _existing(root: Path, entry: str) -> Path | None:
    spelled = [entry, entry[3:]] if entry.startswith("../") else [entry]
    return next((path for each in spelled if os.path.exists(path := Path(os.path.normpath(Path(root, each))))), None)


def _names(path: Path, content: dict[Any, Any]) -> dict[int, str]:
    """Class ids and names, each on one line as in labels.txt. `nc` says nothing that these do not."""
    if not _is_said(content, "names"):
        raise DatasetError(f"{path} has no `names`; add `names:` with the names of its classes, a list or a map")
    names = content["names"]
    try:
        if not isinstance(names, dict | list):
            raise ValueError(f"{shortened(str(names), 60)!r}")
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        return {int(key): class_names.label(name) for key, name in pairs}
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"{path} has no readable `names`: {error}; write a list of names, or a map from class numbers to names"
        ) from error
