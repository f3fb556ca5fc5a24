"""The queue's names in Redis, and what both its sides do: `submission` is the gateway's, `task_queue` the worker's.
RQ keeps the records; every change of a task's state is one script in Redis (`scripts`).
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from gateway import clock
from gateway.errors import Canceled, GatewayError, Overloaded, ServiceUnavailable
from gateway.queue import rq_clock
from gateway.queue.records import TaskRequest
from gateway.queue.throughput import KEPT_SECONDS, counter_key
from gateway.redis_names import (
    EVENTS_CHANNEL,
    LARGE_RESULTS_BYTES_KEY,
    LARGE_RESULTS_KEY,
    LEDGER,
    QUEUE_NAME,
    RESULTS_BYTES_KEY,
    RESULTS_KEY,
    batch_key,
    group_key,
    idempotency_key,
    image_key,
    result_key,
)
from gateway.redis_pipelined import Command
from gateway.settings import Settings
from gateway.task import State, TaskView, problem_of, timestamp
from gateway.telemetry import tracing
from gateway.webhooks.queue import schedule

rq_clock.follow()

LOST = frozenset({b"failed", b"stopped", b"canceled"})  # RQ's status of a job that it will not run again
FULL_SECONDS = 60  # until a Redis that is full may have room again
_JobData = tuple[str, object, list[object], TaskRequest]  # function, instance, arguments, keyword arguments


def rq_queue(connection: "redis.Redis") -> Queue:
    """RQ's view of the one queue; JSON, never pickle."""
    return Queue(QUEUE_NAME, connection=connection, serializer=JSONSerializer)


@contextmanager
def redis_errors(doubt: str = "") -> Iterator[None]:
    """Translate what redis-py raises when the server is away, restarting, full or too slow; `doubt` is added to it."""
    try:
        yield
    except redis.OutOfMemoryError as error:
        raise Overloaded(f"the memory of Redis is full; try again in {FULL_SECONDS} s", FULL_SECONDS) from error
    except redis.RedisError as error:
        raise ServiceUnavailable(
            f"the queue cannot be reached at the moment; try again in a few seconds{doubt}"
        ) from error


def failure(task_id: str, error: GatewayError, request: TaskRequest | None = None) -> TaskView:
    """The end of a task that failed."""
    problem = problem_of(error, request.request_id if request else "")
    state: State = "canceled" if isinstance(error, Canceled) else "failed"
    view = TaskView(task_id=task_id, status="FAILURE", state=state, result=error.detail, error=problem)
    if request:
        view.created_at = timestamp(request.accepted_at)
        view.batch_id = request.batch_id or msgspec.UNSET
    return view


def end_commands(view: TaskView, request: TaskRequest | None, result_ttl: int) -> list[Command]:
    """The commands that keep the end of a task for `result_ttl` seconds, drop its image, and tell whoever waits."""
    ended_at = clock.now()
    view.ended_at = timestamp(ended_at)
    view.expires_at = timestamp(ended_at + result_ttl)
    body = msgspec.json.encode(view)
    commands: list[Command] = [
        (b"SET", result_key(view.task_id), body, b"EX", result_ttl),
        (b"DEL", image_key(view.task_id)),
    ]
    if request is not None and request.callback_url:
        trace = tracing.carrier() or request.trace
        commands += schedule(view.task_id, request.callback_url, body, request.owner, trace)
    if view.state != "canceled":  # no work, and so no measure of how fast it goes
        counter = counter_key(ended_at)
        commands += (b"INCR", counter), (b"EXPIRE", counter, KEPT_SECONDS)
    commands.append((b"PUBLISH", EVENTS_CHANNEL, f"{view.task_id}:{view.state}:".encode() + body))
    return commands


def end_keys(task_id: str, batch_id: str) -> tuple[str, ...]:
    """The first KEYS of the scripts that end a task."""
    group = batch_id or task_id
    own = result_key(task_id), group_key(group), batch_key(group)
    return (*LEDGER, RESULTS_KEY, RESULTS_BYTES_KEY, *own, LARGE_RESULTS_KEY, LARGE_RESULTS_BYTES_KEY)


def end_args(task_id: str, settings: Settings) -> tuple[str | int, ...]:
    """Their first ARGV."""
    return task_id, result_key(""), settings.max_results_bytes, settings.result_ttl, idempotency_key("")


def request_of(data: bytes) -> TaskRequest | None:
    """What was asked for, from the `data` of a job as RQ keeps it; None when it is not that of a task."""
    if not data.startswith(b"["):  # RQ itself compresses it
        with suppress(zlib.error):
            data = zlib.decompress(data)
    try:
        request: TaskRequest = msgspec.json.decode(data, type=_JobData)[3]
        return request
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
