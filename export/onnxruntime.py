"""Answers of an ONNX file through ONNX Runtime on the CPU."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from export.errors import ExportError

Image = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Raises ExportError when ONNX Runtime refuses the file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    state = onnxruntime.capi.onnxruntime_pybind11_state
    refusals = (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented, state.InvalidArgument)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except refusals as error:
        raise ExportError(f"ONNX Runtime refuses {path.name}: {str(error).splitlines()[0]}") from error


class Deployed:
    """A deployed graph: uint8 RGB in, candidate rows out."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)

    def batch(self, images: Image) -> Rows:
        """(B, H, W, 3) → (B, 1000, 6)."""
        rows: Rows = self._session.run(["detections"], {"images": images})[0]
        return rows

    def __call__(self, image: Image) -> Rows:
        """(H, W, 3) → (1000, 6)."""
        rows: Rows = self.batch(image[np.newaxis])[0]
        return rows
