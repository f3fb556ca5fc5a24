"""Answers of an ONNX file through ONNX Runtime on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnxruntime.capi import onnxruntime_pybind11_state as state

from export.errors import ExportError

Image = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]

# ONNX Runtime's exceptions have no common base of their own.
REFUSALS: tuple[type[Exception], ...] = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
)


class Session:
    """An ONNX file or model on the CPU. What ONNX Runtime refuses becomes an ExportError, here and in `run`."""

    def __init__(self, model: Path | onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            source = str(model) if isinstance(model, Path) else model.SerializeToString()
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except (*REFUSALS, EncodeError, ValueError) as error:  # the last two: more than 2 GB
            raise ExportError(f"ONNX Runtime refuses the model: {_line(error)}") from error

    def run(self, output: str, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        try:
            result: npt.NDArray[Any] = self._session.run([output], inputs)[0]
        except REFUSALS as error:
            raise ExportError(f"ONNX Runtime fails to run the model: {_line(error)}") from error
        return result


class Deployed:
    """A deployed graph: uint8 RGB in, candidate rows out."""

    def __init__(self, path: Path) -> None:
        self._session = Session(path)

    def batch(self, images: Image) -> Rows:
        """(B, H, W, 3) → (B, rows, 6)."""
        return self._session.run("detections", {"images": images})

    def __call__(self, image: Image) -> Rows:
        """(H, W, 3) → (rows, 6)."""
        rows: Rows = self.batch(image[np.newaxis])[0]
        return rows


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
