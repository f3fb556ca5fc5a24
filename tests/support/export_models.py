"""Small YOLOv5s for tests of the export: networks, checkpoints of both formats, ONNX files as both tools write them."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from export.graph.onnx_writer import trace
from export.sources import layers

# The tests run beside servers, and PyTorch's waiting threads would spin.
torch.set_num_threads(1)

NAMES = {0: "disc", 1: "box", 2: "tri angle"}
ANCHORS = [[[1.5, 2.0], [3.0, 2.5], [5.0, 4.0]]] * 3

# The names under which the two code bases pickle these classes.
ORIGINAL = {
    "Network": ("models.yolo", "Model"),
    "AnchorHead": ("models.yolo", "Detect"),
    "Conv": ("models.common", "Conv"),
}
ULTRALYTICS = {
    "Network": ("ultralytics.nn.tasks", "DetectionModel"),
    "AnchorFreeHead": ("ultralytics.nn.modules.head", "Detect"),
    "Conv": ("ultralytics.nn.modules.conv", "Conv"),
}


def anchored(strides: tuple[int, ...] = (8, 16, 32)) -> layers.Network:
    """The original head on a few convolutions, with weights that are always the same."""
    head = layers.AnchorHead()
    head.nc, head.na = len(NAMES), 3
    head.stride = torch.tensor([float(stride) for stride in strides])
    head.anchors = torch.tensor((ANCHORS * 2)[: len(strides)])
    return _network(head, strides, lambda channels: [nn.Conv2d(channels, 3 * (5 + head.nc), 1)])


def anchor_free() -> layers.Network:
    """ultralytics' head on a few convolutions."""
    head = layers.AnchorFreeHead()
    head.nc, head.reg_max = len(NAMES), 16
    head.stride = torch.tensor([8.0, 16.0, 32.0])
    return _network(head, (8, 16, 32), lambda channels: [nn.Conv2d(channels, 64, 1), nn.Conv2d(channels, head.nc, 1)])


def save(network: layers.Network, path: Path, names: dict[str, tuple[str, str]], **content: object) -> Path:
    """A checkpoint as that code base writes it: its class names, half precision."""
    own = path.with_suffix(".own")
    torch.save({"epoch": -1, "model": network.half(), "ema": None, **content}, own)
    network.float()
    with zipfile.ZipFile(own) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                for name, (module, theirs) in names.items():
                    data = data.replace(f"cexport.sources.layers\n{name}\n".encode(), f"c{module}\n{theirs}\n".encode())
            target.writestr(entry.filename, data)
    own.unlink()
    return path


