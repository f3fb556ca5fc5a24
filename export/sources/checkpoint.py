"""Finds a checkpoint and loads it: the original YOLOv5 format and ultralytics' own.

Nothing in a checkpoint is executed: it is read with `weights_only=True`, the names of `names.py` lead to torch's own
layers and to those here, and all others to inert objects.
"""

import http.client
import os
import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import ExportError, NoWeightsError
from export.sources import class_names, kinds, layers, pickled
from export.sources.network import find as find_network
from export.sources.network import prepare
from export.sources.numbers import items

RELEASE = "https://github.com/ultralytics/assets/releases/download/v8.4.0"
RELEASED = tuple(f"yolov5{size}{resolution}" for resolution in ("", "6") for size in "nsmlx")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network ready for inference: float32, batch normalisations as trained.

    The sides of an input are multiples of `stride`, pixels.
    """

    path: Path
    network: layers.Network
    labels: tuple[str, ...]
    stride: int


def find(model: str, given: str | None, report: Callable[[str], None]) -> Path:
    """The file to export: `given`, or that of `model` in weights/, YOLO_SHARED/weights, or ultralytics' release.

    Raises ExportError naming the ways to get weights when there is none.
    """
    if given:
        return _given(given)
    shared = Path(os.environ.get("YOLO_SHARED") or "../shared") / "weights"
    for folder in (Path("weights"), shared):
        for name in (f"{model}.pt", f"{model}u.pt"):
            if (folder / name).is_file():
                return folder / name
    if model not in RELEASED:
        raise ExportError(
            f"no weights of {model!r}: put {model}.pt into weights/, give WEIGHTS=path.pt "
            f"(in Compose --weights path.pt), or take {RELEASED}"
        )
    return download(f"{model}u.pt", Path("weights"), report)


def _given(given: str) -> Path:
    """The file that the user named; `~` is the home folder. Raises ExportError, saying what it is, for no file."""
    instead = "give the path of a .pt or .onnx file with WEIGHTS="
    try:
        path = Path(given).expanduser()
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ExportError(f"{given} is {kinds.of_folder(path)}")
        if not stat.S_ISREG(mode):  # opening a pipe would wait for its other end
            raise ExportError(f"{given} is {_special(mode)}, not a file; {instead}")
        path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise ExportError(f"{given} is a link to {os.readlink(path)}, which does not exist; {instead}") from error
        raise ExportError(f"there is no file {given}; {instead}") from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ExportError(f"{given} cannot be read: {reason}; {instead}") from error
    return path


def _special(mode: int) -> str:
    kinds_of = {stat.S_ISFIFO: "a named pipe", stat.S_ISSOCK: "a socket"}
    return next((name for test, name in kinds_of.items() if test(mode)), "a device")


def download(name: str, folder: Path, report: Callable[[str], None]) -> Path:
    """Fetch a file of ultralytics' release into `folder`; an interrupted one leaves nothing behind."""
    report(f"downloading {name} from {RELEASE}")
    aside = folder / f".{name}.part"
    made = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        with urllib.request.urlopen(f"{RELEASE}/{name}", timeout=30) as answer, aside.open("wb") as file:
            while chunk := answer.read(1 << 20):
                file.write(chunk)
            if answer.length:  # what the server promised and did not send
                raise OSError(f"the answer was cut, {answer.length} bytes are missing")
        return aside.rename(folder / name)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        aside.unlink(missing_ok=True)
        if made and folder.is_dir():
            folder.rmdir()
        reason = getattr(error, "reason", error)
        raise NoWeightsError(
            f"no weights: {name} could not be downloaded ({reason}). Three ways to get them: connect to the network "
            f"and run this again; put {name.replace('u.pt', '.pt')} or {name} into weights/; "
            "or give WEIGHTS=path.pt (in Compose --weights path.pt)"
        ) from error


def load(path: Path, given: tuple[str, ...] | None = None) -> Checkpoint:
    """Load a checkpoint of either format for inference; `given` names of its classes count instead of its own.

    Raises ExportError for a file that is no checkpoint, needs other classes, or holds another kind of model.
    """
    network = find_network(_read(path), path)
    stride = prepare(network, path)
    labels = _labels(given or getattr(network, "names", None), network.head.nc, path)
    return Checkpoint(path, network, labels, stride)


def _read(path: Path) -> Any:
    try:
        what = kinds.of_file(path)
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror or error}") from error
    if what is not None:
        raise ExportError(f"{path} is {what}")
    try:
        return pickled.read(path)
    except pickled.Acting as error:
        raise ExportError(
            f"{path} is refused: it needs {error}, which is no part of a model and would run code where it is loaded "
            "without care; give a checkpoint from a source that you trust"
        ) from error
    except pickled.Protocol as error:
        raise ExportError(
            f"{path} was pickled with protocol {error}, and PyTorch's own is 2; save it again with plain torch.save"
        ) from error
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a corrupted file can raise anything
        raise ExportError(f"{path} is no PyTorch checkpoint, or a damaged one; {kinds.CHECKPOINT}, whole") from error


def _labels(names: object, count: int, path: Path) -> tuple[str, ...]:
    """One label a class. Raises ExportError when `names` has not `count`."""
    try:
        labels = class_names.in_order(items(names) or names)
        if len(labels) != count:
            raise ValueError(f"{len(labels)} name{'s' * (len(labels) > 1)} for {count} classes")
    except ValueError as error:
        raise ExportError(f"{path}: {error}; give the names of its {count} classes with NAMES=") from error
    return labels
