"""The worker process: `python -m gateway.worker`. Takes tasks from one RQ queue, a few at a time.

RQ keeps the records (registries, retries, workers), so that whatever dies is found and its task run again; the
loop is ours. RQ's own SimpleWorker runs one job at a time with about 20 Redis round trips; this one needs one or two:

1. claim           BLMOVE waits for a task; a script sent with it takes and begins one, with its job and image
2. finish          a script stores the result, removes image and job, publishes the end; the next claim goes with it

A worker that dies is noticed when its executions' heartbeats stop (`worker_ttl`), an id lost after BLMOVE by the next
worker that waits, or when two rounds of maintenance have seen it. When Redis dies, what was worked out is held until it
answers again.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, TypeVar

import redis
from rq import SimpleWorker
from rq.serializers import JSONSerializer
from rq.worker_registration import clean_worker_registry, register

from gateway import clock, redis_connections
from gateway.allocator import give_back_large_blocks
from gateway.errors import InternalError
from gateway.queue import rq_clock
from gateway.queue.common import failure, request_of
from gateway.queue.connection import WorkerRedis
from gateway.queue.maintenance import Maintenance
from gateway.queue.records import FORMAT
from gateway.queue.redis_server import evicting, forgetful, too_old
from gateway.queue.task_queue import Claim, TaskQueue
from gateway.queue.workers import CLOCK, KNOWN_FORMAT
from gateway.redis_url import without_password
from gateway.settings import Settings, SettingsError, load
from gateway.task import DetectionResult, Problem, TaskView
from gateway.telemetry import exporter, logs, tracing
from gateway.triton.pool import connect as connect_triton
from gateway.worker.heartbeat import Heartbeat
from gateway.worker.isolation import Room
from gateway.worker.pipeline import Pipeline
from gateway.worker.processor import GivenBack, Processor

_T = TypeVar("_T")

log = logging.getLogger("gateway.worker")

_DEQUEUE_SECONDS = 1  # also the longest time until a signal is heeded
_NEWER_PAUSE_SECONDS, _NEWER_LOG_SECONDS = 1.0, 60  # others are to have the task; one line for many of them
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
        metrics_port: exporter.WorkerPort | None = None,
    ) -> None:
        super().__init__(
            [queue.rq],  # one queue: RQ recovers a lost dequeue only then
            connection=queue.connection,
            serializer=JSONSerializer,
            worker_ttl=settings.worker_ttl,  # by its own RQ would wait for a Redis that hangs for 415 s
            maintenance_interval=settings.worker_ttl * 3 // 4,
        )
        self._ttl_seconds = settings.worker_ttl
        self._tasks = queue
        self._maintenance = Maintenance(queue)
        self.processor = processor
        self._metrics = processor.metrics
        self._metrics_port = metrics_port
        self._limit_seconds, self._trace_seconds = settings.task_timeout, settings.trace_ttl
        self._metrics.slots.set(settings.worker_tasks)
        self._room = Room()
        self._left_at = float("-inf")
        self._heart = Heartbeat(settings.worker_ttl, self._keep_fresh, self._maintain)

    def run(self, *, burst: bool = False) -> None:
        """Take tasks until stopped, or with `burst` until the queue is empty; running tasks end first."""
        self._hold(self._learn_time)
        self._hold(self.register_birth)
        self._heart.start()
        try:
            threads = self.processor.places.threads
            with ThreadPoolExecutor(threads, thread_name_prefix="task") as pool:
                for ended in [pool.submit(self._work, burst) for _ in range(threads)]:
                    ended.result()
            self._metrics.count()
        finally:
            self._heart.stop()
            try:
                self.register_death()  # type: ignore[no-untyped-call]
            except redis.RedisError as error:
                log.warning("the worker's record is left to expire, Redis does not answer: %s", error)

    def stop(self, signum: int = 0, frame: FrameType | None = None) -> None:
        """Take no more tasks, let the running ones end. A signal handler."""
        log.info("worker %s stops, %d tasks still run", self.name, len(self.executions))
        self.processor.stopping.set()

    def _work(self, burst: bool) -> None:
        """One task after the other; each of the worker's threads does."""
        claim: Claim | None = None
        places, stopping, is_empty = self.processor.places, self.processor.stopping, False
        try:
            while not (is_empty or stopping.is_set()):
                with places.taken():
                    while places.is_usual and not (is_empty or stopping.is_set()):
                        self._metrics.count()
                        self._room.wait_until_shared()
                        claim = self._claim(0 if burst else _DEQUEUE_SECONDS)
                        is_empty = burst and claim is None
                        if claim is not None:
                            claim = self._run_all(claim)
            self._give_back_last(claim)
        except BaseException:
            self.stop()  # a defect of the loop itself: the others end too, and the process with it
            raise

    def _give_back_last(self, claim: Claim | None) -> None:
        """Keep no task that was claimed with the end of the last one, also if Redis' answer was lost."""
        try:
            last = claim or self._hold(lambda: self._tasks.resume(self.name))
            if last is not None:
                self._hold(lambda: self._tasks.give_back(last))
        except redis.RedisError as error:
            log.warning("a task may be left to be tried again, Redis does not answer: %s", error)

    def _claim(self, seconds: float) -> Claim | None:
        try:
            return self._tasks.claim(seconds, self.name)
        except redis.RedisError as error:
            log.warning("Redis does not answer, trying again: %s", error)
            self.processor.stopping.wait(_RECONNECT_SECONDS)
            return None

    def _run_all(self, first: Claim) -> Claim | None:
        """Run a task, and those that were claimed with the end of the one before; returns one that is not to run."""
        self._metrics.running.inc()
        try:
            following = self._run(first)
            while following is not None and not self.processor.stopping.is_set():
                following = self._run(following)
        finally:
            self._metrics.running.dec()
        return following

    def _run(self, claim: Claim) -> Claim | None:
        """Run a task; returns the next one, where it was claimed with the end of this one."""
        self.executions[claim.execution.id] = claim.execution
        try:
            with self._room.entered(alone=claim.was_lost) as may_run:
                if may_run:
                    return self._perform(claim)
                self._hold(lambda: self._tasks.give_back(claim))
        except redis.RedisError as error:
            # Its heartbeat stops with it: whoever does the maintenance starts the task again.
            log.warning("task %s is left to be tried again, Redis does not answer: %s", claim.task_id, error)
        finally:
            self.executions.pop(claim.execution.id, None)
        return None

    def _leave(self, claim: Claim) -> None:
        """Give a task back that a newer gateway wrote: what it asks for beyond this version would be left out."""
        if time.monotonic() - self._left_at > _NEWER_LOG_SECONDS:
            self._left_at = time.monotonic()
            log.warning(
                "tasks come that a newer gateway has written (format %d, this worker knows %d): they go to the end of "
                "the queue; start workers of that version",
                claim.request.format,
                FORMAT,
            )
        self._hold(lambda: self._tasks.give_back(claim, at_front=False))
        self.processor.stopping.wait(_NEWER_PAUSE_SECONDS)

    def _perform(self, claim: Claim) -> Claim | None:
        following = None
        with logs.about(task=claim.task_id, request=""):
            try:
                logs.request_id.set(claim.request.request_id)
                if claim.request.format > FORMAT:
                    self._leave(claim)
                    return None
                log.debug("task %s begins", claim.task_id)
                with tracing.execution(claim.task_id, claim.execution.id, claim.request.trace, claim.former):
                    view, pictures = self.processor.process(claim)
                    with tracing.step("store"):
                        is_first, following = self._hold(lambda: self._finish(view, claim, pictures))
                    if is_first:
                        self._note(view)
                    else:  # it was believed dead, was cut off, or the answer to a first try was lost
                        log.info("the task has ended before: this end is dropped")
            except GivenBack:
                self._hold(lambda: self._tasks.give_back(claim))
            except redis.RedisError:
                raise
            except Exception:
                log.exception("a defect of this service under task %s", claim.task_id)
                self._fail(claim)
        return following

    def _finish(self, view: TaskView, claim: Claim, pictures: Mapping[str, bytes]) -> tuple[bool, Claim | None]:
        """Keep the end of a task, and claim the next one with it if this thread may run that at once."""
        goes_on = self._room.is_shared and self.processor.places.is_usual and not self.processor.stopping.is_set()
        if pictures or not goes_on:
            return self._tasks.finish(view, claim.request, claim.execution, pictures), None
        return self._tasks.finish_and_claim(view, claim.request, claim.execution)

    def _fail(self, claim: Claim) -> None:
        """Count the try, and end the task after the last one."""
        error = InternalError("a defect of this service, met on every try; the worker's log has more")
        request = request_of(claim.data)
        view = failure(claim.task_id, error, request)
        self._note_failure(self._hold(lambda: self._tasks.fail(claim.execution, view, request)), view, "defect")

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

    def _note_failure(self, outcome: str, view: TaskView, reason: str) -> None:
        """Count what became of a try that failed for this `reason`."""
        if outcome == "retry":
            log.warning("task %s goes back to the head of the queue (%s)", view.task_id, reason)
            self._metrics.retries.labels(reason).inc()
        elif outcome == "ended":
            self._note(view)
        else:
            log.info("task %s is in other hands, or has ended (%s)", view.task_id, reason)

    def _note(self, view: TaskView) -> None:
        """Count and log the end of a task."""
        if isinstance(view.result, DetectionResult):
            self._metrics.succeeded(view.result.timings_ms, len(view.result.detections))
            log.info("succeeded", extra=view.result.timings_ms)
            model = view.result.model
            tracing.note(
                yolo__model=model.name, yolo__version=model.version, yolo__detections=len(view.result.detections)
            )
        elif isinstance(view.error, Problem):
            self._metrics.failed(view.error.code)
            tracing.failed(view.error.code)
            log.info("failed: %s", view.error.detail, extra={"code": view.error.code})

    def _maintain(self) -> None:
        if not clock.is_settled(self._ttl_seconds):
            return
        if self.should_run_maintenance_tasks and self._maintenance.server_is_up_for(self._ttl_seconds):
            self.clean_registries()

    def clean_registries(self) -> None:
        """Start again, or end, the tasks whose workers died. RQ's own lock could stay for 15 minutes."""
        if self._maintenance.lead(0.7 * self._ttl_seconds):
            for outcome, view in self._maintenance.restart_abandoned():
                self._note_failure(outcome, view, "worker_died")
            self._tasks.rq.failed_job_registry.cleanup()  # RQ's own tools add to it
            clean_worker_registry(self._tasks.rq)
            self._maintenance.rescue_lost(self._ttl_seconds / 2)
            self._maintenance.close_vanished()
            self._maintenance.drop_stale_reserves()
            self._maintenance.rewrite_file(self._trace_seconds)
        self.last_cleaned_at = rq_clock.now()  # type: ignore[assignment]

    def serialize(self) -> dict[Any, Any]:
        """The record of this worker in Redis."""
        return {**super().serialize(), CLOCK: clock.problem() or "", KNOWN_FORMAT: FORMAT}

    def _learn_time(self) -> None:
        asked_at = clock.steady()
        clock.learn(self.connection.time(), asked_at)

    def _keep_fresh(self) -> None:
        """One heartbeat: the records of this worker and its executions live on."""
        if self._metrics_port is not None:
            self._metrics_port.try_to_serve()
        self._metrics.count()
        running = list(self.executions.values())
        if self.processor.longest_try() > self._limit_seconds:
            log.critical("a task has run for more than %g s; this worker ends to free it", self._limit_seconds)
            os._exit(1)
        with self.connection.pipeline() as pipe:
            self.last_heartbeat = rq_clock.now()
            pipe.hset(self.key, mapping=self.serialize())  # whole: Redis may have come back without it
            pipe.expire(self.key, self._ttl_seconds)
            register(self, pipe)
            for execution in running:
                execution.heartbeat(self._tasks.rq.started_job_registry, self._ttl_seconds, pipe)
            pipe.execute()
        self._learn_time()
        self._metrics.clock_ahead.set(clock.host_ahead())
        self._metrics.heartbeat.set_to_current_time()


