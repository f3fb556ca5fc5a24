"""What NVIDIA's ONNX Runtime backend refuses, in the words that a build of it used."""

from typing import Any

import pytest

from export.contract import Breach, Graph, Tensor, breaches

IMAGES = Tensor("images", "TYPE_UINT8", (-1, -1, -1, 3))
DETECTIONS = Tensor("detections", "TYPE_FP32", (-1, 1000, 6))
GRAPH = Graph((IMAGES,), (DETECTIONS,))
ONE_IMAGE = Graph((Tensor("images", "TYPE_UINT8", (1, 64, 64, 3)),), (Tensor("detections", "TYPE_FP32", (1, 1000, 6)),))


def config(
    most: int = 4, images: dict[str, Any] | None = None, detections: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "name": "m",
        "max_batch_size": most,
        "input": [{"name": "images", "data_type": "TYPE_UINT8", "dims": ["-1", "-1", "3"], **(images or {})}],
        "output": [{"name": "detections", "data_type": "TYPE_FP32", "dims": ["1000", "6"], **(detections or {})}],
        "parameters": {"imgsz": {"string_value": "640"}, "stride": {"string_value": "32"}},
        "instance_group": [{"kind": "KIND_CPU"}],
        **more,
    }


def parameters(**values: str) -> dict[str, Any]:
    return {"parameters": {key: {"string_value": value} for key, value in values.items()}}


def accelerated(where: str, kind: str, name: str, **values: str) -> dict[str, Any]:
    accelerators = {f"{where}_execution_accelerator": [{"name": name, "parameters": values}]}
    return {"instance_group": [{"kind": kind}], "optimization": {"execution_accelerators": accelerators}}


def told(given: dict[str, Any], graph: Graph | None = GRAPH) -> list[str]:
    return [breach.words for breach in breaches(given, graph)]


@pytest.mark.parametrize(
    ("given", "graph"),
    [
        (config(), GRAPH),
        (config(images={"dims": [64, 96, 3]}), GRAPH),
        (config(0, images={"dims": [1, 64, 64, 3]}, detections={"dims": [1, 1000, 6]}), ONE_IMAGE),
        (config(detections={"dims": [7]}), None),
        (
            config(**accelerated("gpu", "KIND_GPU", "tensorrt", precision_mode="FP16", trt_timing_cache_enable="1")),
            GRAPH,
        ),
        (config(**accelerated("gpu", "KIND_GPU", "cuda", use_tf32="0")), GRAPH),
        (config(**accelerated("gpu", "KIND_CPU", "anything")), GRAPH),
        (config(**accelerated("cpu", "KIND_CPU", "openvino")), GRAPH),
        (config(**parameters(intra_op_thread_count="1", enable_mem_arena="On", execution_mode="1")), GRAPH),
        (config(**parameters(cudnn_conv_algo_search="7")), GRAPH),
    ],
    ids=[
        "free sides",
        "an input narrower than the graph's",
        "one image, named in dims",
        "an engine, which cannot be read here",
        "TensorRT",
        "CUDA",
        "a GPU's accelerator on a CPU",
        "OpenVINO",
        "parameters",
        "a GPU's parameter on a CPU",
    ],
)
def test_what_the_backend_takes(given: dict[str, Any], graph: Graph | None) -> None:
    assert told(given, graph) == []


