"""Writes the deployed graph as ONNX."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from torch import nn

from export.config import CAST, COLUMNS
from export.errors import ExportError
from export.graph.deployed import Deployed

OPSET = 17


def write(deployed: Deployed, path: Path, *, size_hw: tuple[int, int], fixed: bool) -> None:
    """Write `deployed` to `path`: the batch is free, and height and width too unless `fixed`."""
    images = torch.zeros((2, *size_hw, 3), dtype=torch.uint8)
    free = {0: "batch"} if fixed else {0: "batch", 1: "height", 2: "width"}
    model = trace(deployed, images, "images", "detections", free, OPSET)
    state_output(model, deployed.rows)
    name_cast(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def trace(
    module: nn.Module, example: torch.Tensor, name_in: str, name_out: str, free: dict[int, str], opset: int
) -> onnx.ModelProto:
    """`module` as ONNX. `free` names the input's free dimensions; of the output the batch is free.

    The TorchScript exporter is used on purpose: 2 s instead of 24 s for YOLOv5n, and the graph is as fast or faster.
    """
    written = io.BytesIO()
    try:
        with silence(), torch.inference_mode():
            torch.onnx.export(
                module.eval(),
                (example,),
                written,  # type: ignore[arg-type]  # a stream is fine for this exporter
                dynamo=False,
                opset_version=opset,
                input_names=[name_in],
                output_names=[name_out],
                dynamic_axes={name_in: free, name_out: {0: "batch"}},
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:  # ONNX or the exporter lacks a layer
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"the model cannot be written as ONNX: {reason}; use other layers") from error
    return onnx.load_from_string(written.getvalue())


def state_output(model: onnx.ModelProto, rows: int) -> None:
    """Write `rows` and 6 into the graph, where the exporter leaves free dimensions: Triton's backend compares them."""
    shape = model.graph.output[0].type.tensor_type.shape
    for dimension, size in zip(shape.dim[1:], (rows, COLUMNS), strict=True):
        dimension.dim_value = size


def name_cast(model: onnx.ModelProto) -> None:
    """Give the tensor behind the cast of the input a name that config.pbtxt can use; a CPU's graph has none."""
    cast = next((node for node in model.graph.node if node.op_type == "Cast" and node.input[0] == "images"), None)
    if cast is not None:
        rename(model.graph, {cast.output[0]: CAST})


def rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Rename tensors, inside branches and loops too."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                rename(inner, names)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep the exporters' chatter away: it is about torch's own code."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    dump = torch._C._jit_onnx_log  # prints the whole graph when a node cannot be written
    torch._C._jit_onnx_log = lambda *_: None
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        torch._C._jit_onnx_log = dump
