import re
from dataclasses import replace
from pathlib import Path

import pytest

from export.config import ENGINES, Optimize, Serving, config_pbtxt, rows_of
from export.contract import Graph, Tensor, breaches
from export.declared import as_json, parse

TRACKED = Path(__file__).parents[2] / "model_repository" / "yolov5n"
GPU = Serving(name="helmets", imgsz=640, stride=32, square=True, device="gpu")


def test_the_tracked_config_is_what_the_command_writes() -> None:
    """But for the count of instances, one a core of the machine that exports."""
    tracked = (TRACKED / "config.pbtxt").read_text()
    found = re.search(r"count: (\d+)", tracked)
    assert found is not None
    default = Serving(name="yolov5n", imgsz=640, stride=32, square=False, instances=int(found[1]))
    assert config_pbtxt(default) == tracked


def test_the_default_on_a_cpu_is_an_instance_a_core_with_one_thread() -> None:
    config = parse(config_pbtxt(Serving(name="yolov5n", imgsz=640, stride=32, square=False)))
    assert config.backend == "onnxruntime"
    assert list(config.input[0].dims) == [-1, -1, 3]
    assert config.instance_group[0].count >= 1
    assert config.parameters["intra_op_thread_count"].string_value == "1"


def test_free_sides_on_a_cpu_keep_the_batcher_from_spinning() -> None:
    batching = parse(config_pbtxt(Serving(name="a", imgsz=640, stride=32, square=False))).dynamic_batching
    assert (list(batching.preferred_batch_size), batching.max_queue_delay_microseconds) == ([1], 1)
    square = parse(config_pbtxt(Serving(name="a", imgsz=640, stride=32, square=True))).dynamic_batching
    assert (list(square.preferred_batch_size), square.max_queue_delay_microseconds) == ([], 0)
    waiting = parse(config_pbtxt(Serving(name="a", imgsz=640, stride=32, square=False, delay_us=500))).dynamic_batching
    assert (list(waiting.preferred_batch_size), waiting.max_queue_delay_microseconds) == ([], 500)


def test_a_square_input_has_fixed_sides() -> None:
    config = parse(config_pbtxt(Serving(name="a", imgsz=320, stride=32, square=True)))
    assert list(config.input[0].dims) == [320, 320, 3]
    assert config.parameters["imgsz"].string_value == "320"


def test_on_a_gpu_requests_do_not_wait_for_ever_and_batches_are_warm() -> None:
    config = parse(config_pbtxt(GPU))
    policy = config.dynamic_batching.default_queue_policy
    assert config.max_batch_size == 16
    assert config.dynamic_batching.max_queue_delay_microseconds == 1000
    assert policy.max_queue_size == 0 and policy.default_timeout_microseconds > 0  # any number of GPUs
    assert [entry.batch_size for entry in config.model_warmup] == [1, 16]
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU


def test_every_number_can_be_given() -> None:
    given = Serving(name="a", imgsz=640, stride=64, square=True, device="gpu", batch=1, instances=5, delay_us=70)
    config = parse(config_pbtxt(given))
    assert (config.max_batch_size, config.instance_group[0].count) == (1, 5)
    assert config.dynamic_batching.max_queue_delay_microseconds == 70
    assert [entry.batch_size for entry in config.model_warmup] == [1]


def test_an_engine_has_the_platform_of_tensorrt() -> None:
    engine = Serving(name="a", imgsz=640, stride=32, square=True, device="gpu", format="tensorrt")
    assert parse(config_pbtxt(engine)).platform == "tensorrt_plan"
    assert engine.file_name == "model.plan"


