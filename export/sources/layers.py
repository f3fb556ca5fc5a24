"""The layers of YOLOv5, as far as a checkpoint's inference needs them.

Checkpoints pickle their modules by class name; `names.py` lets these classes, and those of `blocks.py` and
`activations.py`, stand for both code bases' names. So nothing of either has to be installed, and a checkpoint's names
lead to no code but theirs and torch.nn's. Constructors are absent on purpose: unpickling restores the attributes.
"""

from typing import Any

import torch
from torch import Tensor, nn


class Conv(nn.Module):
    """Convolution, batch normalisation (absent once fused), activation."""

    conv: nn.Conv2d
    bn: nn.BatchNorm2d
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if "bn" in self._modules:
            x = self.bn(x)
        return as_tensor(self.act(x))


class Bottleneck(nn.Module):
    cv1: nn.Module
    cv2: nn.Module
    add: bool

    def forward(self, x: Tensor) -> Tensor:
        y = as_tensor(self.cv2(self.cv1(x)))
        return x + y if self.add else y


class BottleneckCSP(nn.Module):
    cv1: nn.Module
    cv2: nn.Module
    cv3: nn.Module
    cv4: nn.Module
    bn: nn.BatchNorm2d
    act: nn.Module
    m: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return as_tensor(self.cv4(self.act(self.bn(y))))


class C3(nn.Module):
    cv1: nn.Module
    cv2: nn.Module
    cv3: nn.Module
    m: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return as_tensor(self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1)))


class SPP(nn.Module):
    cv1: nn.Module
    cv2: nn.Module
    m: nn.ModuleList

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return as_tensor(self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1)))


class SPPF(nn.Module):
    cv1: nn.Module
    cv2: nn.Module
    m: nn.Module
    n: int = 3
    add: bool = False

    def forward(self, x: Tensor) -> Tensor:
        pooled = [as_tensor(self.cv1(x))]
        for _ in range(self.n):
            pooled.append(self.m(pooled[-1]))
        y = as_tensor(self.cv2(torch.cat(pooled, 1)))
        return y + x if self.add else y


class Focus(nn.Module):
    """Space to depth before a convolution: the stem of YOLOv5 up to v5.0."""

    conv: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        corners = (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2])
        return as_tensor(self.conv(torch.cat(corners, 1)))


class Concat(nn.Module):
    d: int

    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, self.d)


class DFL(nn.Module):
    """Holds the bins of the box distribution; the head's decoding reads `c1`, their number."""

    c1: int


class AnchorHead(nn.Module):
    """The original head: na anchors at each cell, each with box, objectness and class logits.

    Answers one (B, na * (5 + nc), H, W) map of logits a level. `anchors` (levels, na, 2) are in cells, `stride`
    (levels,) in pixels.
    """

    m: nn.ModuleList
    anchors: Tensor
    stride: Tensor
    nc: int
    na: int

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [conv(level) for conv, level in zip(self.m, x, strict=True)]


class AnchorFreeHead(nn.Module):
    """The head of ultralytics' YOLOv5u: distances to the sides as distributions over `reg_max` bins, and class logits.

    Answers one (B, 4 * reg_max + nc, H, W) map of logits a level. `stride` (levels,) is in pixels.
    """

    cv2: nn.ModuleList
    cv3: nn.ModuleList
    stride: Tensor
    nc: int
    reg_max: int

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [torch.cat((self.cv2[i](level), self.cv3[i](level)), 1) for i, level in enumerate(x)]


class Network(nn.Module):
    """A YOLOv5: layers that each read the layers named in their `f`, the last one a head."""

    model: nn.Sequential
    save: list[int]
    names: Any

    @property
    def head(self) -> AnchorHead | AnchorFreeHead:
        last = self.model[-1]
        assert isinstance(last, AnchorHead | AnchorFreeHead)
        return last

    def features(self, x: Tensor) -> list[Tensor]:
        """Images, float (B, 3, H, W) RGB from 0 to 1 → what the head reads, (B, C, H / stride, W / stride) a level."""
        kept: dict[int, Tensor] = {}
        for i, layer in enumerate(list(self.model)[:-1]):
            x = layer(self._taken(layer, i, x, kept))
            if i in self.save:
                kept[i] = x
        taken = self._taken(self.model[-1], len(self.model) - 1, x, kept)
        assert isinstance(taken, list)
        return taken

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images, as for `features` → the head's maps of logits, one a level."""
        maps: list[Tensor] = self.head(self.features(x))
        return maps

    @staticmethod
    def _taken(layer: nn.Module, index: int, x: Tensor, kept: dict[int, Tensor]) -> Tensor | list[Tensor]:
        source: Any = layer.f
        if isinstance(source, int):
            return x if source == -1 else kept[source % index]
        return [x if entry == -1 else kept[entry % index] for entry in source]


def fuse(network: nn.Module) -> None:
    """Fold each batch normalisation into the convolution before it, in place, where both are what `Conv` says."""
    for module in network.modules():
        if not isinstance(module, Conv):
            continue
        conv, bn = module.conv, module._modules.get("bn")
        if type(conv) is nn.Conv2d and isinstance(bn, nn.BatchNorm2d) and bn.running_mean is not None:
            module.conv = nn.utils.fusion.fuse_conv_bn_eval(conv, bn)
            del module.bn


def as_tensor(value: Tensor) -> Tensor:
    return value
