"""Triton Python-based backend with the name of the real ONNX Runtime backend, so that one config.pbtxt serves both.

It runs in the stub process of Triton's Python backend, in an environment with numpy < 2, on the CPU. What the real one
refuses it refuses too: `contract` is `export/contract.py`, which is next to this file when Triton runs.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from contract import breaches, graph_of
from onnxruntime.capi import onnxruntime_pybind11_state as native

# ONNX Runtime's exceptions have no common base class; ValueError and TypeError are its answers to wrong arguments.
ORT_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    TypeError,
    ValueError,
)
# malloc.h of glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MEGABYTE = -1, -3, 1 << 20


class TritonPythonModel:
    """One instance: one session. Triton starts as many as the config's instance_group says."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the model file of this version; raises TritonModelException with one line if it cannot be served."""
        config: dict[str, Any] = json.loads(args["model_config"])
        if args["model_instance_kind"] != "CPU":
            raise pb_utils.TritonModelException(
                f"{config['name']}: the local onnxruntime backend runs on the CPU; set instance_group kind: KIND_CPU"
            )
        keep_freed_memory()
        path = model_path(Path(args["model_repository"]), args["model_version"], config)
        self.session = open_session(path, threads=threads(config))
        check_contract(config, self.session)
        self.inputs = [item["name"] for item in config["input"]]
        self.outputs = [item["name"] for item in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run each request in turn: on a CPU a batch run as one is slower than its parts."""
        return [self.respond(request) for request in requests]

    def respond(self, request: Any) -> Any:
        requested = request.requested_output_names()
        wanted = [name for name in self.outputs if name in requested]
        try:
            arrays = self.session.run(wanted, {name: self.array(request, name) for name in self.inputs})
        except ORT_ERRORS as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, array) for name, array in zip(wanted, arrays, strict=True)]
        )

    def array(self, request: Any, name: str) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
        return found


def keep_freed_memory() -> None:
    """The stub copies every image into memory of its own: without this it asks the system for new pages each time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 8 * _MEGABYTE)
        mallopt(_TRIM_THRESHOLD, 16 * _MEGABYTE)


def model_path(model: Path, version: str, config: dict[str, Any]) -> Path:
    return model / version / (config.get("default_model_filename") or "model.onnx")


def threads(config: dict[str, Any]) -> int:
    """Where the real backend would take a thread for every core, one: the stubs of all instances share the cores."""
    given = str(config.get("parameters", {}).get("intra_op_thread_count", {}).get("string_value", ""))
    return int(given) if given.isdecimal() and int(given) else 1


def check_contract(config: dict[str, Any], session: onnxruntime.InferenceSession) -> None:
    """Raises TritonModelException with the real backend's words when that would refuse the model."""
    for breach in breaches(config, graph_of(session)):
        if breach.refused:
            raise pb_utils.TritonModelException(breach.words)
        pb_utils.Logger.log_warn(f"{config['name']}: {breach.words}")


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session on the CPU whose threads sleep, not spin, between runs: other processes need the cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except ORT_ERRORS as error:
        raise pb_utils.TritonModelException(f"{path}: {error}") from error
