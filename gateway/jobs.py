"""The RQ job: one task from image to stored end. Runs in the worker process, enqueued by name."""

import logging
import time

from gateway.detections import DetectionResult, TaskView
from gateway.errors import GatewayError, ImageExpired, ModelUnavailable
from gateway.pipeline import Pipeline
from gateway.queue import TaskQueue, failure
from gateway.settings import Settings
from gateway.triton import TritonUnavailable

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0


class Processor:
    """Ends a task in a result or a failure with a reason; any other exception is a defect, and RQ's to retry."""

    def __init__(self, queue: TaskQueue, pipeline: Pipeline, settings: Settings) -> None:
        self._queue = queue
        self._pipeline = pipeline
        self._settings = settings

    def process(self, task_id: str, model: str, accepted_at: float) -> None:
        """Detect, and store the end. `accepted_at` is the time of the upload, seconds since the epoch."""
        started_at = time.time()
        image = self._queue.image(task_id)
        if image is None and self._queue.has_ended(task_id):
            return  # the worker before this one died after it stored the end
        try:
            if image is None:
                raise ImageExpired("the image waited for a worker longer than it is kept; send it again")
            result = self._detect(image, model)
        except GatewayError as error:
            log.info("task %s failed: %s: %s", task_id, error.code, error)
            self._queue.finish(failure(task_id, error))
            return
        ended_at = time.time()
        result.timings_ms = {
            "queue": _milliseconds(accepted_at, started_at),
            **result.timings_ms,
            "total": _milliseconds(accepted_at, ended_at),
        }
        self._queue.finish(TaskView(task_id, "SUCCESS", result))

    def _detect(self, image: bytes, model: str) -> DetectionResult:
        """Detect, waiting out an outage of Triton."""
        give_up_at = time.monotonic() + self._settings.triton_patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._pipeline.detect(image, model)
            except TritonUnavailable as error:
                if time.monotonic() + pause > give_up_at:
                    raise ModelUnavailable(f"{error}; waited {self._settings.triton_patience:g} s") from error
                log.warning("%s; trying again in %.1f s", error, pause)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


processor: Processor | None = None
"""Set once by the worker process before it takes its first job."""


def predict(task_id: str, model: str, accepted_at: float) -> None:
    """What RQ calls; see `Processor.process`."""
    assert processor is not None, "gateway.jobs.predict runs in gateway.worker only"
    processor.process(task_id, model, accepted_at)


def _milliseconds(begin: float, end: float) -> float:
    return round(max(end - begin, 0.0) * 1e3, 2)
