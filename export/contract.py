"""What NVIDIA's ONNX Runtime backend asks of a config.pbtxt and the graph behind it.

Read in its releases r24.10 and r25.08 and held to a build of the first: `src/onnxruntime.cc` (ModelState, LoadModel,
ValidateInputs, ValidateOutputs), `src/onnxruntime_utils.cc` (CompareDimsSupported) and, of the repository `backend`,
`src/backend_common.cc`. The exporter publishes nothing that breaks a rule, `local/backends` refuses to load it in the
backend's own words, and `make doctor` reports it. Standard library only: this file is also copied next to that backend.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]  # a ModelConfig as JSON, with the field names of model_config.proto

# ONNX Runtime's names → those of model_config.proto. TYPE_BF16 is missing: the backend does not take it.
DATATYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(double)": "TYPE_FP64",
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(string)": "TYPE_STRING",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
}

OWN_PARAMETERS = frozenset({"imgsz", "stride"})  # what the gateway reads
NUMBERS = frozenset({"execution_mode", "intra_op_thread_count", "inter_op_thread_count"})
SWITCHES = frozenset({"enable_mem_arena", "enable_mem_pattern"})
CHOICES = {"cudnn_conv_algo_search": 3, "arena_extend_strategy": 2}  # numbers from 0, looked at on a GPU
PARAMETERS = (
    OWN_PARAMETERS
    | NUMBERS
    | SWITCHES
    | set(CHOICES)
    | {
        "do_copy_in_default_stream",
        "gpu_mem_limit",
        "memory.enable_memory_arena_shrinkage",
        "session.use_device_allocator_for_initializers",  # since r25.08
    }
)
# Where a model has any `parameters`, these are taken from there, or their defaults; what an accelerator says is lost.
CUDA_PARAMETERS = frozenset(
    {"cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream"}
)
TENSORRT_PARAMETERS = frozenset(
    {
        "int8_calibration_table_name",
        "int8_use_native_calibration_table",
        "max_workspace_size_bytes",
        "precision_mode",
        "trt_auxiliary_streams",
        "trt_build_heuristics_enable",
        "trt_builder_optimization_level",
        "trt_context_memory_sharing_enable",
        "trt_cuda_graph_enable",
        "trt_detailed_build_log",
        "trt_dla_core",
        "trt_dla_enable",
        "trt_dump_ep_context_model",
        "trt_dump_subgraphs",
        "trt_engine_cache_enable",
        "trt_engine_cache_path",
        "trt_engine_cache_prefix",
        "trt_ep_context_embed_mode",
        "trt_ep_context_file_path",
        "trt_extra_plugin_lib_paths",
        "trt_force_sequential_engine_build",
        "trt_force_timing_cache",
        "trt_layer_norm_fp32_fallback",
        "trt_max_partition_iterations",
        "trt_min_subgraph_size",
        "trt_profile_max_shapes",
        "trt_profile_min_shapes",
        "trt_profile_opt_shapes",
        "trt_sparsity_enable",
        "trt_tactic_sources",
        "trt_timing_cache_enable",
        "trt_timing_cache_path",
    }
)


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph; `datatype` as in model_config.proto, -1 is a free dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """What a graph takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Breach:
    """A broken rule. The backend refuses the model with `words`, or, unless `refused`, ignores what the config says."""

    words: str
    refused: bool = True


def graph_of(session: Any) -> Graph:
    """The graph of an onnxruntime.InferenceSession, as the backend asks for it."""
    return Graph(_tensors(session.get_inputs()), _tensors(session.get_outputs()))


def breaches(config: Config, graph: Graph | None) -> list[Breach]:
    """The rules that a model breaks, in the order in which the backend looks; none without a `graph` (an engine)."""
    if graph is None:
        return []
    return [*_parameters(config), *_accelerators(config), *_inputs(config, graph), *_outputs(config, graph)]


def _tensors(values: Sequence[Any]) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(
            value.name,
            DATATYPES.get(value.type, value.type),
            tuple(side if isinstance(side, int) and side >= 0 else -1 for side in value.shape),
        )
        for value in values
    )


def _parameters(config: Config) -> Iterator[Breach]:
    values = {key: str(entry.get("string_value", "")) for key, entry in config.get("parameters", {}).items()}
    for key in sorted(set(values) - PARAMETERS):
        yield Breach(f"parameter '{key}' has no effect: neither the backend nor the gateway knows it", False)
    numbers = NUMBERS | set(CHOICES) if _on_gpu(config) else NUMBERS
    for key in sorted(numbers & set(values)):
        if not re.match(r"\s*[+-]?\d", values[key]):
            yield Breach(f"failed to convert '{values[key]}' to integral number")
        elif _on_gpu(config) and int(values[key]) not in range(CHOICES.get(key, 1 << 31)):
            yield Breach(f"unsupported {key} value '{values[key]}' is requested")
    for key in sorted(SWITCHES & set(values)):
        if values[key].lower() not in ("true", "on", "1", "false", "off", "0"):
            yield Breach(f"failed to convert '{values[key]}' to boolean")
    mode = values.get("execution_mode", "0")
    if mode not in ("0", "1"):
        expected = "Expected values for  execution_mode are 0 or 1"  # the two blanks are the backend's
        yield Breach(f"Invalid configuration value provided. {expected} but got {mode} .")


