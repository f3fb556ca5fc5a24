"""Encoded bytes → DetectionResult. The only place where the steps meet; each step is timed."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from gateway.errors import ModelMismatch
from gateway.queue.records import TaskRequest
from gateway.settings import Settings
from gateway.task import Box, Detection, DetectionResult, ImageSize, ServedModel
from gateway.telemetry import tracing
from gateway.telemetry.metrics import WorkerMetrics
from gateway.triton.client import Inference
from gateway.triton.shared_memory import Canvas
from gateway.triton.spec import ModelSpec
from gateway.vision.annotate import resized
from gateway.vision.decode import decode_with_warnings, peak_bytes, reduction, upright_hw
from gateway.vision.header import ImageHeader, probe
from gateway.vision.letterbox import Placement, letterbox
from gateway.vision.nms import nms
from gateway.worker.memory import Memory
from gateway.worker.places import Places

_LARGE_SHARE = 4  # a picture is large if four like it fill the memory for decoding


class Inferer(Protocol):
    """What the pipeline needs of Triton; `gateway.triton.client.TritonClient` is the real one."""

    def spec(self, model: str, version: str = "") -> ModelSpec: ...

    def canvas(self, spec: ModelSpec) -> AbstractContextManager[Canvas]: ...

    def infer(
        self, spec: ModelSpec, image: npt.NDArray[np.uint8], version: str = "", canvas: Canvas | None = None
    ) -> Inference: ...


class Timings(dict[str, float]):
    """Milliseconds per step, in the order of the steps."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            with tracing.step(name):
                yield
        finally:
            self[name] = round((time.perf_counter() - begun) * 1e3, 2)


class _Prepared(NamedTuple):
    """What Triton is asked about, which is another task's once it has answered, and what is kept for afterwards."""

    image: npt.NDArray[np.uint8]
    placement: Placement
    warnings: list[str]
    kept: npt.NDArray[np.uint8] | None


class Pipeline:
    """Detects objects in one image at a time."""

    def __init__(self, inferer: Inferer, settings: Settings, metrics: WorkerMetrics | None = None) -> None:
        self._inferer = inferer
        self._settings = settings
        metrics = metrics or WorkerMetrics()
        metrics.decoding_limit.set(settings.max_decoding_bytes)
        self._memory = Memory(settings.max_decoding_bytes, metrics.decoding.inc)
        self.places = Places(settings.worker_tasks)

    def detect(self, data: bytes, request: TaskRequest) -> tuple[DetectionResult, npt.NDArray[np.uint8] | None]:
        """Detect the objects in an encoded image; returns the result and, if `annotate` asks for it, the image to
        draw into.

        `timings_ms` of the result has the steps decode, letterbox, triton and nms, and Triton's own means; boxes are in
        pixels of the upright source image. Raises TaskFailed's subclasses, and TritonUnavailable in an outage.
        """
        limits, timings = self._settings, Timings()
        header = probe(data, max_pixels=limits.max_image_pixels, max_side=limits.max_image_side)
        spec = self._inferer.spec(request.model, request.version)
        with self._inferer.canvas(spec) as canvas:
            prepared = self._prepared(data, header, spec, request.annotate, canvas, timings)
            with timings.step("triton"):
                candidates, spec, parts_ms = self._inferer.infer(spec, prepared.image, request.version, canvas)
        timings |= parts_ms
        with timings.step("nms"):
            rows = nms(
                candidates,
                confidence=request.confidence,
                iou=request.iou,
                max_detections=request.max_detections,
                classes=wanted_ids(request, spec),
                agnostic=request.agnostic_nms,
            )
            boxes_xyxy_source = prepared.placement.to_source(rows[:, :4])
        height, width = prepared.placement.source_hw
        result = DetectionResult(
            model=ServedModel(spec.name, spec.version),
            image=ImageSize(width, height),
            detections=_detections(boxes_xyxy_source, rows[:, 4], _class_ids(rows, spec), spec.labels),
            timings_ms=timings,
            warnings=prepared.warnings,
        )
        return result, prepared.kept

    def _prepared(
        self, data: bytes, header: ImageHeader, spec: ModelSpec, annotate: bool, canvas: Canvas, timings: Timings
    ) -> _Prepared:
        reduced = 1 if annotate else reduction(header, max(spec.size_hw))
        size = peak_bytes(header, len(data))
        if size > self._settings.max_decoding_bytes / _LARGE_SHARE:
            self.places.leave_to_others()
        with self._memory.taken(size):
            with timings.step("decode"):
                image, warnings = decode_with_warnings(data, reduced)
            source_hw = upright_hw(header, image, reduced)
            with timings.step("letterbox"):
                letterboxed, placement = letterbox(
                    image,
                    size_hw=spec.size_hw,
                    stride=spec.stride,
                    fixed=spec.fixed,
                    source_hw=source_hw,
                    canvas=canvas,
                )
            return _Prepared(letterboxed, placement, warnings, resized(image) if annotate else None)


def wanted_ids(request: TaskRequest, spec: ModelSpec) -> frozenset[int] | None:
    """The ids of the wanted classes in the version that answered; None means all. Raises ModelMismatch."""
    if request.classes is None or request.labels is None:
        return None if request.classes is None else frozenset(request.classes)
    ids = set()
    for index, label in zip(request.classes, request.labels, strict=True):
        if spec.labels[index : index + 1] != (label,):
            if label not in spec.labels:
                raise ModelMismatch(
                    f"classes={label}: version {spec.version} of {spec.name}, which answers now, "
                    "has no such class; see GET /models"
                )
            index = spec.labels.index(label)
        ids.add(index)
    return frozenset(ids)


def _class_ids(rows: npt.NDArray[np.float32], spec: ModelSpec) -> npt.NDArray[np.int_]:
    """Raises ModelMismatch for a class without a label."""
    ids = rows[:, 5].astype(int)
    if unknown := [index for index in ids.tolist() if not 0 <= index < len(spec.labels)]:
        raise ModelMismatch(
            f"version {spec.version} of {spec.name} finds class {unknown[0]}, and has {len(spec.labels)} labels; "
            "export it again"
        )
    return ids


def _detections(
    boxes_xyxy: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    class_ids: npt.NDArray[np.int_],
    labels: tuple[str, ...],
) -> list[Detection]:
    return [
        Detection(labels[class_id], class_id, round(score, 4), Box(*(round(side, 2) for side in box)))
        for box, score, class_id in zip(boxes_xyxy.tolist(), scores.tolist(), class_ids.tolist(), strict=True)
    ]
