"""The deployed graph: uint8 images in, normalised inside, candidate rows out."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.layers import AnchorFreeHead, AnchorHead, Network

CANDIDATES = 1000  # rows an image; NMS keeps 300 of them at most. TensorRT's TopK takes 3840.


class Deployed(nn.Module):
    """What Triton serves. `network` must be fused; with `half` its weights are float16, the decoding stays float32."""

    def __init__(self, network: Network, *, half: bool = False) -> None:
        super().__init__()
        self.network = network.half() if half else network
        head = network.head
        self.decoders = nn.ModuleList(
            AnchorDecoder(head, level) if isinstance(head, AnchorHead) else AnchorFreeDecoder(head, level)
            for level in range(len(head.stride))
        )
        self.dtype = torch.float16 if half else torch.float32

    def forward(self, images: Tensor) -> Tensor:
        """uint8 RGB (B, H, W, 3) → float32 (B, 1000, 6): x1, y1, x2, y2 in input pixels, score, class_id; best first.

        H and W must be multiples of the stride. Rows beyond the available ones are zero.
        """
        maps = self.network(normalise(images, self.dtype))
        columns = [decode(level.float()) for decode, level in zip(self.decoders, maps, strict=True)]
        return best_rows(torch.cat(columns, 2))


class AnchorDecoder(nn.Module):
    """One level of the original head: s = sigmoid(logits), xy = (2s - 0.5 + cell) * stride, wh = (2s)^2 * anchor."""

    anchors: Tensor

    def __init__(self, head: AnchorHead, level: int) -> None:
        super().__init__()
        self.stride = float(head.stride[level])
        self.count = int(head.anchors.shape[1])
        self.outputs = 5 + head.nc
        pixels = head.anchors[level].float() * self.stride
        self.register_buffer("anchors", pixels.view(1, self.count, 2, 1).clone())

    def forward(self, level: Tensor) -> Tensor:
        """Logits (B, na * (5 + nc), H, W) → columns (B, 6, na * H * W)."""
        batch, _, height, width = level.shape
        logits = level.view(batch, self.count, self.outputs, height * width)
        sides = logits[:, :, :5].sigmoid()
        centre = (sides[:, :, :2] * 2 - 0.5 + cells(height, width)) * self.stride
        half = (sides[:, :, 2:4] * 2) ** 2 * (self.anchors / 2)
        best, index = best_class(logits[:, :, 5:])
        columns = torch.cat((centre - half, centre + half, sides[:, :, 4:] * best, index), 2)
        return columns.transpose(1, 2).reshape(batch, 6, self.count * height * width)


class AnchorFreeDecoder(nn.Module):
    """One level of ultralytics' head: the sides' distances from the cell's centre are the means of distributions."""

    bins: Tensor

    def __init__(self, head: AnchorFreeHead, level: int) -> None:
        super().__init__()
        self.stride = float(head.stride[level])
        self.reg_max = head.reg_max
        self.register_buffer("bins", torch.arange(head.reg_max, dtype=torch.float32).view(1, 1, head.reg_max, 1))

    def forward(self, level: Tensor) -> Tensor:
        """Logits (B, 4 * reg_max + nc, H, W) → columns (B, 6, H * W)."""
        batch, channels, height, width = level.shape
        logits = level.view(batch, 1, channels, height * width)
        spread = logits[:, :, : 4 * self.reg_max].reshape(batch, 4, self.reg_max, height * width)
        sides = (spread.softmax(2) * self.bins).sum(2)
        centre = (cells(height, width) + 0.5)[:, 0]
        corners = torch.cat((centre - sides[:, :2], centre + sides[:, 2:]), 1) * self.stride
        best, index = best_class(logits[:, :, 4 * self.reg_max :])
        return torch.cat((corners, best[:, 0], index[:, 0]), 1)


def normalise(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 (B, H, W, 3) → (B, 3, H, W) from 0 to 1."""
    return images.permute(0, 3, 1, 2).to(dtype) / 255


def cells(height: int, width: int) -> Tensor:
    """Column and row of each cell, float32 (1, 1, 2, H * W). Computed in the graph, so that any size of input fits."""
    rows = torch.arange(height, dtype=torch.float32).view(-1, 1).expand(height, width)
    columns = torch.arange(width, dtype=torch.float32).view(1, -1).expand(height, width)
    return torch.stack((columns, rows)).reshape(1, 1, 2, height * width)


def best_class(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Score and index of the best class, both float32 (B, na, 1, cells), of logits (B, na, nc, cells).

    The sigmoid rises everywhere, so that it is needed for the best logit only.
    """
    return logits.amax(2, keepdim=True).sigmoid(), logits.argmax(2, keepdim=True).float()


def best_rows(columns: Tensor) -> Tensor:
    """The best CANDIDATES of (B, 6, N) columns as rows (B, CANDIDATES, 6), best first, zeros where N is less."""
    columns = functional.pad(columns, (0, CANDIDATES))
    order = columns[:, 4].topk(CANDIDATES).indices
    return columns.gather(2, order.unsqueeze(1).expand(-1, 6, -1)).transpose(1, 2)
