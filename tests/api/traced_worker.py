"""A worker as `gateway.worker`, whose Triton is a fake that takes TASK_SECONDS: `python -m tests.api.traced_worker`."""

import os
import signal
import time

import numpy as np
import numpy.typing as npt

from gateway.queue.task_queue import TaskQueue
from gateway.settings import load
from gateway.telemetry import logs, tracing
from gateway.triton.client import Inference
from gateway.triton.shared_memory import Canvas
from gateway.triton.spec import ModelSpec
from gateway.worker.loop import TaskWorker, connect
from gateway.worker.pipeline import Pipeline
from gateway.worker.processor import Processor
from tests.support.fakes import FakeTriton


class SlowTriton(FakeTriton):
    def infer(
        self, spec: ModelSpec, image: npt.NDArray[np.uint8], version: str = "", canvas: Canvas | None = None
    ) -> Inference:
        time.sleep(float(os.environ["TASK_SECONDS"]))
        return super().infer(spec, image, version)


def main() -> None:
    settings = load()
    logs.configure(settings.log_level, settings.log_format, "worker")
    tracing.start("yolo-worker")
    processor = Processor(Pipeline(SlowTriton(), settings), settings)
    worker = TaskWorker(TaskQueue(connect(settings), settings), processor, settings)
    signal.signal(signal.SIGTERM, worker.stop)
    worker.run()
    tracing.stop()


if __name__ == "__main__":
    main()
