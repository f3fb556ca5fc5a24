"""Writes the deployed graph as ONNX."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch

from export.graph import Deployed

OPSET = 17


def write(deployed: Deployed, path: Path, *, size_hw: tuple[int, int], square: bool) -> None:
    """Write `deployed` to `path`: the batch is free, and height and width too unless `square`.

    The TorchScript exporter is used on purpose: 2 s instead of 24 s for YOLOv5n, and the graph is as fast or faster.
    """
    free = {0: "batch"} if square else {0: "batch", 1: "height", 2: "width"}
    images = torch.zeros((2, *size_hw, 3), dtype=torch.uint8)
    with silence(), torch.inference_mode():
        torch.onnx.export(
            deployed.eval(),
            (images,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["detections"],
            dynamic_axes={"images": free, "detections": {0: "batch"}},
        )
    onnx.checker.check_model(str(path), full_check=True)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep the exporters' chatter away: it is about torch's own code."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
