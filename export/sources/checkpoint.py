"""Finds a checkpoint and loads it: the original YOLOv5 format and ultralytics' own.

Nothing in a checkpoint is executed: it is read with `weights_only=True`, and the only names it may use are torch's own,
the layers in `layers.py`, and inert containers.
"""

import http.client
import os
import pickle
import tarfile
import urllib.error
import urllib.request
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from torch import nn

from export.errors import ExportError, NoWeightsError
from export.sources import layers
from export.sources.source import least_stride

RELEASE = "https://github.com/ultralytics/assets/releases/download/v8.4.0"
RELEASED = tuple(f"yolov5{size}{resolution}" for resolution in ("", "6") for size in "nsmlx")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network ready for inference: float32, batch normalisations as trained. `stride` as in `least_stride`."""

    path: Path
    network: layers.Network
    labels: tuple[str, ...]
    stride: int


class Inert:
    """Stands for objects of a checkpoint that inference does not need: options, loss functions, paths."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        pass


def find(model: str, given: str | None, report: Callable[[str], None]) -> Path:
    """The file to export: `given`, or that of `model` in weights/, YOLO_SHARED/weights, or ultralytics' release.

    Raises ExportError naming the ways to get weights when there is none.
    """
    if given:
        path = Path(given)
        if not path.is_file():
            raise ExportError(f"there is no file {given}; give the path of a .pt or .onnx file with WEIGHTS=")
        return path
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

    Raises ExportError for a file that is no checkpoint, needs other names, or holds another kind of model.
    """
    content = _unpickle(path)
    if not isinstance(content, dict):
        raise ExportError(
            f"{path} holds a {type(content).__name__}, not a YOLOv5 checkpoint; give the .pt that training wrote"
        )
    network = content.get("ema") or content.get("model")
    if not isinstance(network, layers.Network):
        raise ExportError(
            f"{path} has weights but no model in it; give the whole checkpoint (best.pt), not a state dict"
        )
    if not isinstance(network.model[-1], layers.AnchorHead | layers.AnchorFreeHead):
        raise ExportError(
            f"{path} is no detection model (its last layer is {type(network.model[-1]).__name__}); give a YOLOv5 one"
        )
    for module in network.modules():
        if isinstance(module, nn.Upsample):
            module.recompute_scale_factor = None  # absent in old checkpoints
    network.float().eval().requires_grad_(False)
    names = given or getattr(network, "names", None)
    labels = label_names(names, network.head.nc, path, "give one name a class with NAMES=")
    return Checkpoint(path, network, labels, least_stride(int(network.head.stride.max())))


def _unpickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(allow_list()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if zipfile.is_zipfile(path):
                unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
                if unknown:
                    raise ExportError(_refusal(path, sorted(unknown)))
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = str(error).partition("GLOBAL ")[2].partition(" ")[0]
        if name:
            raise ExportError(_refusal(path, [name])) from error
        raise ExportError(_not_a_checkpoint(path)) from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        IndexError,
        tarfile.TarError,
    ) as error:
        raise ExportError(_not_a_checkpoint(path)) from error
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}") from error


def _refusal(path: Path, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"{path} is refused: it needs {', '.join(names[:3])}{more}, which is no part of YOLOv5; "
        "give a YOLOv5 checkpoint, or an .onnx made of it where it was trained"
    )


def _not_a_checkpoint(path: Path) -> str:
    return f"{path} is no PyTorch checkpoint, or a damaged one; give the .pt that training wrote, whole"


def label_names(names: object, count: int, path: Path, otherwise: str) -> tuple[str, ...]:
    """One label a class, on one line each. Raises ExportError, ending in `otherwise`, when `names` has not `count`."""
    found = [names[key] for key in sorted(names)] if isinstance(names, dict) else names
    labels = [" ".join(str(name).split()) for name in found] if isinstance(found, list | tuple) else []
    if not labels or len(labels) != count or not all(labels):
        named = sum(bool(label) for label in labels)
        has = f"names for {named} of {count} classes" if count else "no class names"
        raise ExportError(f"{path} has {has}: {otherwise}")
    return tuple(labels)


def allow_list() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Every name that a checkpoint may use beyond torch's own list, with its replacement here."""
    ours: dict[type, list[str]] = {
        layers.Conv: ["Conv", "DWConv"],
        **{
            kind: [kind.__name__]
            for kind in (layers.Bottleneck, layers.BottleneckCSP, layers.C3, layers.SPP, layers.SPPF)
        },
        layers.Focus: ["Focus"],
        layers.Concat: ["Concat"],
    }
    modules = ("models.common", "ultralytics.nn.modules", "ultralytics.nn.modules.conv", "ultralytics.nn.modules.block")
    named: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (kind, f"{module}.{name}") for kind, names in ours.items() for name in names for module in modules
    ]
    named += [(layers.Network, f"models.yolo.{name}") for name in ("Model", "DetectionModel")]
    named += [(layers.Network, "ultralytics.nn.tasks.DetectionModel"), (layers.AnchorHead, "models.yolo.Detect")]
    named += [(layers.AnchorFreeHead, f"ultralytics.nn.modules.{name}") for name in ("Detect", "head.Detect")]
    named += [(layers.DFL, f"ultralytics.nn.modules.{name}") for name in ("DFL", "block.DFL")]
    named += [nn.Sequential, nn.ModuleList, nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.Upsample, nn.Identity]
    named += [nn.SiLU, nn.LeakyReLU, nn.ReLU, nn.Hardswish]
    return named + _inert()


def _inert() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Training leaves these in checkpoints: paths, option namespaces, losses, NumPy numbers."""
    spaces = ("ultralytics.utils", "ultralytics.yolo.utils")
    losses = ("v8DetectionLoss", "BboxLoss", "DFLoss", "E2ELoss")
    names = [
        f"{module}.{kind}Path" for module in ("pathlib", "pathlib._local") for kind in ("Posix", "Windows", "PurePosix")
    ]
    names += ["argparse.Namespace", "utils.autoanchor.AutoAnchor"]
    names += [f"{space}.IterableSimpleNamespace" for space in spaces]
    names += [f"ultralytics.utils.loss.{name}" for name in losses] + ["ultralytics.utils.tal.TaskAlignedAssigner"]
    numbers: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [np.ndarray, np.dtype, np.dtypes.Float64DType]
    numbers += [np.dtypes.Float32DType, np.dtypes.Int64DType]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        numbers += [(multiarray.scalar, f"{module}.scalar")]
        numbers += [(multiarray._reconstruct, f"{module}._reconstruct")]
    return [(Inert, name) for name in names] + numbers