def _accelerators(config: Config) -> Iterator[Breach]:
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    if _on_gpu(config):
        for accelerator in accelerators.get("gpu_execution_accelerator", []):
            yield from _gpu_accelerator(accelerator, config)
    for accelerator in accelerators.get("cpu_execution_accelerator", []):
        if accelerator["name"] != "openvino":
            yield Breach(f"unknown Execution Accelerator '{accelerator['name']}' is requested")


def _gpu_accelerator(accelerator: Config, config: Config) -> Iterator[Breach]:
    parameters: Mapping[str, str] = accelerator.get("parameters", {})
    if accelerator["name"] == "tensorrt":
        for key in parameters:
            if key not in TENSORRT_PARAMETERS:
                yield Breach(f"unknown parameter '{key}' is provided for TensorRT Execution Accelerator")
        mode = parameters.get("precision_mode", "FP32")
        if mode not in ("FP32", "FP16", "INT8"):
            yield Breach(f"unsupported precision mode '{mode}' is requested")
    elif accelerator["name"] == "cuda":
        for key in CUDA_PARAMETERS & set(parameters) if config.get("parameters") else ():
            yield Breach(
                f"'{key}' of the accelerator cuda has no effect: it goes into the parameters of the model", False
            )
    else:
        yield Breach(f"unknown Execution Accelerator '{accelerator['name']}' is requested")


def _inputs(config: Config, graph: Graph) -> Iterator[Breach]:
    name, given = config["name"], config.get("input", [])
    expected = sum(not entry.get("optional", False) for entry in given)
    if expected != len(graph.inputs):
        yield Breach(
            f"unable to load model '{name}', configuration expects {expected} inputs, "
            f"model provides {len(graph.inputs)}"
        )
    for entry in given:
        if entry.get("optional", False) and batched(config):
            yield Breach(
                f"unable to load model '{name}', optional input '{entry['name']}' is not supported for models that "
                "support batching"
            )
        yield from _tensor(config, entry, graph.inputs, "input", exact=False)


def _outputs(config: Config, graph: Graph) -> Iterator[Breach]:
    for entry in config.get("output", []):
        yield from _tensor(config, entry, graph.outputs, "output", exact=True)


def _tensor(config: Config, entry: Config, tensors: Sequence[Tensor], kind: str, exact: bool) -> Iterator[Breach]:
    name, found = entry["name"], next((tensor for tensor in tensors if tensor.name == entry["name"]), None)
    datatype = entry["data_type"]
    if found is None:
        there = ", ".join(sorted(tensor.name for tensor in tensors))
        yield Breach(f"unexpected inference {kind} '{name}', allowed {kind}s are: {there}")
    elif datatype not in DATATYPES.values():
        yield Breach(f"unsupported datatype {datatype} for {kind} '{name}' for model '{config['name']}'")
    elif datatype != found.datatype:
        yield Breach(
            f"unable to load model '{config['name']}', configuration expects datatype {datatype} for {kind} '{name}', "
            f"model provides {found.datatype}"
        )
    else:
        yield from _shape(config, entry, found, exact)


def _shape(config: Config, entry: Config, tensor: Tensor, exact: bool) -> Iterator[Breach]:
    dims = [int(side) for side in entry.get("reshape", {}).get("shape", entry.get("dims", []))]
    if not tensor.shape:
        if any(side != 1 for side in dims):
            yield Breach(
                f"unable to load model '{config['name']}', scalar tensor '{tensor.name}', should only provide 1 in the "
                "model configuration when the model doesn't support batching. Model configuration provided: "
                f"{_text(dims)}."
            )
        return
    where = f"model '{config['name']}', tensor '{tensor.name}'"
    whole = [-1, *dims] if batched(config) else dims
    if batched(config) and tensor.shape[0] != -1:
        yield Breach(
            f"{where}: for the model to support batching the shape should have at least 1 dimension and the first "
            f"dimension must be -1; but shape expected by the model is {_text(tensor.shape)}"
        )
    elif len(whole) != len(tensor.shape) or any(
        side != wanted for side, wanted in zip(tensor.shape, whole, strict=True) if exact or side != -1
    ):
        because = (
            "an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape, making "
            f"complete shape {_text(whole)}"
            if batched(config)
            else f"shape {_text(whole)}"
        )
        yield Breach(
            f"{where}: the model expects {len(tensor.shape)} dimensions (shape {_text(tensor.shape)}) but the model "
            f"configuration specifies {len(whole)} dimensions ({because})"
        )


def _on_gpu(config: Config) -> bool:
    return any(group.get("kind") in ("KIND_GPU", "KIND_AUTO") for group in config.get("instance_group", []))


def batched(config: Config) -> bool:
    """Whether a batch dimension, which `dims` does not name, comes before them."""
    return int(config.get("max_batch_size", 0)) > 0


def _text(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