def connect(settings: Settings) -> "redis.Redis":
    """Wait for Redis, for as long as it takes. Raises SettingsError for one that cannot serve."""
    connection = redis_connections.connect(settings.redis_url, WorkerRedis, socket_timeout=10)
    address, said = without_password(settings.redis_url), ""
    while True:
        try:
            info = connection.info()
            break
        except redis.RedisError as error:
            if said != (said := str(error)):  # not once a second
                log.warning("waiting for Redis at %s: %s", address, error)
            time.sleep(_RECONNECT_SECONDS)
    if problem := too_old(info):
        raise SettingsError(f"REDIS_URL={address} {problem}")
    for warning in filter(None, (evicting(info), forgetful(info))):
        log.warning("Redis at %s %s", address, warning)
    return connection


def main() -> int:
    try:
        settings = load()
        logs.configure(settings.log_level, settings.log_format, "worker")
        give_back_large_blocks(4)  # most photographs stay below, as files and as the pixels that are decoded of them
        metrics_port = exporter.WorkerPort(settings)
        metrics_port.try_to_serve()
        tracing.start("yolo-worker")
        connection = connect(settings)
    except SettingsError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    inferer = connect_triton(
        settings.triton_url, settings.triton_timeout, settings.triton_memory_key, settings.triton_http_url
    )
    processor = Processor(Pipeline(inferer, settings, metrics_port.metrics), settings, metrics_port.metrics)
    worker = TaskWorker(TaskQueue(connection, settings), processor, settings, metrics_port)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, worker.stop)
    try:
        worker.run()
    finally:
        inferer.close()
        tracing.stop()
    return 0
