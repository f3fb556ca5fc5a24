"""One task from image to end."""

import logging
import threading
import time

import numpy as np
import numpy.typing as npt

from gateway import clock
from gateway.errors import GatewayError, ImageExpired, ModelUnavailable
from gateway.queue.common import failure
from gateway.queue.records import TaskRequest
from gateway.queue.task_queue import Claim
from gateway.settings import Settings
from gateway.task import DetectionResult, TaskView, timestamp
from gateway.telemetry import tracing
from gateway.telemetry.metrics import WorkerMetrics
from gateway.triton.client import TritonFailing, TritonUnavailable
from gateway.vision.annotate import annotate, encode
from gateway.worker.pipeline import Pipeline

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 2.0
_LONGEST_FAILING_SECONDS = 30.0


class GivenBack(Exception):
    """The worker stops while the task waits for Triton: another worker is to run it."""


class Processor:
    """Runs tasks; thread-safe. Once `stopping` is set, a task that waits for Triton is given back."""

    def __init__(self, pipeline: Pipeline, settings: Settings, metrics: WorkerMetrics | None = None) -> None:
        self._pipeline, self.places = pipeline, pipeline.places
        self._patience_seconds = settings.triton_patience
        self._tries: dict[str, float] = {}  # when the running try of a task began
        self.metrics = metrics or WorkerMetrics()
        self.stopping = threading.Event()

    def longest_try(self) -> float:
        """Seconds for which a task has been worked on, at most; waiting for Triton to return does not count."""
        return time.monotonic() - min(list(self._tries.values()), default=time.monotonic())

    def process(self, claim: Claim) -> tuple[TaskView, dict[str, bytes]]:
        """Run one task to its end, a result or a failure with a reason; with the annotated pictures by media type.

        Raises GivenBack; any other exception is a defect, and worth another try.
        """
        started_at = clock.now()
        request = claim.request
        pictures: dict[str, bytes] = {}
        try:
            if claim.image is None:
                raise ImageExpired("the image waited for a worker longer than it is kept; send it again")
            result, image = self._detect(claim.task_id, claim.image, request)
            if image is not None:
                begun = clock.now()
                with tracing.step("annotate"):
                    pictures = encode(annotate(image, result))
                result.timings_ms["annotate"] = _milliseconds(begun, clock.now())
        except GatewayError as error:
            view = failure(claim.task_id, error, request)
        else:
            result.timings_ms = {
                "queue": _milliseconds(request.accepted_at, started_at),
                **result.timings_ms,
                "total": _milliseconds(request.accepted_at, clock.now()),
            }
            view = TaskView(task_id=claim.task_id, status="SUCCESS", state="succeeded", result=result)
        finally:
            self._tries.pop(claim.task_id, None)
        view.created_at, view.started_at = timestamp(request.accepted_at), timestamp(started_at)
        if request.batch_id:
            view.batch_id = request.batch_id
        return view, pictures

    def _detect(
        self, task_id: str, image: bytes, request: TaskRequest
    ) -> tuple[DetectionResult, npt.NDArray[np.uint8] | None]:
        """Detect, waiting out an outage of Triton."""
        away_since, failing_since = time.monotonic(), float("inf")
        pause = _FIRST_PAUSE_SECONDS
        while True:
            self._tries[task_id] = time.monotonic()
            try:
                return self._pipeline.detect(image, request)
            except TritonUnavailable as error:
                instant = time.monotonic() + pause
                failing_since = min(failing_since, instant) if isinstance(error, TritonFailing) else float("inf")
                if instant - away_since > self._patience_seconds or instant - failing_since > _LONGEST_FAILING_SECONDS:
                    raise ModelUnavailable(f"{error}; waited {instant - away_since:.0f} s for it") from error
                log.warning("%s; trying again in %.1f s", error, pause)
                reason = error.retry_reason
            self.metrics.retries.labels(reason).inc()
            self._tries.pop(task_id, None)
            if self.stopping.wait(pause):
                raise GivenBack
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _milliseconds(begin: float, end: float) -> float:
    return round(max(end - begin, 0.0) * 1e3, 2)
