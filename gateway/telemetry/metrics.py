"""Every Prometheus metric of this service, declared in one place; docs/metrics.md describes them."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.errors import TaskFailed, error_classes
from gateway.telemetry.summed import Before, observe

disable_created_metrics()  # type: ignore[no-untyped-call]  # no second series for each counter

STEPS = ("decode", "letterbox", "triton", "nms")
RETRY_REASONS = ("worker_died", "defect", "triton_away", "triton_busy", "model_changed")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LONG_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_BYTES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000)
_COUNTED_SECONDS = 0.5
_DETECTIONS = (0, 1, 2, 3, 5, 10, 20, 50, 100, 300)


class GatewayMetrics:
    """Of one web process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "yolo_gateway_requests",
            "HTTP requests answered",
            ["method", "route", "status"],
            registry=registry,
        )
        self.duration = Histogram(
            "yolo_gateway_request_duration_seconds",
            "time from a request's head to the end of its answer; waited is yes when the client asked to wait",
            ["route", "waited"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge("yolo_gateway_requests_in_flight", "HTTP requests being answered", registry=registry)
        self.uploaded = Histogram(
            "yolo_gateway_upload_size_bytes", "encoded size of each uploaded image", buckets=_BYTES, registry=registry
        )
        self.accepted = Counter("yolo_gateway_accepted_images", "images that became a task", registry=registry)
        self.rejected = Counter(
            "yolo_gateway_rejected",
            "requests, and images of a batch, refused; reason is the problem's code",
            ["reason"],
            registry=registry,
        )
        self.ready = Gauge(
            "yolo_gateway_ready",
            "1 while redis, worker, triton is there, as /status sees it every 5 s",
            ["part"],
            registry=registry,
        )
        self.triton_up = Gauge(
            "yolo_gateway_triton_up",
            "1 while that one of several Tritons answers the gateway",
            ["triton"],
            registry=registry,
        )
        self.waiting = Gauge("yolo_gateway_waiting", "requests that wait for a result", registry=registry)
        self.streams = Gauge("yolo_gateway_streams", "event streams", registry=registry)
        self.uploading = Gauge("yolo_gateway_uploading_bytes", "bytes of uploads being received", registry=registry)
        self.connections = Gauge("yolo_gateway_connections", "connections of clients", registry=registry)
        self.untaken = Gauge(
            "yolo_gateway_untaken_bytes", "bytes of answers that clients do not take", registry=registry
        )
        self.dropped = Counter(
            "yolo_gateway_connections_dropped",
            "connections ended for others: connections too many, untaken an answer that was not taken",
            ["reason"],
            registry=registry,
        )
        for reason in ("connections", "untaken"):
            self.dropped.labels(reason)
        self.clock_ahead = Gauge(
            "yolo_gateway_clock_ahead_seconds",
            "seconds by which the host's clock is ahead of Redis', negative when it is behind",
            registry=registry,
        )
        # A series that does not exist before its first event has no rate for it.
        for error in error_classes():
            if not issubclass(error, TaskFailed):
                self.rejected.labels(error.code)

    def set_ready(self, missing: Iterable[str]) -> None:
        """Take over what readiness found missing."""
        absent = set(missing)
        for part in ("redis", "worker", "triton"):
            # With Redis away nobody knows whether a worker is alive.
            self.ready.labels(part).set(part not in absent and not (part == "worker" and "redis" in absent))

    def set_tritons(self, up: Mapping[str, bool]) -> None:
        """Which of several Tritons answer, by address; what is no longer an address has no series."""
        self.triton_up.clear()
        for address, answers in up.items():
            self.triton_up.labels(address).set(answers)


class WorkerMetrics:
    """Of one worker process, or of all of a host when PROMETHEUS_MULTIPROC_DIR is set."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        registry.register(Before(self.count))
        ProcessCollector(registry=registry)
        self.steps = Histogram(
            "yolo_worker_step_duration_seconds",
            "time of one step of one task",
            ["step"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.queued = Histogram(
            "yolo_worker_task_wait_seconds",
            "time from a task's acceptance to its start",
            buckets=_LONG_SECONDS,
            registry=registry,
        )
        self.total = Histogram(
            "yolo_worker_task_duration_seconds",
            "time from a task's acceptance to its successful end",
            buckets=_LONG_SECONDS,
            registry=registry,
        )
        self.tasks = Counter(
            "yolo_worker_tasks", "tasks that ended, by success or failure", ["status"], registry=registry
        )
        self.failures = Counter(
            "yolo_worker_failures", "tasks that failed, by the problem's code", ["code"], registry=registry
        )
        self.retries = Counter(
            "yolo_worker_retries",
            "retries: the task's worker died, a defect, or something about Triton",
            ["reason"],
            registry=registry,
        )
        self.detections = Histogram(
            "yolo_worker_detections", "detections in one image", buckets=_DETECTIONS, registry=registry
        )
        self.running = Gauge(
            "yolo_worker_tasks_running", "tasks being run", multiprocess_mode="livesum", registry=registry
        )
        self.slots = Gauge(
            "yolo_worker_slots", "tasks that can run at a time", multiprocess_mode="livesum", registry=registry
        )
        self.decoding = Gauge(
            "yolo_worker_decoding_bytes",
            "bytes that the images being decoded may take; MAX_DECODING_BYTES of each process bounds them",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.decoding_limit = Gauge(
            "yolo_worker_decoding_limit_bytes",
            "MAX_DECODING_BYTES",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.heartbeat = Gauge(
            "yolo_worker_heartbeat_timestamp_seconds",
            "when Redis last took the heartbeat, of several processes the oldest",
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.clock_ahead = Gauge(
            "yolo_worker_clock_ahead_seconds",
            "seconds by which the host's clock is ahead of Redis', negative when it is behind",
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._successes: deque[tuple[Mapping[str, float], int]] = deque()
        self._count_at = 0.0
        for step in STEPS:
            self.steps.labels(step)
        for status in ("success", "failure"):
            self.tasks.labels(status)
        for reason in RETRY_REASONS:
            self.retries.labels(reason)
        for error in error_classes(TaskFailed):
            self.failures.labels(error.code)

    def succeeded(self, timings_ms: Mapping[str, float], detections: int) -> None:
        """A task has its result. It is counted at the next `count`, or with one that comes half a second later."""
        self._successes.append((timings_ms, detections))
        if time.monotonic() >= self._count_at:
            self.count()

    def count(self) -> None:
        """Count the tasks that had their results: in files that processes share, each alone takes ten times as long."""
        self._count_at = time.monotonic() + _COUNTED_SECONDS
        ended = [self._successes.popleft() for _ in range(len(self._successes))]
        if not ended:
            return
        seconds = defaultdict(list)
        for timings_ms, _ in ended:
            for name, milliseconds in timings_ms.items():
                seconds[name].append(milliseconds / 1e3)
        self.tasks.labels("success").inc(len(ended))
        observe(self.detections, [detections for _, detections in ended])
        for name, values in seconds.items():
            observe({"queue": self.queued, "total": self.total}.get(name) or self.steps.labels(name), values)

    def failed(self, code: str) -> None:
        """A task has failed for good."""
        self.tasks.labels("failure").inc()
        self.failures.labels(code).inc()


@dataclass(frozen=True, slots=True)
class QueueState:
    """What Redis holds at one instant. Sizes in bytes, times in seconds; a `memory_limit` of 0 is none."""

    tasks: dict[str, int] = field(default_factory=dict)
    high_priority: int = 0
    deliveries: int = 0
    deliveries_late: float = 0.0
    open_tasks: int = 0
    open_bytes: int = 0
    reserved_bytes: int = 0
    results_bytes: int = 0
    oldest_age: float = 0.0
    workers: dict[str, int] = field(default_factory=dict)
    memory: int = 0
    memory_limit: int = 0
    evicts: bool = False
    keeps_file: bool = True


class QueueCollector(Collector):
    """Asks for the queue's state when Prometheus asks; `read` gives None while Redis is away."""

    def __init__(self, read: Callable[[], QueueState | None]) -> None:
        self._read = read

    def describe(self) -> Iterator[Metric]:
        return self._families(QueueState())

    def collect(self) -> Iterator[Metric]:
        state = self._read()
        yield _gauge(
            "yolo_queue_up", "1 while Redis answers the gateway's questions about the queue", state is not None
        )
        if state is not None:
            yield from self._families(state)

    def _families(self, state: QueueState) -> Iterator[Metric]:
        tasks = GaugeMetricFamily(
            "yolo_queue_tasks", "tasks in Redis: queued, taken (by a worker, not begun), started", labels=["state"]
        )
        for name, count in state.tasks.items():
            tasks.add_metric([name], count)
        workers = GaugeMetricFamily(
            "yolo_queue_workers",
            "worker processes whose heartbeat is fresh: alive; busy ones run a task",
            labels=["state"],
        )
        for name, count in state.workers.items():
            workers.add_metric([name], count)
        yield tasks
        yield workers
        yield _gauge(
            "yolo_queue_high_priority_tasks", "those of the queued tasks that have priority=high", state.high_priority
        )
        yield _gauge(
            "yolo_queue_webhooks", "deliveries that wait or are under way; MAX_WEBHOOKS bounds them", state.deliveries
        )
        yield _gauge(
            "yolo_queue_webhooks_late_seconds", "how long the oldest delivery has been due", state.deliveries_late
        )
        yield _gauge(
            "yolo_queue_open_tasks", "tasks accepted and not ended; MAX_QUEUED_TASKS bounds them", state.open_tasks
        )
        yield _gauge(
            "yolo_queue_open_bytes",
            "bytes they take in Redis, with room for each one's result; MAX_QUEUED_BYTES bounds them",
            state.open_bytes,
        )
        yield _gauge(
            "yolo_queue_reserved_bytes",
            "how much of that is kept for results that are still to come",
            state.reserved_bytes,
        )
        yield _gauge(
            "yolo_queue_results_bytes", "bytes of the results kept; MAX_RESULTS_BYTES bounds them", state.results_bytes
        )
        yield _gauge(
            "yolo_queue_oldest_task_age_seconds", "age of the oldest queued task, 0 without one", state.oldest_age
        )
        yield _gauge("yolo_queue_redis_memory_bytes", "memory that Redis uses", state.memory)
        yield _gauge(
            "yolo_queue_redis_memory_limit_bytes", "memory that Redis may use, 0 for no limit", state.memory_limit
        )
        yield _gauge("yolo_queue_redis_evicts", "1 where Redis drops keys once it is full", state.evicts)
        yield _gauge("yolo_queue_redis_keeps_file", "1 where Redis keeps an append-only file", state.keeps_file)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, help_text)
    family.add_metric([], float(value))
    return family
