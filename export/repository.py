"""The model repository on disk: versions are staged, moved into place by rename, counted and pruned.

Versions are the numbered folders of a model. A staged one is in a hidden folder next to them, on the same file system,
where Triton does not look.
"""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError

MODEL_FILES = (".onnx", ".plan")  # model.onnx and model.plan, unless config.pbtxt has a default_model_filename
STAGING = ".staging-"
NEWEST = ".newest"  # holds the highest number that was ever given


@dataclass(frozen=True, slots=True)
class Staged:
    """A version being built, in a folder of its own."""

    model: Path
    folder: Path

    def next_number(self, after: int = 0) -> int:
        """A later one than that of any version there is or was, and than `after`: workers know labels by it."""
        newest = self.model / NEWEST
        was = newest.read_text().strip() if newest.is_file() else ""
        return max(*numbered(self.model), after, int(was) if was.isdecimal() else 0, 0) + 1

    def publish(self, number: int) -> None:
        """Make it the model's version `number`, by a rename."""
        with told_as_error(self.model):
            self.folder.rename(self.model / str(number))
            (self.model / NEWEST).write_text(f"{number}\n")


def versions(model: Path) -> list[int]:
    """Numbers of the versions that hold a model file, ascending."""
    return [n for n in numbered(model) if any(has_model(file) for file in (model / str(n)).iterdir())]


def has_model(file: Path) -> bool:
    return file.suffix in MODEL_FILES and file.is_file()


def numbered(model: Path) -> list[int]:
    """What Triton takes for versions, whatever is in them; ascending."""
    found = model.iterdir() if model.is_dir() else []
    return sorted(int(path.name) for path in found if path.is_dir() and re.fullmatch(r"[1-9]\d*", path.name))


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
        folder.mkdir()
    try:
        with told_as_error(repository):
            yield Staged(model, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()  # only when empty: nothing was published


def prune(model: Path, keep: int, in_use: int) -> list[int]:
    """Remove all but the newest `keep` versions and the one in use; returns the removed ones."""
    removed = [number for number in versions(model)[:-keep] if number != in_use]
    for number in removed:
        remove(model, number)
    return removed


def remove(model: Path, number: int) -> None:
    """Remove a version: at once for whoever looks, by a rename."""
    aside = model / f"{STAGING}{os.getpid()}"
    with told_as_error(model):
        (model / str(number)).rename(aside)
        shutil.rmtree(aside)


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
