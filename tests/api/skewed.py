"""A worker whose host has a wrong clock, as a process: `python -m tests.api.skewed REDIS_URL SECONDS TASK_SECONDS`.

The clock is put wrong before anything of RQ or the gateway is imported. Triton is a fake that takes TASK_SECONDS.
"""

import datetime as datetime_module
import logging
import sys
import time

if __name__ == "__main__":
    _AHEAD, _time = float(sys.argv[2]), time.time
    _real = datetime_module.datetime

    class _Skewed(_real):
        @classmethod
        def now(cls, tz: datetime_module.tzinfo | None = None) -> "_Skewed":
            return cls.fromtimestamp(_time() + _AHEAD, tz)

    time.time = lambda: _time() + _AHEAD
    datetime_module.datetime = _Skewed  # type: ignore[misc]

import signal

import numpy as np
import numpy.typing as npt

from gateway.queue.task_queue import TaskQueue
from gateway.settings import Settings
from gateway.triton.client import Inference
from gateway.triton.shared_memory import Canvas
from gateway.triton.spec import ModelSpec
from gateway.worker.loop import TaskWorker, connect
from gateway.worker.pipeline import Pipeline
from gateway.worker.processor import Processor
from tests.support.fakes import FakeTriton

WORKER_TTL = 2


class SlowTriton(FakeTriton):
    def infer(
        self, spec: ModelSpec, image: npt.NDArray[np.uint8], version: str = "", canvas: Canvas | None = None
    ) -> Inference:
        time.sleep(float(sys.argv[3]))
        return super().infer(spec, image, version)


def main(redis_url: str) -> None:
    logging.basicConfig(level=logging.INFO)
    settings = Settings(redis_url=redis_url, worker_ttl=WORKER_TTL, worker_metrics_port=0)
    processor = Processor(Pipeline(SlowTriton(), settings), settings)
    worker = TaskWorker(TaskQueue(connect(settings), settings), processor, settings)
    signal.signal(signal.SIGTERM, worker.stop)
    worker.run()


if __name__ == "__main__":
    main(sys.argv[1])