REFUSED: dict[str, tuple[dict[str, Any], Graph, str]] = {
    "an output that is free in the graph": (
        config(),
        Graph((IMAGES,), (Tensor("detections", "TYPE_FP32", (-1, -1, -1)),)),
        "model 'm', tensor 'detections': the model expects 3 dimensions (shape [-1,-1,-1]) but the model configuration "
        "specifies 3 dimensions (an initial batch dimension because max_batch_size > 0 followed by the explicit tensor "
        "shape, making complete shape [-1,1000,6])",
    ),
    "an output that is free in the config": (
        config(detections={"dims": [-1, 6]}),
        GRAPH,
        "model 'm', tensor 'detections': the model expects 3 dimensions (shape [-1,1000,6]) but the model "
        "configuration specifies 3 dimensions (an initial batch dimension because max_batch_size > 0 followed by the "
        "explicit tensor shape, making complete shape [-1,-1,6])",
    ),
    "an input that contradicts the graph": (
        config(images={"dims": [-1, -1, 4]}),
        GRAPH,
        "model 'm', tensor 'images': the model expects 4 dimensions (shape [-1,-1,-1,3]) but the model configuration "
        "specifies 4 dimensions (an initial batch dimension because max_batch_size > 0 followed by the explicit tensor "
        "shape, making complete shape [-1,-1,-1,4])",
    ),
    "a dimension too many": (
        config(images={"dims": [1, -1, -1, 3]}),
        GRAPH,
        "model 'm', tensor 'images': the model expects 4 dimensions (shape [-1,-1,-1,3]) but the model configuration "
        "specifies 5 dimensions (an initial batch dimension because max_batch_size > 0 followed by the explicit tensor "
        "shape, making complete shape [-1,1,-1,-1,3])",
    ),
    "batches of a graph for one image": (
        config(images={"dims": [64, 64, 3]}),
        ONE_IMAGE,
        "model 'm', tensor 'images': for the model to support batching the shape should have at least 1 dimension and "
        "the first dimension must be -1; but shape expected by the model is [1,64,64,3]",
    ),
    "no batch in dims": (
        config(0, images={"dims": [64, 64, 3]}, detections={"dims": [1, 1000, 6]}),
        ONE_IMAGE,
        "model 'm', tensor 'images': the model expects 4 dimensions (shape [1,64,64,3]) but the model configuration "
        "specifies 3 dimensions (shape [64,64,3])",
    ),
    "another datatype of an input": (
        config(images={"data_type": "TYPE_FP32"}),
        GRAPH,
        "unable to load model 'm', configuration expects datatype TYPE_FP32 for input 'images', "
        "model provides TYPE_UINT8",
    ),
    "another datatype of an output": (
        config(detections={"data_type": "TYPE_FP16"}),
        GRAPH,
        "unable to load model 'm', configuration expects datatype TYPE_FP16 for output 'detections', model provides "
        "TYPE_FP32",
    ),
    "a datatype that the backend has not": (
        config(detections={"data_type": "TYPE_BF16"}),
        GRAPH,
        "unsupported datatype TYPE_BF16 for output 'detections' for model 'm'",
    ),
    "another name of an input": (
        config(images={"name": "image"}),
        GRAPH,
        "unexpected inference input 'image', allowed inputs are: images",
    ),
    "another name of an output": (
        config(detections={"name": "rows"}),
        GRAPH,
        "unexpected inference output 'rows', allowed outputs are: detections",
    ),
    "an input too few": (
        config(),
        Graph((IMAGES, Tensor("size", "TYPE_INT64", (2,))), (DETECTIONS,)),
        "unable to load model 'm', configuration expects 1 inputs, model provides 2",
    ),
    "an optional input": (
        config(
            input=[
                {"name": "images", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]},
                {"name": "images", "data_type": "TYPE_UINT8", "dims": [-1, -1, 3], "optional": True},
            ]
        ),
        GRAPH,
        "unable to load model 'm', optional input 'images' is not supported for models that support batching",
    ),
    "a scalar": (
        config(0, images={"dims": [-1, -1, -1, 3]}, detections={"dims": [1000, 6]}),
        Graph((IMAGES,), (Tensor("detections", "TYPE_FP32", ()),)),
        "unable to load model 'm', scalar tensor 'detections', should only provide 1 in the model configuration when "
        "the model doesn't support batching. Model configuration provided: [1000,6].",
    ),
    "no number": (
        config(**parameters(intra_op_thread_count="many")),
        GRAPH,
        "failed to convert 'many' to integral number",
    ),
    "no switch": (config(**parameters(enable_mem_pattern="si")), GRAPH, "failed to convert 'si' to boolean"),
    "an execution mode": (
        config(**parameters(execution_mode="2")),
        GRAPH,
        "Invalid configuration value provided. Expected values for  execution_mode are 0 or 1 but got 2 .",
    ),
    "a search of CUDA": (
        config(**parameters(cudnn_conv_algo_search="3") | {"instance_group": [{"kind": "KIND_GPU"}]}),
        GRAPH,
        "unsupported cudnn_conv_algo_search value '3' is requested",
    ),
    "a parameter of TensorRT": (
        config(**accelerated("gpu", "KIND_GPU", "tensorrt", trt_fp16_enable="1")),
        GRAPH,
        "unknown parameter 'trt_fp16_enable' is provided for TensorRT Execution Accelerator",
    ),
    "a precision of TensorRT": (
        config(**accelerated("gpu", "KIND_GPU", "tensorrt", precision_mode="BF16")),
        GRAPH,
        "unsupported precision mode 'BF16' is requested",
    ),
    "an accelerator on a GPU": (
        config(**accelerated("gpu", "KIND_GPU", "rocm")),
        GRAPH,
        "unknown Execution Accelerator 'rocm' is requested",
    ),
    "an accelerator on a CPU": (
        config(**accelerated("cpu", "KIND_CPU", "tensorrt")),
        GRAPH,
        "unknown Execution Accelerator 'tensorrt' is requested",
    ),
}


@pytest.mark.parametrize("rule", REFUSED)
def test_what_the_backend_refuses(rule: str) -> None:
    given, graph, words = REFUSED[rule]
    assert Breach(words) in breaches(given, graph)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (parameters(intra_op_threads="1"), "'intra_op_threads' has no effect"),
        (accelerated("gpu", "KIND_GPU", "cuda", gpu_mem_limit="1"), "it goes into the parameters of the model"),
    ],
    ids=["a parameter that nobody knows", "a parameter of CUDA at the wrong place"],
)
def test_what_the_backend_ignores_in_silence_is_told(given: dict[str, Any], words: str) -> None:
    (breach,) = breaches(config(**given), GRAPH)
    assert not breach.refused and words in breach.words