class OriginalTable(nn.Module):
    """What yolov5's export.py writes: (B, N, 5 + classes), boxes as centre and size."""

    def __init__(self, network: layers.Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        head = self.network.head
        assert isinstance(head, layers.AnchorHead)
        tables = []
        for level, logits in enumerate(self.network(images)):
            batch, _, height, width = logits.shape
            y = logits.view(batch, head.na, 5 + head.nc, height, width).permute(0, 1, 3, 4, 2).sigmoid()
            grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")[::-1], 2)
            centre = (y[..., :2] * 2 - 0.5 + grid) * head.stride[level]
            size = (y[..., 2:4] * 2) ** 2 * (head.anchors[level] * head.stride[level]).view(1, head.na, 1, 1, 2)
            tables.append(torch.cat((centre, size, y[..., 4:]), 4).view(batch, -1, 5 + head.nc))
        return torch.cat(tables, 1)


class UltralyticsTable(nn.Module):
    """What ultralytics writes: (B, 4 + classes, N), boxes as centre and size."""

    def __init__(self, network: layers.Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        columns = []
        for level, logits in enumerate(self.network(images)):
            batch, _, height, width = logits.shape
            spread = logits[:, :64].reshape(batch, 4, 16, height * width).softmax(2)
            sides = (spread * torch.arange(16.0).view(1, 1, 16, 1)).sum(2)
            grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")[::-1])
            centre = grid.reshape(1, 2, height * width) + 0.5
            low, high = centre - sides[:, :2], centre + sides[:, 2:]
            stride = self.network.head.stride[level]
            boxes = torch.cat(((low + high) / 2, high - low), 1) * stride
            columns.append(torch.cat((boxes, logits[:, 64:].reshape(batch, -1, height * width).sigmoid()), 1))
        return torch.cat(columns, 2)


class FixedBatch(nn.Module):
    """A table whose batch cannot be freed: a row of its own stands at the end of each image's."""

    def __init__(self, table: nn.Module, columns: int) -> None:
        super().__init__()
        self.table, self.columns = table, columns

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat((self.table(images), torch.zeros(len(images), 1, self.columns)), 1)


def save_onnx(
    table: nn.Module,
    path: Path,
    *,
    size: int | tuple[int, int] | None,
    names: object = NAMES,
    batch: int = 1,
    opset: int = 17,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """An ONNX file as the tools write it: `size` and `batch` fixed, or all free when `size` is None."""
    size_hw = size if isinstance(size, tuple) else (size or 320, size or 320)
    images = torch.zeros(batch, 3, *size_hw)
    free = {0: "batch", 2: "height", 3: "width"} if size is None else {}
    model = trace(table, images, "images", "output0", free, opset)
    if size is not None:
        model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = batch
    entries = {"stride": "32"} | ({"names": str(names)} if names else {}) | dict(metadata or {})
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, str(path))
    return path


def rewritten(path: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    """The ONNX file after `change`."""
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(path))
    return path


class Given(nn.Module):
    """Answers every image with the same `outputs`, each with a batch of one in front."""

    def __init__(self, *outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        nothing = images.mean() * 0
        return tuple(output + nothing for output in self.outputs)


def spread(rows: int, classes: int, size: int = 320) -> Tensor:
    """A table (1, rows, 5 + classes) of boxes all over an image of `size` pixels; some of them have a score."""
    torch.manual_seed(0)
    table = torch.zeros(1, rows, 5 + classes)
    table[..., :2] = torch.rand(1, rows, 2) * size
    table[..., 2:4] = 20 + torch.rand(1, rows, 2) * 10
    found = torch.arange(min(rows, 60))
    table[:, found, 4] = table[:, found, 5 + found % classes] = 0.9
    return table


def _network(head: nn.Module, strides: tuple[int, ...], outputs: Callable[[int], list[nn.Conv2d]]) -> layers.Network:
    torch.manual_seed(4)
    network = layers.Network()
    sizes = [(3, 8, 4), (8, 16, 2), *[(16 if i == 1 else 24, 24, 2) for i in range(1, len(strides))]]
    stages: list[nn.Module] = [_conv(*size) for size in sizes]
    levels = [outputs(size[1]) for size in sizes[1:]]
    for conv in (conv for level in levels for conv in level):
        nn.init.normal_(conv.weight, std=1 / conv.in_channels**0.5)
        if conv.bias is not None:
            nn.init.constant_(conv.bias, -1.0)
    if isinstance(head, layers.AnchorHead):
        head.m = nn.ModuleList(made[0] for made in levels)
    else:
        head.cv2, head.cv3 = (nn.ModuleList(made[i] for made in levels) for i in range(2))
    for index, stage in enumerate([*stages, head]):
        stage.i, stage.f = index, -1  # type: ignore[assignment]
    head.f = list(range(1, len(stages)))  # type: ignore[assignment]
    network.model = nn.Sequential(*stages, head)
    network.save = list(range(1, len(stages)))
    network.names = dict(NAMES)
    return network.eval().requires_grad_(False)


def _conv(channels: int, outputs: int, stride: int) -> layers.Conv:
    made = layers.Conv()
    made.conv = nn.Conv2d(channels, outputs, stride + 1, stride, padding=1 if stride == 2 else 2, bias=False)
    made.bn = nn.BatchNorm2d(outputs)
    nn.init.normal_(made.conv.weight, std=1.6 / (channels * (stride + 1) ** 2) ** 0.5)
    made.bn.running_var = torch.rand(outputs) + 0.5
    nn.init.normal_(made.bn.bias, std=0.3)
    made.act = nn.SiLU()
    return made
