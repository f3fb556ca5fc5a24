"""The rarer layers of YOLOv5, v1.0 to today, which a model's yaml can name. As in `layers.py`, no constructors.

All take and give float (B, C, H, W) unless said otherwise.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.sources.layers import as_tensor


class GhostConv(nn.Module):
    """Half of the outputs by one convolution, the other half by a cheap one of these (https://arxiv.org/abs/1911.11907)."""

    cv1: nn.Module
    cv2: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        return torch.cat((y, self.cv2(y)), 1)


class GhostBottleneck(nn.Module):
    conv: nn.Module
    shortcut: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return as_tensor(self.conv(x) + self.shortcut(x))


class MixConv2d(nn.Module):
    """Convolutions of several kernel sizes side by side (https://arxiv.org/abs/1907.09595).

    Up to v6.0 their input was added to the answer. Those had a LeakyReLU, the later ones have a SiLU.
    """

    m: nn.ModuleList
    bn: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        y = as_tensor(self.act(self.bn(torch.cat([conv(x) for conv in self.m], 1))))
        return x + y if isinstance(self.act, nn.LeakyReLU) else y


class ConvPlus(nn.Module):
    """A convolution in the shape of a plus, of v1.0."""

    cv1: nn.Module
    cv2: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return as_tensor(self.cv1(x) + self.cv2(x))


class Contract(nn.Module):
    """Space to channels: (B, C, H, W) → (B, C·gain², H / gain, W / gain); row, then column, are the slowest."""

    gain: int

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        s = self.gain
        x = x.reshape(batch, channels, height // s, s, width // s, s).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(batch, channels * s * s, height // s, width // s)


class Expand(nn.Module):
    """Channels to space, the inverse of `Contract`: (B, C, H, W) → (B, C / gain², H·gain, W·gain)."""

    gain: int

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        s = self.gain
        x = x.reshape(batch, s, s, channels // s**2, height, width).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(batch, channels // s**2, height * s, width * s)


class Sum(nn.Module):
    """Adds the layers that it reads; with `weight`, each but the first times 2·sigmoid(w)."""

    weight: bool
    w: Tensor

    def forward(self, x: list[Tensor]) -> Tensor:
        y = x[0]
        for i, layer in enumerate(x[1:]):
            y = y + (layer * (self.w[i].sigmoid() * 2) if self.weight else layer)
        return y


class TransformerLayer(nn.Module):
    """Attention and two linear layers, each added to its input; no normalisation. Tokens (B, N, C) → the same.

    Attention as in https://arxiv.org/abs/1706.03762: softmax(q·kᵀ / √d)·v in each head of d channels. `ma` holds the
    weights; its own forward would fix the number of tokens in a traced graph.
    """

    q: nn.Module
    k: nn.Module
    v: nn.Module
    ma: nn.MultiheadAttention
    fc1: nn.Module
    fc2: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        x = self._attention(x) + x
        return as_tensor(self.fc2(self.fc1(x)) + x)

    def _attention(self, x: Tensor) -> Tensor:
        weights, bias = self.ma.in_proj_weight, self.ma.in_proj_bias
        channels, heads = self.ma.embed_dim, self.ma.num_heads
        parts = []
        for i, layer in enumerate((self.q, self.k, self.v)):
            rows = slice(i * channels, (i + 1) * channels)
            part = functional.linear(layer(x), weights[rows], None if bias is None else bias[rows])
            parts.append(part.reshape(x.shape[0], x.shape[1], heads, channels // heads).transpose(1, 2))
        q, k, v = parts
        chances = (q * (channels // heads) ** -0.5 @ k.transpose(2, 3)).softmax(3)
        mixed = (chances @ v).transpose(1, 2).reshape(x.shape[0], x.shape[1], channels)
        return as_tensor(self.ma.out_proj(mixed))


class TransformerBlock(nn.Module):
    """A learnt embedding added to each cell, then `TransformerLayer`s over the cells."""

    linear: nn.Module
    tr: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        conv = self._modules.get("conv")
        if conv is not None:
            x = conv(x)
        tokens = x.flatten(2).transpose(1, 2)
        mixed = self.tr(tokens + self.linear(tokens))
        return as_tensor(mixed.transpose(1, 2).reshape(x.shape))
