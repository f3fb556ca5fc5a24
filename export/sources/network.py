"""From what a checkpoint holds to a network that runs: found, known in all its parts, tidied and tried.

A file sets the attributes of its modules, so it can set any. What would stand before a method of the class here is
removed (a fused model has its `forward` so), hooks too, and the network then runs once on a small image.
"""

import collections
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.sources import families, kinds, layers
from export.sources.numbers import Inert
from export.sources.pickled import below, children

# What a network can be wrapped in, by the last part of the name.
WRAPPERS = ("AutoShape", "autoShape", "DetectMultiBackend", "DataParallel", "DistributedDataParallel", "ModelEMA")
# Attributes that older releases of torch, and classes that torch's own stand for here, do not have.
DEFAULTS: dict[type[nn.Module], dict[str, Any]] = {
    nn.Upsample: {"recompute_scale_factor": None, "align_corners": None},
    nn.GELU: {"approximate": "none"},
    **{kind: {"inplace": False} for kind in (nn.SiLU, nn.Hardswish, nn.Mish, nn.Hardsigmoid)},
}
NUMBERS = {1: "one", 2: "two", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 12: "twelve"}


def find(content: Any, path: Path) -> layers.Network:
    """The network of a checkpoint: the average of its weights if there is one. Raises ExportError if there is none."""
    if not isinstance(content, dict):
        stored = [unwrap(content, path)]
    else:
        stored = [unwrap(content.get(key), path) for key in ("ema", "model")]
    for each in stored:
        if isinstance(each, layers.Network):
            return each
    for each in stored:
        if isinstance(each, Inert):
            raise families.refusal(path, strangers(each) or [each.name], yaml_file(each))
    if _holds_tensors(content) or any(_holds_tensors(each) for each in stored):
        raise ExportError(
            f"{path} has weights but no model in it; give the whole checkpoint (best.pt), not a state dict"
        )
    if isinstance(content, dict):
        held = [f"a {type(each).__name__}" for each in stored if isinstance(each, nn.Module)]
        held = held or [str(key) for key, value in content.items() if value is not None][:5]
        raise ExportError(f"{path} has no model in it, but {', '.join(held) or 'nothing'}; {kinds.CHECKPOINT}")
    raise ExportError(f"{path} holds a {type(content).__name__}, not a YOLOv5 checkpoint; {kinds.CHECKPOINT}")


def unwrap(value: Any, path: Path) -> Any:
    """What is inside the pair (model, updates), a wrapper of several GPUs, of torch.hub, an average's holder."""
    for _ in range(10):
        last = value.name.rpartition(".")[2] if isinstance(value, Inert) else ""
        inside = children(value) if last else {}
        if last == "Ensemble" or (isinstance(value, nn.ModuleList) and len(value)):
            inside = inside or children(value)
            if len(inside) > 1:
                raise ExportError(f"{path} is an ensemble of {len(inside)} models; give the .pt of one of them")
            value = next(iter(inside.values()), None)
        elif last in WRAPPERS:
            inside = (value.state if isinstance(value.state, dict) else {}) | inside
            value = next((inside[key] for key in ("module", "ema", "model") if inside.get(key) is not None), None)
        elif isinstance(value, list | tuple) and value:
            value = value[0]
        else:
            break
    return value


def strangers(module: Any) -> list[str]:
    """Full names of the classes of a network that are not known here."""
    return list(dict.fromkeys(each.name for each in below(module) if isinstance(each, Inert)))


def yaml_file(module: Any) -> str:
    """The yaml that a network was made from, by name; empty where it is not said."""
    state = module.state if isinstance(module, Inert) else vars(module)
    yaml = state.get("yaml") if isinstance(state, dict) else None
    return str(yaml.get("yaml_file", "")) if isinstance(yaml, dict) else ""


def prepare(network: layers.Network, path: Path) -> int:
    """Make `network` ready for inference, float32, in place; the least stride it takes, pixels, at least `of_head`.

    Raises ExportError for a network that is no detector of YOLOv5's, or does not run.
    """
    try:
        drop_nms(network)
        unknown = strangers(network)
        if unknown:
            raise families.refusal(path, unknown, yaml_file(network))
        for module in below(network):
            tidy(module)
        network.float().requires_grad_(False)
        head = network.model[-1]
        if not isinstance(head, layers.AnchorHead | layers.AnchorFreeHead):
            raise ExportError(
                f"{path} is no detection model (its last layer is {type(head).__name__}); give a YOLOv5 one"
            )
        check_head(head, path)
        return least_stride(network, max(int(head.stride.max()), 32), path)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ExportError(f"{path} has a network that does not run ({_reason(error)}); {_AGAIN}") from error


