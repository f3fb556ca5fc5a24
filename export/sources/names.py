"""The names that a checkpoint may use, and what each stands for here.

Every class of a YOLOv5 detector, v1.0 to today, under each module that ever held it, and torch's own layers. A name
that is not here leads to nothing: `pickled.py` puts an inert object in its place.
"""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules import (
    activation,
    batchnorm,
    channelshuffle,
    container,
    conv,
    dropout,
    flatten,
    fold,
    instancenorm,
    linear,
    normalization,
    padding,
    pixelshuffle,
    pooling,
    upsampling,
)

from export.sources import activations, blocks, layers
from export.sources.numbers import scalar

Target = Callable[..., Any]

# The homes of YOLOv5's layers: those of the original code, then those of ultralytics.
HOMES = (
    *("models.common", "models.experimental"),
    *("ultralytics.nn.modules", *(f"ultralytics.nn.modules.{part}" for part in ("conv", "block", "transformer"))),
)
LAYERS: dict[Target, tuple[str, ...]] = {
    layers.Conv: ("Conv", "DWConv", "DWConvClass"),
    layers.Bottleneck: ("Bottleneck", "CrossConv"),
    layers.BottleneckCSP: ("BottleneckCSP",),
    layers.C3: ("C3", "C3x", "C3TR", "C3SPP", "C3Ghost"),
    layers.SPP: ("SPP",),
    layers.SPPF: ("SPPF",),
    layers.Focus: ("Focus",),
    layers.Concat: ("Concat",),
    blocks.GhostConv: ("GhostConv",),
    blocks.GhostBottleneck: ("GhostBottleneck",),
    blocks.MixConv2d: ("MixConv2d",),
    blocks.ConvPlus: ("ConvPlus",),
    blocks.Contract: ("Contract",),
    blocks.Expand: ("Expand",),
    blocks.Sum: ("Sum",),
    blocks.TransformerLayer: ("TransformerLayer",),
    blocks.TransformerBlock: ("TransformerBlock",),
    nn.ConvTranspose2d: ("DWConvTranspose2d",),
}
ACTIVATIONS: dict[Target, tuple[str, ...]] = {
    nn.SiLU: ("SiLU", "Swish", "MemoryEfficientSwish"),
    nn.Hardswish: ("Hardswish", "HardSwish"),
    nn.Mish: ("Mish", "MemoryEfficientMish"),
    activations.FReLU: ("FReLU",),
    activations.AconC: ("AconC",),
    activations.MetaAconC: ("MetaAconC",),
}
OTHERS: dict[str, Target] = {
    "models.experimental.C3": layers.BottleneckCSP,  # up to v3.1: four convolutions
    "models.yolo.Model": layers.Network,
    "models.yolo.DetectionModel": layers.Network,
    "models.yolo.Detect": layers.AnchorHead,
    "ultralytics.nn.tasks.DetectionModel": layers.Network,
    "ultralytics.nn.modules.Detect": layers.AnchorFreeHead,
    "ultralytics.nn.modules.head.Detect": layers.AnchorFreeHead,
    "ultralytics.nn.modules.DFL": layers.DFL,
    "ultralytics.nn.modules.block.DFL": layers.DFL,
    "torch.nn.modules.activation.Threshold": activations.Threshold,
    "torch.nn.modules.batchnorm.SyncBatchNorm": nn.BatchNorm2d,  # the same for inference, on one device
    "torch.nn.modules.linear.NonDynamicallyQuantizableLinear": nn.Linear,  # what nn.MultiheadAttention holds
    "torch.nn.modules.linear._LinearWithBias": nn.Linear,  # its name up to torch 1.8
    "collections.defaultdict": lambda *_: {},
    "numpy.core.multiarray.scalar": scalar,
    "numpy._core.multiarray.scalar": scalar,
}
_TORCH = (
    *(activation, batchnorm, channelshuffle, container, conv, dropout, flatten, fold, instancenorm, linear),
    *(normalization, padding, pixelshuffle, pooling, upsampling),
)
_LEFT_OUT = ("Lazy", "MaxUnpool", "FractionalMaxPool")  # they build themselves, take two inputs, or are random


def allow_list() -> dict[str, Target]:
    """Full name → what stands for it here."""
    found: dict[str, Target] = {}
    for module in _TORCH:
        names = [name for name in module.__all__ if not name.startswith(_LEFT_OUT)]
        found |= {f"{module.__name__}.{name}": getattr(module, name) for name in names}
    for home in HOMES:
        found |= {f"{home}.{name}": kind for kind, names in LAYERS.items() for name in names}
    found |= {f"utils.activations.{name}": kind for kind, names in ACTIVATIONS.items() for name in names}
    return found | OTHERS


def target(name: str, allowed: dict[str, Target]) -> Target | None:
    """What `name` stands for; the package yolov5 of PyPI has the original modules below its own name."""
    return allowed.get(name) or allowed.get(name.removeprefix("yolov5."))
