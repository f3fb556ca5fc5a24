"""The worker process: `python -m gateway.worker`. Takes tasks from one RQ queue, a few at a time.

RQ keeps the books (registries, retries, worker records), so that whatever dies is found and its task run again; the
loop is ours. RQ's own SimpleWorker runs one job at a time with about 20 Redis round trips; this one needs four:

1. BLMOVE          the task id moves from the queue to RQ's intermediate queue
2. read            job, image, and whether the task has ended already
3. begin           the task is STARTED, its execution registered, the id leaves the intermediate queue
4. finish          result stored, image and job removed, the end published: one transaction

A worker that dies is noticed when its executions' heartbeats stop (`worker_ttl`), an id lost between 1 and 3 when two
rounds of maintenance have seen it. When Redis dies, what was worked out is held until it answers again.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import FrameType
from typing import TypeVar

import redis
from rq import SimpleWorker
from rq.exceptions import AbandonedJobError
from rq.executions import Execution
from rq.job import Job
from rq.registry import clean_registries
from rq.serializers import JSONSerializer
from rq.utils import now
from rq.worker_registration import clean_worker_registry, register

from gateway import logs, scrape
from gateway.allocation import give_back_large_blocks
from gateway.detections import DetectionResult, Problem, TaskView
from gateway.errors import GatewayError, InternalError, WorkerLost
from gateway.jobs import GivenBack, Processor
from gateway.maintenance import Maintenance
from gateway.pipeline import Pipeline
from gateway.queue import Claim, TaskQueue, failure
from gateway.settings import Settings, SettingsError, load
from gateway.triton import TritonClient

_T = TypeVar("_T")

log = logging.getLogger("gateway.worker")

_DEQUEUE_SECONDS = 1  # also the longest time until a signal is heeded
_RECONNECT_SECONDS = 1
_HOLD_SECONDS, _HOLD_STOPPING_SECONDS = 300, 10  # how long an end is held for a Redis that is away
_AWAY = (redis.ConnectionError, redis.TimeoutError, redis.ResponseError)  # the last one: loading, full, read-only


class TaskWorker(SimpleWorker):
    """An RQ worker that runs `settings.worker_tasks` tasks at a time in threads and survives Redis restarts."""

    def __init__(
        self,
        queue: TaskQueue,
        processor: Processor,
        settings: Settings,
        metrics_port: scrape.WorkerPort | None = None,
    ) -> None:
        super().__init__(
            [queue.rq],  # one queue: RQ recovers a lost dequeue only then
            connection=queue.connection,
            serializer=JSONSerializer,
            exception_handlers=[self._store_failure],
            maintenance_interval=settings.worker_ttl * 3 // 4,
        )
        self._ttl_seconds = settings.worker_ttl
        self._tasks = queue
        self._maintenance = Maintenance(queue)
        self.processor = processor
        self._metrics = processor.metrics
        self._metrics_port = metrics_port
        self._limit_seconds = settings.task_timeout
        self._metrics.slots.set(settings.worker_tasks)
        self._slots = threading.BoundedSemaphore(settings.worker_tasks)
        self._pool = ThreadPoolExecutor(settings.worker_tasks, thread_name_prefix="task")
        self._running: set[Future[None]] = set()
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat")

    def run(self, *, burst: bool = False) -> None:
        """Take tasks until stopped, or with `burst` until the queue is empty; running tasks end first."""
        self._hold(self.register_birth)
        self._heart.start()
        try:
            while not self.processor.stopping.is_set():
                idle = not self._running
                if self._slots.acquire(timeout=_DEQUEUE_SECONDS) and not self._take_one(burst) and burst and idle:
                    break
        finally:
            self._pool.shutdown(wait=True)
            self._ended.set()
            self._heart.join()
            try:
                self.register_death()  # type: ignore[no-untyped-call]
            except redis.RedisError as error:
                log.warning("the worker's record is left to expire, Redis does not answer: %s", error)

    def stop(self, signum: int = 0, frame: FrameType | None = None) -> None:
        """Take no more tasks, let the running ones end. A signal handler."""
        log.info("worker %s stops, %d tasks still run", self.name, len(self._running))
        self.processor.stopping.set()

    def _take_one(self, burst: bool) -> bool:
        """Start the next task on the slot that is held; the slot is free again when there is none."""
        claim = None
        try:
            claim = self._tasks.claim(0 if burst else _DEQUEUE_SECONDS)
        except redis.RedisError as error:
            log.warning("Redis does not answer, trying again: %s", error)
            self.processor.stopping.wait(_RECONNECT_SECONDS)
        if claim is None:
            self._slots.release()
            return False
        self._metrics.running.inc()
        others = list(self._running) if claim.was_lost else []
        run = self._pool.submit(self._run, claim, others)
        self._running.add(run)
        run.add_done_callback(self._running.discard)
        if claim.was_lost:
            wait([run])  # it may be what killed the last worker: nothing runs beside it
        return True

    def _run(self, claim: Claim, others: Sequence[Future[None]]) -> None:
        with logs.about(task=claim.task_id, request=claim.job.kwargs.get("request_id", "")):
            try:
                self._perform(claim, others)
            except redis.RedisError as error:
                # Its heartbeat stops with it: whoever does the maintenance starts the task again.
                log.warning("the task is left to be tried again, Redis does not answer: %s", error)
            finally:
                self._metrics.running.dec()
                self._slots.release()

    def _perform(self, claim: Claim, others: Sequence[Future[None]]) -> None:
        execution = self.begin(claim)
        if execution is None:
            return
        try:
            wait(others)
            view, pictures = self.processor.process(claim)
            if self._hold(lambda: self._tasks.finish(view, claim.job, execution, pictures)):
                self._note(view)
        except GivenBack:
            self._hold(lambda: self._tasks.give_back(claim.job, execution))
        except redis.RedisError:
            raise
        except Exception as error:  # a defect: RQ counts the try, and ends the task after the last one
            self.handle_exception(claim.job, type(error), error, error.__traceback__)
            self.handle_job_failure(claim.job, self._tasks.rq, exc_string=repr(error), execution=execution)
        finally:
            self.executions.pop(execution.id, None)

    def begin(self, claim: Claim) -> Execution | None:
        """Begin a claimed task; None when it has ended in the meantime."""
        execution = self._tasks.begin(claim, self.name, self._ttl_seconds)
        if execution is None:
            self._tasks.forget(claim.task_id)
            return None
        self.executions[execution.id] = execution
        log.debug("task %s begins", claim.task_id)
        return execution

    def _hold(self, save: Callable[[], _T]) -> _T:
        """Do it once Redis answers, so that its restart costs no work. Raises redis.RedisError when it does not."""
        begun = time.monotonic()
        while True:
            try:
                return save()
            except _AWAY as error:
                most = _HOLD_STOPPING_SECONDS if self.processor.stopping.is_set() else _HOLD_SECONDS
                if time.monotonic() - begun > most:
                    raise
                log.warning("Redis does not answer, trying again: %s", error)
            time.sleep(_RECONNECT_SECONDS)

    def _store_failure(self, job: Job, *exc_info: object) -> bool:
        """RQ's exception handler, called for a defect and for a task whose worker died."""
        died = exc_info[0] is AbandonedJobError
        if job.should_retry:
            self._metrics.retries.labels("worker_died" if died else "defect").inc()
        else:
            error: GatewayError = InternalError("a defect of this service, met on every try; the worker's log has more")
            if died:
                error = WorkerLost("the worker died under this task on every try; send the image again")
            view = failure(job.id, error)
            if self._tasks.finish(view, job):
                self._note(view)
        return True

    def _note(self, view: TaskView) -> None:
        """Count and log the end of a task."""
        if isinstance(view.result, DetectionResult):
            self._metrics.succeeded(view.result.timings_ms, len(view.result.detections))
            log.info("succeeded", extra=view.result.timings_ms)
        elif isinstance(view.error, Problem):
            self._metrics.failed(view.error.code)
            log.info("failed: %s", view.error.detail, extra={"code": view.error.code})

    def _beat(self) -> None:
        """Keep the records of this worker and its executions fresh; do the maintenance."""
        try:
            while not self._ended.wait(self._ttl_seconds / 4):
                if self._metrics_port is not None:
                    self._metrics_port.try_to_serve()
                try:
                    self._keep_fresh()
                    if self.should_run_maintenance_tasks and self._maintenance.server_is_up_for(self._ttl_seconds):
                        self.clean_registries()
                except redis.RedisError as error:
                    log.warning("heartbeat not written: %s", error)
        finally:
            if not self._ended.is_set():
                log.critical("the heartbeat has stopped by a defect; this worker ends before it is taken for dead")
                os._exit(1)

    def clean_registries(self) -> None:
        """Start again, or end, the tasks whose workers died. RQ's own lock could stay for 15 minutes."""
        if self._maintenance.lead(0.7 * self._ttl_seconds):
            clean_registries(self._tasks.rq, self._exc_handlers)
            clean_worker_registry(self._tasks.rq)
            self._maintenance.rescue_lost(self._ttl_seconds / 2)
            self._maintenance.close_vanished()
        self.last_cleaned_at = now()  # type: ignore[assignment]

    def _keep_fresh(self) -> None:
        running = list(self.executions.values())
        if self.processor.longest_try() > self._limit_seconds:
            log.critical("a task has run for more than %g s; this worker ends to free it", self._limit_seconds)
            os._exit(1)
        with self.connection.pipeline() as pipe:
            self.last_heartbeat = now()
            pipe.hset(self.key, mapping=self.serialize())  # whole: Redis may have come back without it
            pipe.expire(self.key, self._ttl_seconds)
            register(self, pipe)
            for execution in running:
                execution.heartbeat(self._tasks.rq.started_job_registry, self._ttl_seconds, pipe)
            pipe.execute()
        self._metrics.heartbeat.set_to_current_time()


def connect(settings: Settings) -> "redis.Redis":
    """Wait for Redis, for as long as it takes."""
    connection = redis.Redis.from_url(settings.redis_url, socket_timeout=10)
    while True:
        try:
            connection.ping()
            return connection
        except redis.RedisError as error:
            log.warning("waiting for Redis at %s: %s", settings.redis_url.rpartition("@")[2], error)
            time.sleep(_RECONNECT_SECONDS)


def main() -> int:
    try:
        settings = load()
    except SettingsError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    logs.configure(settings.log_level, settings.log_format, "worker")
    give_back_large_blocks()
    metrics_port = scrape.WorkerPort(settings)
    metrics_port.try_to_serve()
    inferer = TritonClient(settings.triton_url, settings.triton_timeout)
    processor = Processor(Pipeline(inferer, settings), settings, metrics_port.metrics)
    worker = TaskWorker(TaskQueue(connect(settings), settings), processor, settings, metrics_port)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, worker.stop)
    worker.run()
    inferer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
