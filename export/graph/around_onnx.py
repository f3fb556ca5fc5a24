"""Puts an ONNX file of YOLOv5 between the deployed graph's input and its output."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
import torch
from onnx import compose, version_converter
from torch import Tensor, nn
from torch.nn import functional

from export.config import Serving
from export.errors import ExportError
from export.graph.deployed import at_most, gather
from export.graph.onnx_nodes import LEAST_OPSET, opset
from export.graph.onnx_writer import name_cast, rename, state_output, trace

Layout = Literal["original", "ultralytics"]  # (B, N, 5 + classes) with objectness; (B, 4 + classes, N) without

OPSETS = range(LEAST_OPSET, 21)  # what the TorchScript exporter writes of what is asked for here


@dataclass(frozen=True, slots=True)
class Signature:
    """What the file takes and gives. Of `size_hw`, pixels, a side is None where it is free, and so is `batch`."""

    input: str
    output: str
    half: bool
    size_hw: tuple[int | None, int | None]
    batch: int | None


class Normalise(nn.Module):
    """uint8 (B, H, W, 3) → (B, 3, H, W) from 0 to 1."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        return images.to(self.dtype).permute(0, 3, 1, 2) / 255


class BestRows(nn.Module):
    """Every candidate, with its box as centre and size → the best rows, float32 (B, rows, 6)."""

    def __init__(self, layout: Layout, rows: int) -> None:
        super().__init__()
        self.layout = layout
        self.rows = rows

    def forward(self, table: Tensor) -> Tensor:
        if self.layout == "original":
            scores = table[:, :, 5:].amax(2) * table[:, :, 4]
            table = table.transpose(1, 2)
        else:
            scores = table[:, 4:].amax(1)
        total = scores.shape[1]
        best = functional.pad(scores.float(), (0, self.rows)).topk(self.rows)
        chosen = gather(table, at_most(best.indices, total - 1)).float()
        first = 5 if self.layout == "original" else 4
        centre, half = chosen[:, :2], chosen[:, 2:4] / 2
        index = chosen[:, first:].argmax(1, keepdim=True).float()
        rows = torch.cat((centre - half, centre + half, best.values.unsqueeze(1), index), 1)
        return torch.where((best.indices < total).unsqueeze(1), rows, 0.0).transpose(1, 2)


def write(model: onnx.ModelProto, signature: Signature, layout: Layout, target: Path, serving: Serving) -> None:
    """Write the deployed graph around `model` to `target`. Raises ExportError when the parts do not fit."""
    kind = torch.float16 if signature.half else torch.float32
    images = torch.zeros((2, *serving.size_hw, 3), dtype=torch.uint8)
    table = torch.rand((2, 2000, 7) if layout == "original" else (2, 7, 2000)).to(kind)
    free = {0: "batch", 1: "height", 2: "width"} if not serving.fixed else {0: "batch"}
    before = _part(Normalise(kind), images, "images", "pixels", free, model, "before/")
    after = _part(
        BestRows(layout, serving.rows),
        table,
        "table",
        "detections",
        {0: "batch", 1: "rows", 2: "columns"},
        model,
        "after/",
    )
    try:
        joined = compose.merge_models(before, model, io_map=[("before/pixels", signature.input)])
        joined = compose.merge_models(
            joined, after, io_map=[(signature.output, "after/table")], outputs=["after/detections"]
        )
        rename(joined.graph, {"images": "inner/images", "detections": "inner/detections"})  # of the file itself
        rename(joined.graph, {"before/images": "images", "after/detections": "detections"})
        del joined.graph.value_info[:]
        state_output(joined, serving.rows)
        name_cast(joined)
        if serving.one_image:
            for value in (*joined.graph.input, *joined.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(joined, str(target))
        onnx.checker.check_model(str(target))
    except (ValueError, onnx.checker.ValidationError) as error:
        raise ExportError(f"the ONNX file cannot be given another input: {str(error).splitlines()[0]}") from error


def _part(
    module: nn.Module,
    example: Tensor,
    name_in: str,
    name_out: str,
    free: dict[int, str],
    model: onnx.ModelProto,
    prefix: str,
) -> onnx.ModelProto:
    wanted = opset(model)
    part = trace(module, example, name_in, name_out, free, min(max(wanted, OPSETS[0]), OPSETS[-1]))
    if opset(part) != wanted:
        part = version_converter.convert_version(part, wanted)
    part.ir_version = model.ir_version
    return compose.add_prefix(part, prefix)