@pytest.mark.parametrize(("precision", "mode"), [("fp16", "FP16"), ("fp32", "FP32")])
def test_onnx_on_a_gpu_uses_tensorrt(precision: str, mode: str) -> None:
    serving = Serving(
        name="a",
        imgsz=640,
        stride=32,
        square=True,
        device="gpu",
        precision="fp16" if precision == "fp16" else "fp32",
    )
    accelerator = parse(config_pbtxt(serving)).optimization.execution_accelerators.gpu_execution_accelerator[0]
    assert accelerator.name == "tensorrt"
    given = accelerator.parameters
    assert given["precision_mode"] == mode
    assert given["trt_engine_cache_enable"] == given["trt_timing_cache_enable"] == "true"
    assert given["trt_engine_cache_path"] == given["trt_timing_cache_path"] == ENGINES
    assert given["trt_force_sequential_engine_build"] == "true"
    batches = {kind: given[f"trt_profile_{kind}_shapes"] for kind in ("min", "opt", "max")}
    shape = "images:{0}x640x640x3,images_cast:{0}x640x640x3"
    assert batches == {"min": shape.format(1), "opt": shape.format(16), "max": shape.format(16)}


def test_cuda_plans_its_convolutions_by_a_heuristic() -> None:
    config = parse(config_pbtxt(replace(GPU, optimize="cuda")))
    assert not config.HasField("optimization")
    assert config.parameters["cudnn_conv_algo_search"].string_value == "1"
    assert "cudnn_conv_algo_search" not in parse(config_pbtxt(GPU)).parameters


@pytest.mark.parametrize("optimize", ["tensorrt", "cuda"])
@pytest.mark.parametrize("one_image", [False, True], ids=["batches", "one image"])
def test_what_is_written_for_a_gpu_keeps_the_contract(optimize: Optimize, one_image: bool) -> None:
    first = 1 if one_image else -1
    graph = Graph(
        (Tensor("images", "TYPE_UINT8", (first, 640, 640, 3)),), (Tensor("detections", "TYPE_FP32", (first, 1000, 6)),)
    )
    text = config_pbtxt(replace(GPU, optimize=optimize, one_image=one_image), "1" * 64)
    assert breaches(as_json(text), graph) == []
    assert ("trt_profile" in text) == (optimize == "tensorrt" and not one_image)


def test_engines_of_other_weights_are_not_taken_from_the_cache() -> None:
    """ONNX Runtime names an engine by the model's file name and layers, which a newly trained version shares."""
    serving = Serving(name="a", imgsz=640, stride=32, square=True, device="gpu")
    configs = [parse(config_pbtxt(serving, graph)) for graph in ("1" * 64, "2" * 64)]
    accelerators = [each.optimization.execution_accelerators.gpu_execution_accelerator[0] for each in configs]
    prefixes = [each.parameters["trt_engine_cache_prefix"] for each in accelerators]
    assert prefixes == ["a-" + "1" * 16, "a-" + "2" * 16]


def test_a_fixed_input_need_not_be_square() -> None:
    serving = Serving(name="a", imgsz=640, stride=32, square=True, sides_hw=(320, 640), device="gpu", batch=2)
    config = parse(config_pbtxt(serving))
    assert list(config.input[0].dims) == [320, 640, 3]
    assert config.parameters["imgsz"].string_value == "640"
    assert all(list(warm.inputs["images"].dims) == [320, 640, 3] for warm in config.model_warmup)
    assert serving.profile == {"min": "1x320x640x3", "opt": "2x320x640x3", "max": "2x320x640x3"}


@pytest.mark.parametrize(
    ("candidates", "rows"),
    [(2100, 1000), (25_200, 1000), (50_400, 2000), (102_000, 3840), (1e6, 3840)],
    ids=["YOLOv5u at 320", "YOLOv5 at 640", "twice as many", "YOLOv5 at 1280", "P2"],
)
def test_more_candidates_have_more_rows_up_to_what_tensorrt_takes(candidates: float, rows: int) -> None:
    assert rows_of(candidates) == rows


def test_each_number_has_its_comment() -> None:
    lines = config_pbtxt(GPU).splitlines()
    for key in ("max_batch_size", "max_queue_delay", "timeout_action", "kind:"):
        at = next(i for i, line in enumerate(lines) if key in line)
        assert lines[at - 1].strip().startswith("#"), key
