"""Activations that torch lacks, or cannot write as ONNX. As in `layers.py`, no constructors.

All take and give float (B, C, H, W).
"""

import torch
from torch import Tensor, nn

from export.sources.layers import as_tensor


class FReLU(nn.Module):
    """max(x, bn(conv(x))) (https://arxiv.org/abs/2007.11824)."""

    conv: nn.Module
    bn: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.bn(self.conv(x)))


class AconC(nn.Module):
    """d·sigmoid(beta·d) + p2·x with d = (p1 - p2)·x (https://arxiv.org/abs/2009.04759)."""

    p1: Tensor
    p2: Tensor
    beta: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(x, self.beta)

    def activate(self, x: Tensor, beta: Tensor) -> Tensor:
        difference = (self.p1 - self.p2) * x
        return difference * torch.sigmoid(beta * difference) + self.p2 * x


class MetaAconC(AconC):
    """As `AconC`, with a beta for each channel from the image: sigmoid(fc2(fc1(mean of the channel))).

    The first version of 2021 had normalisations behind both, bn1 and bn2.
    """

    fc1: nn.Module
    fc2: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean((2, 3), keepdim=True)
        for layer, norm in (("fc1", "bn1"), ("fc2", "bn2")):
            y = self._modules[layer](y)  # type: ignore[misc]
            y = self._modules[norm](y) if norm in self._modules else y  # type: ignore[misc]
        return self.activate(x, as_tensor(y).sigmoid())


class Threshold(nn.Module):
    """x above the threshold, else `value`; the exporter knows torch's own for a threshold of zero alone."""

    threshold: float
    value: float

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > self.threshold, x, self.value)
