"""config.pbtxt for a device and a format, with a comment for each number."""

import os
from dataclasses import dataclass
from typing import Literal

LEAST_ROWS, MOST_ROWS = 1000, 3840  # an image; TensorRT's TopK takes no more
PLENTY = 25_200  # candidates, of a YOLOv5 at 640; where there are more, crowded pictures need more rows
COLUMNS = 6  # x1, y1, x2, y2, score, class_id

Device = Literal["cpu", "gpu"]
Format = Literal["onnx", "tensorrt"]
Precision = Literal["fp32", "fp16"]
Optimize = Literal["tensorrt", "cuda"]

# Where Triton's container has its volume for engines (docker/triton-gpu.sh).
ENGINES = "/tmp/tensorrt-cache"
CAST = "images_cast"  # the tensor behind the graph's first cast


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How a model is to be served. None: the device's default. Sizes in pixels, `delay_us` in microseconds.

    `rows` is how many candidates of an image the model answers. `imgsz` is the longer side, `sides_hw` height and width
    of an input that is neither square nor free. `one_image`: the graph takes a batch of exactly one.
    """

    name: str
    imgsz: int
    stride: int
    square: bool
    rows: int = LEAST_ROWS
    sides_hw: tuple[int, int] | None = None
    device: Device = "cpu"
    format: Format = "onnx"
    precision: Precision = "fp32"
    batch: int | None = None
    one_image: bool = False
    instances: int | None = None
    delay_us: int | None = None
    optimize: Optimize = "tensorrt"  # by what ONNX Runtime computes on a GPU

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the input, the largest unless it is `fixed`."""
        return self.sides_hw or (self.imgsz, self.imgsz)

    @property
    def fixed(self) -> bool:
        return self.square or self.sides_hw is not None

    @property
    def max_batch(self) -> int:
        return 1 if self.one_image else self.batch or {"cpu": 4, "gpu": 16}[self.device]

    @property
    def instance_count(self) -> int:
        return self.instances or (cores() if self.device == "cpu" else 2)

    @property
    def delay(self) -> int:
        return self.delay_us if self.delay_us is not None else {"cpu": 0, "gpu": 1000}[self.device]

    @property
    def file_name(self) -> str:
        return "model.plan" if self.format == "tensorrt" else "model.onnx"

    @property
    def provider(self) -> Optimize | None:
        """By what ONNX Runtime computes, on a GPU."""
        return self.optimize if self.device == "gpu" and self.format == "onnx" else None

    @property
    def profile(self) -> dict[str, str]:
        """The input's shapes for which TensorRT plans: the least, the one that it tunes for, the largest.

        One profile, tuned for the largest batch, since that is what forms under load. A second one for a batch of one
        would double an engine's memory and the time of its build; `make gpu-check` shows what a lone request takes.
        Empty for a graph without a free dimension, for which there is nothing to plan.
        """
        if self.one_image:
            return {}
        sizes = {"min": 1, "opt": self.max_batch, "max": self.max_batch}
        height, width = self.size_hw
        return {kind: f"{size}x{height}x{width}x3" for kind, size in sizes.items()}


def rows_of(candidates: float) -> int:
    """How many of an image's candidates go to NMS: 1000 of as many as a YOLOv5 at 640 has, in proportion of more.

    docs/export.md has the measurement.
    """
    return min(MOST_ROWS, max(LEAST_ROWS, round(LEAST_ROWS * candidates / PLENTY)))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def config_pbtxt(serving: Serving, graph: str = "", version: int = 1) -> str:
    """The text of config.pbtxt for one version, which alone it serves, with the labels of that version's folder.

    `graph` is the digest of the ONNX file, by which its TensorRT engines are kept.
    """
    blocks = [_header(serving, version), _tensors(serving, version)]
    if not serving.one_image:
        blocks.append(_batching(serving))
    blocks += [_instances(serving), _parameters(serving)]
    if serving.device == "gpu":
        blocks.append(_warm_up(serving))
    if serving.provider == "tensorrt":
        blocks.append(_accelerator(serving, graph))
    return "\n".join(blocks)


def _header(serving: Serving, version: int) -> str:
    engine = 'platform: "tensorrt_plan"' if serving.format == "tensorrt" else 'backend: "onnxruntime"'
    said, size = (
        ("The graph takes one image exactly, so the batch is in `dims`.", 0)
        if serving.one_image
        else ("Largest batch that Triton forms of single images (BATCH=).", serving.max_batch)
    )
    return f"""\
# Written by `make export-model`; the next export writes it again.
name: "{serving.name}"
{engine}
# The version in use; it keeps its own labels and config in its folder (USE=, ROLLBACK=1).
version_policy: {{ specific: {{ versions: [ {version} ] }} }}
# {said}
max_batch_size: {size}
"""


def _tensors(serving: Serving, version: int) -> str:
    (height, width), batch = serving.size_hw, "1, " if serving.one_image else ""
    dims, said = (
        (
            f"{height}, {width}",
            f"Fixed letterbox: every image is padded to a height of {height} and a width of {width}.",
        )
        if serving.fixed
        else ("-1, -1", f"Least padding: the longer side is {width}, both sides are multiples of the stride.")
    )
    return f"""\
input [
  {{
    # Height, width, RGB; normalised inside the graph.
    # {said}
    name: "images"
    data_type: TYPE_UINT8
    dims: [ {batch}{dims}, 3 ]
  }}
]
output [
  {{
    # Best rows before NMS, best first: x1, y1, x2, y2 in input pixels, score, class_id. Rows beyond the last are zero.
    name: "detections"
    data_type: TYPE_FP32
    dims: [ {batch}{serving.rows}, {COLUMNS} ]
    label_filename: "{version}/labels.txt"
  }}
]
"""


