"""What Triton says of a model, and what the model did when it was tried: the material of every check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.utils import triton_to_np_dtype

CPU = "KIND_CPU"
GPU = "KIND_GPU"
DEFAULT_SIDE = 640


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input or output. `shape` is what clients send or get, with the batch in front where there is one; -1: any."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    label_file: str = ""
    optional: bool = False

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """None for what numpy has no fixed size for (BYTES, BF16)."""
        kind = triton_to_np_dtype(self.datatype)
        return None if kind is None or self.datatype in ("BYTES", "BF16") else np.dtype(kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """The block `dynamic_batching`; the delay in microseconds."""

    delay_us: int = 0
    preferred: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A served model. `instances` are counts by kind; `threads` is the parameter intra_op_thread_count."""

    name: str
    engine: str
    max_batch_size: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batching: Batching | None = None
    scheduler: str = ""
    instances: dict[str, int]
    threads: int | None = None
    side: int = DEFAULT_SIDE
    warm_up: bool = False

    @property
    def on_gpu(self) -> bool:
        return GPU in self.instances

    @property
    def is_ours(self) -> bool:
        """Whether `make export-model` wrote it, by the names of its tensors."""
        return {tensor.name for tensor in (*self.inputs, *self.outputs)} == {"images", "detections"}

    @property
    def image(self) -> Tensor | None:
        """The input that takes pictures: three dimensions besides the batch, of which one is the channels."""
        return next((tensor for tensor in self.inputs if len(self.picture(tensor)) == 3), None)

    def picture(self, tensor: Tensor) -> tuple[int, ...]:
        """The tensor's dimensions without the batch if they can be a picture's, otherwise nothing."""
        shape = tensor.shape[1:] if self.batched(tensor) else tensor.shape
        return shape if len(shape) == 3 and {shape[0], shape[-1]} & {1, 3} else ()

    def batched(self, tensor: Tensor) -> bool:
        """Whether the first dimension counts images; with max_batch_size 0 only four dimensions of a picture do."""
        return self.max_batch_size > 0 or len(tensor.shape) == 4

    def trial_shape(self, tensor: Tensor, images: int) -> tuple[int, ...]:
        """A shape to try the tensor with: free sides of a picture take the model's size, other free ones 1."""
        rest = tensor.shape[1:] if self.batched(tensor) else tensor.shape
        free = self.side if self.picture(tensor) else 1
        filled = tuple(free if size < 0 else size for size in rest)
        if not self.batched(tensor):
            return filled
        fixed = self.max_batch_size == 0 and tensor.shape[0] > 0
        return (tensor.shape[0] if fixed else images, *filled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Triton's statistics of one version; `queue_ms` is the sum over all requests."""

    images: int = 0
    executions: int = 0
    requests: int = 0
    queue_ms: float = 0

    def since(self, before: Counts) -> Counts:
        return Counts(
            images=self.images - before.images,
            executions=self.executions - before.executions,
            requests=self.requests - before.requests,
            queue_ms=self.queue_ms - before.queue_ms,
        )

    @property
    def together(self) -> float:
        """Images in one execution, on average."""
        return self.images / self.executions if self.executions else 0.0

    @property
    def mean_queue_ms(self) -> float:
        return self.queue_ms / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Many requests at once: how many were sent, how many of them failed, and what Triton counted meanwhile."""

    sent: int
    at_once: int
    seconds: float
    counts: Counts
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a model did. `refused`: why a plain request failed; `pair_refused`: the same for two images in one request.

    `first_ms` is None unless the request was the first that the model ever had; `labels` is None where nobody asked.
    """

    version: str = ""
    before: Counts = Counts()
    refused: str = ""
    first_ms: float | None = None
    later_ms: float = 0
    pair_tried: bool = False
    pair_refused: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    labels: int | None = None
    load: Load | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where Triton runs. `cores` is None when that is another machine; `gpus` when the metrics do not tell."""

    cores: int | None = None
    gpus: int | None = None
