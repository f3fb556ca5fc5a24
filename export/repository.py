"""The model repository on disk: versions are staged, published by rename, listed and pruned.

Versions are the numbered folders of a model. A staged one is in a hidden folder next to them, on the same file system,
where Triton does not look.
"""

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError

MODEL_FILES = ("model.onnx", "model.plan")
STAGING = ".staging-"


@dataclass(frozen=True, slots=True)
class Staged:
    """A model being built: `folder/version` becomes the version's folder, the other files lie in the model's."""

    model: Path
    folder: Path

    @property
    def version(self) -> Path:
        return self.folder / "version"

    def publish(self, after: int = 0) -> int:
        """Make it the model's next version by renames, a later one than `after`; returns the version's number."""
        number = max(*_numbered(self.model), after, 0) + 1
        with told_as_error(self.model):
            self.version.rename(self.model / str(number))
            for file in sorted(self.folder.iterdir()):
                file.replace(self.model / file.name)
        return number


def versions(model: Path) -> list[int]:
    """Numbers of the versions that hold a model file, ascending."""
    if not model.is_dir():
        return []
    return sorted(n for n in _numbered(model) if any((model / str(n) / file).is_file() for file in MODEL_FILES))


def _numbered(model: Path) -> list[int]:
    """What Triton takes for versions, whatever is in them."""
    return [int(path.name) for path in model.iterdir() if path.is_dir() and re.fullmatch(r"[1-9]\d*", path.name)]


@contextlib.contextmanager
def staging(repository: Path, name: str) -> Iterator[Staged]:
    """A place to build version files in; whatever is left in it when the block ends is removed.

    Raises ExportError when nothing can be written there.
    """
    model = repository / name
    folder = model / f"{STAGING}{os.getpid()}"
    made = [path for path in (model, repository) if not path.exists()]
    with told_as_error(repository):
        model.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(model)
        (folder / "version").mkdir(parents=True)
    try:
        with told_as_error(repository):
            yield Staged(model, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()  # only when empty: nothing was published


def prune(model: Path, keep: int) -> list[int]:
    """Remove all but the newest `keep` versions; returns the removed ones."""
    removed = versions(model)[:-keep]
    with told_as_error(model):
        for number in removed:
            shutil.rmtree(model / str(number))
    return removed


def describe(repository: Path) -> list[str]:
    """One line for each version of each model."""
    lines = []
    for model in sorted(path for path in repository.glob("*") if path.is_dir()):
        for number in versions(model):
            folder = model / str(number)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            lines.append(f"{model.name:20} version {number:<4} {size / 1e6:7.1f} MB  {_verified(folder)}")
    return lines


def _verified(folder: Path) -> str:
    try:
        done: dict[str, str] = json.loads((folder / "verify.json").read_text())["export"]
        return "  ".join(done[key] for key in ("format", "precision", "device", "input", "exported", "source"))
    except (OSError, ValueError, KeyError, TypeError):
        return "not exported here: no verify.json"


def _remove_abandoned(model: Path) -> None:
    """Staging folders of exports that were killed."""
    for folder in model.glob(f"{STAGING}*"):
        pid = folder.name.removeprefix(STAGING)
        if not (pid.isdigit() and Path(f"/proc/{pid}").exists()):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def told_as_error(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or place
        change = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "make it writable"
        raise ExportError(
            f"{where} cannot be written: {error.strerror}; {change}, or choose another REPOSITORY="
        ) from error
