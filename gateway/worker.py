"""The worker process: `python -m gateway.worker`. Takes tasks from one RQ queue, one at a time."""

import logging
import sys
import threading
import time
from typing import Any

import redis
from rq import SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer

from gateway import jobs
from gateway.errors import InternalError
from gateway.pipeline import Pipeline
from gateway.queue import TaskQueue, failure
from gateway.settings import Settings, SettingsError, load
from gateway.triton import TritonClient

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5
WORKER_TTL_SECONDS = 30
MAINTENANCE_SECONDS = 15


class TaskWorker(SimpleWorker):
    """RQ's SimpleWorker with a heartbeat of its own and a stored failure for every task that RQ gives up."""

    def __init__(self, queue: TaskQueue, connection: "redis.Redis") -> None:
        super().__init__(
            [queue.rq],  # one queue: RQ recovers a lost dequeue only then
            connection=connection,
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL_SECONDS,
            maintenance_interval=MAINTENANCE_SECONDS,
            exception_handlers=[self._store_failure],
            log_job_description=False,
        )
        self._tasks = queue
        self._ending = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        super().bootstrap(*args, **kwargs)
        self._heart.start()

    def teardown(self) -> None:
        self._ending.set()
        self._heart.join()
        super().teardown()  # type: ignore[no-untyped-call]

    def _beat(self) -> None:
        """Keep this worker's record fresh, also during a long job; the gateway's readiness reads it."""
        while not self._ending.wait(HEARTBEAT_SECONDS):
            try:
                self.heartbeat()
            except redis.RedisError as error:
                log.warning("heartbeat not written: %s", error)

    def _store_failure(self, job: Job, *exc_info: object) -> bool:
        if not job.should_retry:
            detail = "the task met a defect of this service on every try; the worker's log has the traceback"
            self._tasks.finish(failure(job.id, InternalError(detail)))
        return True


def connect(settings: Settings) -> "redis.Redis":
    """Wait for Redis, for as long as it takes."""
    connection = redis.Redis.from_url(settings.redis_url)
    while True:
        try:
            connection.ping()
            return connection
        except redis.RedisError as error:
            log.warning("waiting for Redis at %s: %s", settings.redis_url.rpartition("@")[2], error)
            time.sleep(1)


def main() -> int:
    try:
        settings = load()
    except SettingsError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("rq").setLevel(logging.WARNING)
    connection = connect(settings)
    queue = TaskQueue(connection, settings)
    inferer = TritonClient(settings.triton_url, settings.triton_timeout)
    jobs.processor = jobs.Processor(queue, Pipeline(inferer, settings), settings)
    worker = TaskWorker(queue, connection)
    worker.work(logging_level="WARNING")
    return 0


if __name__ == "__main__":
    sys.exit(main())
