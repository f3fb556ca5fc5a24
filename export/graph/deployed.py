"""The deployed graph: uint8 images in, normalised inside, candidate rows out.

Only the scores are computed for every candidate; boxes and class ids are decoded for the best ones, after these are
gathered. Sizes are read from shapes (`x.shape[0]`, never `len(x)`): the exporter would write a length as a constant.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.config import LEAST_ROWS
from export.sources.layers import AnchorFreeHead, AnchorHead, Conv, Focus, Network, fuse


class Deployed(nn.Module):
    """What Triton serves: a copy of `network`, fused. With `half` its weights are float16; decoding stays float32."""

    def __init__(self, network: Network, *, half: bool = False, gpu: bool = False, rows: int = LEAST_ROWS) -> None:
        super().__init__()
        self.gpu = gpu
        self.rows = rows
        network = copy.deepcopy(network)
        fuse(network)
        self.head = (
            _AnchorBoxes(network.head) if isinstance(network.head, AnchorHead) else _FreeBoxes(network.head, rows)
        )
        self.network = network
        self.dtype = torch.float16 if half else torch.float32
        if half:
            self.network.half()
            self.head.logits.half()
        self.scale = None if not half and fold_scale(network) else 1 / 255

    def forward(self, images: Tensor) -> Tensor:
        """uint8 RGB (B, H, W, 3) → float32 (B, rows, 6): x1, y1, x2, y2 in input pixels, score, class_id; best first.

        H and W must be multiples of the stride. Rows beyond the available ones are zero.
        """
        # TensorRT takes uint8 into nothing but a cast; a CPU moves bytes faster than floats.
        pixels = images.to(self.dtype).permute(0, 3, 1, 2) if self.gpu else images.permute(0, 3, 1, 2).to(self.dtype)
        features = self.network.features(pixels if self.scale is None else pixels * self.scale)
        boxes, classes = self.head.logits(features)
        scores = torch.cat([self.head.scores(*level).flatten(1) for level in zip(boxes, classes, strict=True)], 1)
        total = scores.shape[1]
        best = functional.pad(scores, (0, self.rows)).topk(self.rows)
        order = at_most(best.indices, total - 1)
        priors = torch.cat([self.head.priors(level, x.shape[3], x.shape[4]) for level, x in enumerate(boxes)], 2)
        logits = torch.cat([columns(x) for x in boxes], 2)
        corners = self.head.corners(
            gather(logits, order).float(), gather(priors.expand(images.shape[0], -1, -1), order)
        )
        rows = torch.cat((corners, best.values.unsqueeze(1), best_class(classes, order, self.rows)), 1)
        return torch.where((best.indices < total).unsqueeze(1), rows, 0.0).transpose(1, 2)


class _Logits(nn.Module):
    """The head's last layers, with the box and the class logits apart."""

    def __init__(self, boxes: nn.ModuleList, classes: nn.ModuleList, anchors: int) -> None:
        super().__init__()
        self.boxes, self.classes, self.anchors = boxes, classes, anchors

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Features (B, C, H, W) a level → logits of boxes (B, na, 5 or bins, H, W) and classes (B, na, nc, H, W)."""
        boxes = [self._by_anchor(layer(x)) for layer, x in zip(self.boxes, features, strict=True)]
        classes = [self._by_anchor(layer(x)) for layer, x in zip(self.classes, features, strict=True)]
        return boxes, classes

    def _by_anchor(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], self.anchors, x.shape[1] // self.anchors, x.shape[2], x.shape[3])


class _AnchorBoxes(nn.Module):
    """The original head: s = sigmoid(logits); xy = (2s - 0.5 + cell) * stride, wh = (2s)^2 * anchor."""

    anchors: Tensor

    def __init__(self, head: AnchorHead) -> None:
        super().__init__()
        self.strides = [float(stride) for stride in head.stride]
        self.logits = _Logits(
            nn.ModuleList(_select(conv, head.na, range(5)) for conv in head.m),
            nn.ModuleList(_select(conv, head.na, range(5, 5 + head.nc)) for conv in head.m),
            head.na,
        )
        self.register_buffer("anchors", head.anchors.float() * head.stride.float().view(-1, 1, 1))

    def scores(self, boxes: Tensor, classes: Tensor) -> Tensor:
        """Objectness times the best class: float32 (B, na, H, W)."""
        return boxes[:, :, 4].float().sigmoid() * classes.amax(2).float().sigmoid()

    def priors(self, level: int, height: int, width: int) -> Tensor:
        """(1, 5, na * H * W): cell's column and row, stride, anchor's width and height in pixels."""
        anchors = functional.pad(self.anchors[level], (1, 0), value=self.strides[level])
        count = anchors.shape[0]
        grid = cells(height, width).unsqueeze(1).expand(2, count, height * width)
        sides = anchors.transpose(0, 1).unsqueeze(2).expand(3, count, height * width)
        return torch.cat((grid, sides)).reshape(1, 5, count * height * width)

    def corners(self, boxes: Tensor, priors: Tensor) -> Tensor:
        """x1, y1, x2, y2 in pixels, (B, 4, K), of gathered logits (B, 5, K)."""
        sides = boxes[:, :4].sigmoid() * 2
        centre = (sides[:, :2] - 0.5 + priors[:, :2]) * priors[:, 2:3]
        half = sides[:, 2:] * sides[:, 2:] * priors[:, 3:] / 2
        return torch.cat((centre - half, centre + half), 1)


class _FreeBoxes(nn.Module):
    """ultralytics' head: the sides' distances from the cell's centre are the means of distributions over bins."""

    bins: Tensor

    def __init__(self, head: AnchorFreeHead, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.strides = [float(stride) for stride in head.stride]
        self.logits = _Logits(head.cv2, head.cv3, 1)
        self.register_buffer("bins", torch.arange(head.reg_max, dtype=torch.float32).view(1, 1, -1, 1))

    def scores(self, boxes: Tensor, classes: Tensor) -> Tensor:
        """The best class: float32 (B, 1, H, W)."""
        return classes.amax(2).float().sigmoid()

    def priors(self, level: int, height: int, width: int) -> Tensor:
        """(1, 3, H * W): cell's column and row, stride."""
        grid = cells(height, width)
        return torch.cat((grid, torch.full_like(grid[:1], self.strides[level]))).unsqueeze(0)

    def corners(self, boxes: Tensor, priors: Tensor) -> Tensor:
        """x1, y1, x2, y2 in pixels, (B, 4, K), of gathered logits (B, 4 * bins, K)."""
        spread = boxes.reshape(boxes.shape[0], 4, self.bins.shape[2], self.rows)
        sides = (spread.softmax(2) * self.bins).sum(2)
        centre = priors[:, :2] + 0.5
        return torch.cat((centre - sides[:, :2], centre + sides[:, 2:]), 1) * priors[:, 2:3]


def cells(height: int, width: int) -> Tensor:
    """Column and row of each cell, float32 (2, H * W). Computed in the graph, so that any size of input fits."""
    x = torch.arange(width, dtype=torch.float32).view(1, -1).expand(height, width)
    y = torch.arange(height, dtype=torch.float32).view(-1, 1).expand(height, width)
    return torch.stack((x, y)).view(2, height * width)


def columns(x: Tensor) -> Tensor:
    """(B, na, C, H, W) → (B, C, na * H * W)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], x.shape[1] * x.shape[3] * x.shape[4])


def gather(values: Tensor, order: Tensor) -> Tensor:
    """The columns (B, C, K) of (B, C, N) that `order` (B, K) names."""
    return values.gather(2, order.unsqueeze(1).expand(-1, values.shape[1], -1))


def at_most(index: Tensor, limit: int) -> Tensor:
    """`clamp` would become a Clip of integers, which TensorRT has not."""
    return torch.where(index < limit, index, limit)


def best_class(classes: list[Tensor], order: Tensor, rows: int) -> Tensor:
    """Class ids, float32 (B, 1, K), of the candidates `order`, counted through the levels' logits (B, na, nc, H, W).

    The logits stay where they are, since moving them all costs more than the index arithmetic.
    """
    chosen: Tensor | None = None
    start = 0
    for level in classes:
        count = level.shape[2]
        area = level.shape[3] * level.shape[4]
        candidates = level.shape[1] * area
        local = at_most(torch.where(order >= start, order - start, 0), candidates - 1)
        anchor = torch.div(local, area, rounding_mode="trunc")
        first = local + anchor * (area * (count - 1))
        index = first.unsqueeze(1) + (torch.arange(count) * area).view(1, -1, 1)
        logits = level.flatten(1).gather(1, index.flatten(1)).view(-1, count, rows)
        here = logits.argmax(1, keepdim=True)
        chosen = here if chosen is None else torch.where((order >= start).unsqueeze(1), here, chosen)
        start = start + candidates
    assert chosen is not None
    return chosen.float()


def _select(conv: nn.Module, anchors: int, wanted: range) -> nn.Conv2d:
    """A 1x1 convolution with only the `wanted` outputs of each anchor."""
    assert isinstance(conv, nn.Conv2d)
    outputs = conv.out_channels // anchors
    channels = [anchor * outputs + output for anchor in range(anchors) for output in wanted]
    part = nn.Conv2d(conv.in_channels, len(channels), 1, bias=conv.bias is not None)
    part.weight = nn.Parameter(conv.weight[channels].clone(), requires_grad=False)
    if conv.bias is not None:
        part.bias = nn.Parameter(conv.bias[channels].clone(), requires_grad=False)
    return part


def fold_scale(network: Network) -> bool:
    """Divide the first convolution's weights by 255 instead of every pixel; False where it is not the first layer.

    conv(x / 255) is (W / 255)·x + b whatever its bias and normalisation. Only the first layer reads the image.
    """
    first: nn.Module = network.model[0]
    if isinstance(first, Focus):
        first = first.conv
    conv = first.conv if isinstance(first, Conv) else first
    uses = sum(module is conv for _, module in network.named_modules(remove_duplicate=False))
    if type(conv) is not nn.Conv2d or uses != 1:
        return False
    conv.weight = nn.Parameter(conv.weight / 255, requires_grad=False)
    return True