def _batching(serving: Serving) -> str:
    if serving.device == "cpu" and not serving.fixed and not serving.delay:
        return """\
dynamic_batching {
  # Images of one shape that wait go together at once: a batch of a preferred size or more is sent when its delay is
  # over. With a delay of 0 Triton's batcher spins, and burns a core, while images of another shape wait (DELAY_US=).
  preferred_batch_size: [ 1 ]
  max_queue_delay_microseconds: 1
}
"""
    if serving.device == "cpu":
        return f"""\
dynamic_batching {{
  # How long the first request of a batch waits for others (DELAY_US=). Waiting gains nothing on a CPU.
  max_queue_delay_microseconds: {serving.delay}
}}
"""
    return f"""\
dynamic_batching {{
  # How long the first request of a batch waits for others (DELAY_US=). A GPU earns it back with a fuller batch.
  max_queue_delay_microseconds: {serving.delay}
  default_queue_policy {{
    # A request that waited 10 s is refused; the worker that sent it asks again. The queue's length has no bound of its
    # own: it is that of the workers' tasks, and Triton counts it for all GPUs together.
    timeout_action: REJECT
    default_timeout_microseconds: 10000000
    allow_timeout_override: true
  }}
}}
"""


def _instances(serving: Serving) -> str:
    said = {
        "cpu": "One instance a core, with one thread each: the fastest measured (INSTANCES=).",
        "gpu": "While one instance computes, another copies (INSTANCES=).",
    }[serving.device]
    return f"""\
instance_group [
  {{
    # {said}
    kind: KIND_{serving.device.upper()}
    count: {serving.instance_count}
  }}
]
"""


def _parameters(serving: Serving) -> str:
    rows = [
        ("imgsz", str(serving.imgsz), "Longer side of the letterboxed image, pixels."),
        ("stride", str(serving.stride), "Sides of the input are multiples of it."),
    ]
    if serving.device == "cpu":
        rows.append(("intra_op_thread_count", "1", "Threads of an instance."))
    if serving.provider == "cuda":
        # Read by Triton's backend from here alone (`src/onnxruntime.cc`, LoadModel): what the accelerator cuda says
        # is overwritten where a model has any parameters.
        said = "cuDNN plans each convolution anew for each batch size: by its heuristic (1), not by trying all (0)."
        rows.append(("cudnn_conv_algo_search", "1", said))
    return (
        "\n".join(
            f'# {said}\nparameters {{ key: "{key}" value: {{ string_value: "{value}" }} }}' for key, value, said in rows
        )
        + "\n"
    )


def _warm_up(serving: Serving) -> str:
    sizes, batch = sorted({1, serving.max_batch}), "1, " if serving.one_image else ""
    height, width = serving.size_hw
    return (
        "# The first inference of a size is slow: made before the model is said to be ready.\n"
        + "\n".join(
            f"""\
model_warmup [
  {{
    name: "batch of {size}"
    batch_size: {size}
    inputs {{
      key: "images"
      value: {{ data_type: TYPE_UINT8 dims: [ {batch}{height}, {width}, 3 ] random_data: true }}
    }}
  }}
]"""
            for size in sizes
        )
        + "\n"
    )


def _accelerator(serving: Serving, graph: str) -> str:
    """The block for ONNX Runtime's TensorRT provider.

    Its options: https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html. What Triton passes on:
    `src/onnxruntime.cc` of its onnxruntime_backend, r24.10 and r25.08 (`export/contract.py` lists them).
    """
    profile = "\n".join(
        # The provider may leave the cast to CUDA; then its own input is the cast's output. A name too many is ignored.
        f'        parameters {{ key: "trt_profile_{kind}_shapes" value: "images:{shape},{CAST}:{shape}" }}'
        for kind, shape in serving.profile.items()
    )
    return f"""\
# ONNX Runtime hands the graph to TensorRT (OPTIMIZE=). The first load builds the engine, which takes minutes.
optimization {{
  execution_accelerators {{
    gpu_execution_accelerator [
      {{
        name: "tensorrt"
        parameters {{ key: "precision_mode" value: "{serving.precision.upper()}" }}
        # One profile for every batch: the engine is built when the model is loaded, and never again for a new size.
{profile}
        # The engine is kept for the next start. By its own name ONNX Runtime would take it for any model with the same
        # layers, whatever the weights; the prefix is of this export.
        parameters {{ key: "trt_engine_cache_enable" value: "true" }}
        parameters {{ key: "trt_engine_cache_path" value: "{ENGINES}" }}
        parameters {{ key: "trt_engine_cache_prefix" value: "{serving.name}-{graph[:16]}" }}
        # What was measured for one engine serves the next.
        parameters {{ key: "trt_timing_cache_enable" value: "true" }}
        parameters {{ key: "trt_timing_cache_path" value: "{ENGINES}" }}
        # The instances build one after the other: the second one then finds the engine of the first.
        parameters {{ key: "trt_force_sequential_engine_build" value: "true" }}
      }}
    ]
  }}
}}
"""