def drop_nms(network: layers.Network) -> None:
    """Up to v5.0 NMS could be the last layer."""
    last = next(reversed(network.model._modules.values()))
    if isinstance(last, Inert) and last.name == "models.common.NMS":
        network.model._modules.popitem()


def tidy(module: nn.Module) -> None:
    """Leave a module only its own state: no hooks, nothing in the place of a method, no attribute missing."""
    attributes = vars(module)
    for key in list(attributes):
        if "_hooks" in key:
            attributes[key] = collections.OrderedDict()
        elif key == "_compiled_call_impl" or callable(getattr(type(module), key, None)):
            del attributes[key]
    for key in ("_parameters", "_buffers"):
        for name, value in attributes[key].items():
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"{name} is a {type(value).__name__}")
    for kind, defaults in DEFAULTS.items():
        if isinstance(module, kind):
            attributes |= {key: value for key, value in defaults.items() if key not in attributes}
    attributes["training"] = False


def check_head(head: layers.AnchorHead | layers.AnchorFreeHead, path: Path) -> None:
    """Bring a head to its present form. Raises ExportError for one that answers otherwise than YOLOv5's."""
    head.nc = int(head.nc)
    head.stride = torch.as_tensor(head.stride).float().flatten()
    if isinstance(head, layers.AnchorFreeHead):
        if "one2one_cv2" in head._modules or head.reg_max < 2:
            raise ExportError(f"{path} has an end-to-end head, which no YOLOv5 has; {_AGAIN}")
        return
    levels, head.na = head.anchors.shape[:2]
    values = head.na * (5 + head.nc)
    if "m" not in head._modules:  # v1.0: the last convolutions were layers of their own
        head.m = nn.ModuleList(_pass(values) for _ in range(levels))
    for conv in head.m:
        if type(conv) is not nn.Conv2d or conv.out_channels != values or set(conv.kernel_size) != {1}:
            given = conv.out_channels if isinstance(conv, nn.Conv2d) else "other"
            raise ExportError(
                f"{path} has a head of {given} outputs, and detection of {head.nc} classes with {head.na} anchors has "
                f"{values}; {_AGAIN}"
            )


def _pass(channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, channels, 1, bias=False)
    conv.weight = nn.Parameter(torch.eye(channels)[:, :, None, None], requires_grad=False)
    return conv


def least_stride(network: layers.Network, of_head: int, path: Path) -> int:
    """What the sides of an input must be multiples of: a body can halve the image more often than its head says."""
    wrong: list[Exception] = []
    for stride in (of_head, 2 * of_head, 4 * of_head):
        try:
            run(network, 3, 3 * stride, stride)
            return stride
        except Exception as error:
            wrong.append(error)
    for channels in NUMBERS:
        try:
            run(network, channels, 2 * of_head, 2 * of_head)
        except Exception:
            continue
        plural = "" if channels == 1 else "s"
        raise ExportError(
            f"{path} takes {NUMBERS[channels]} input channel{plural}, and RGB images have three; "
            "give a model that was trained on colour images"
        )
    raise ExportError(f"{path} has a network that does not run ({_reason(wrong[0])}); {_AGAIN}") from wrong[0]


def run(network: layers.Network, channels: int, height: int, width: int) -> None:
    """One black image through the network. Raises whatever is wrong with it."""
    with torch.inference_mode():
        maps = network(torch.zeros(1, channels, height, width))
    if len(maps) != len(network.head.stride):
        raise ValueError(f"{len(maps)} levels with {len(network.head.stride)} strides")


_AGAIN = "give a checkpoint of YOLOv5, or an .onnx made of it where it was trained"


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _holds_tensors(value: Any, depth: int = 0) -> bool:
    if not isinstance(value, dict) or depth > 3:
        return False
    return any(isinstance(each, Tensor) or _holds_tensors(each, depth + 1) for each in value.values())
