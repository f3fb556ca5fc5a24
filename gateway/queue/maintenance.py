"""What workers do for each other now and then: restart tasks whose worker died, keep the records right."""

import logging
import re
from collections.abc import Iterator
from typing import Any, Literal

import redis
from rq.executions import Execution
from rq.utils import str_to_date

from gateway import clock
from gateway.errors import InternalError, WorkerLost
from gateway.queue import scripts
from gateway.queue.common import LOST, failure, request_of
from gateway.queue.records import TaskRequest
from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import (
    BETWEEN_KEY,
    LEADER_KEY,
    LEDGER,
    OPEN_KEY,
    RESERVES_KEY,
    REWRITTEN_KEY,
    batch_key,
    job_key,
)
from gateway.task import TaskView
from gateway.telemetry import tracing

log = logging.getLogger(__name__)

_SCAN = 500
_TASK_ID = re.compile(r'"task_id":"(\w+)"')


class Maintenance:
    """Blocking calls. Raises redis.RedisError."""

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue
        self._redis = queue.connection
        self._cursor = self._reserves_cursor = 0

    def lead(self, seconds: float) -> bool:
        """Whether the caller is to do the maintenance of this interval; one worker is, also if the last one died."""
        return bool(self._redis.eval(scripts.LEAD, 1, LEADER_KEY, int(seconds * 1000)))

    def server_is_up_for(self, seconds: int) -> bool:
        """Whether workers had that long to send heartbeats since Redis came up."""
        return int(self._redis.info("server")["uptime_in_seconds"]) >= seconds

    def rescue_lost(self, after_seconds: float) -> None:
        """Put back the ids of tasks whose worker died between dequeue and begin; the first look only remembers them."""
        between, instant = self._queue.rq.intermediate_queue, clock.now()
        known = self._redis.hgetall(BETWEEN_KEY)
        seen = {task_id: float(known.get(task_id.encode(), instant)) for task_id in between.get_job_ids()}
        for task_id in [task_id for task_id, first in seen.items() if instant - first > after_seconds]:
            log.warning("task %s was taken but not begun: it goes back to the head of the queue", task_id)
            self._redis.eval(scripts.RESCUE, 2, between.key, self._queue.rq.key, task_id)
            del seen[task_id]
        with self._redis.pipeline() as pipe:
            pipe.delete(BETWEEN_KEY)
            if seen:
                pipe.hset(BETWEEN_KEY, items=[word for pair in seen.items() for word in pair])
            pipe.execute()

    def restart_abandoned(self) -> Iterator[tuple[Literal["retry", "ended", "left"], TaskView]]:
        """Try the tasks again whose executions have no heartbeat any more; with each, what became of it.

        RQ's own clean-up would call the function, and the URL, that a job's record names.
        """
        registry, instant = self._queue.rq.started_job_registry, clock.now()
        found: Any = self._redis.zrangebyscore(registry.key, 0, instant)
        for entry in found:
            execution = Execution.from_composite_key(_text(entry), self._redis)
            request = self._request(execution.job_id)
            error = WorkerLost("the worker died under this task on every try; send the image again")
            view = failure(execution.job_id, error, request)
            begun = None if tracing.spans is None else self._begun(execution)
            outcome = self._queue.fail(execution, view, request, instant)
            if begun is not None and outcome != "left":
                trace = request.trace if request else None
                tracing.lost(execution.job_id, execution.id, trace, clock.now() - begun)
            yield outcome, view

    def _begun(self, execution: Execution) -> float:
        """When it was begun, in seconds since the epoch; now where that is not known any more."""
        found = self._redis.hget(job_key(execution.job_id), "started_at")
        return str_to_date(found).timestamp() if isinstance(found, bytes) else clock.now()

    def _request(self, task_id: str) -> TaskRequest | None:
        data = self._redis.hget(job_key(task_id), "data")
        return request_of(data) if isinstance(data, bytes) else None

    def close_vanished(self) -> None:
        """End the open tasks whose job is gone or has failed unseen: their clients get an outcome, and they do not
        count for ever. RQ's own tools do such things: `rq empty`, or `rq info`, which cleans up without telling us.

        Each call looks at some hundreds and goes on where the last one stopped, so that a long queue costs no more.
        """
        self._cursor, page = self._redis.hscan(OPEN_KEY, self._cursor, count=_SCAN)
        ids = [_text(task_id) for task_id in page]
        with self._redis.pipeline(transaction=False) as pipe:
            for task_id in ids:
                pipe.hget(job_key(task_id), "status")
            found = pipe.execute()
        gone = [task_id for task_id, status in zip(ids, found, strict=True) if status is None or status in LOST]
        requests = {task_id: self._request(task_id) for task_id in gone}  # RQ keeps it of a job that it lets fail
        batches = self._batches_of({task_id for task_id, request in requests.items() if request is None})
        for task_id, request in requests.items():
            view = failure(task_id, InternalError("the task has vanished; send the image again"), request)
            if task_id in batches:  # it goes with the last of its results, as for other ends
                view.batch_id = batches[task_id]
                request = TaskRequest(model="", accepted_at=0, batch_id=batches[task_id])
            if self._queue.finish(view, request):
                log.error("task %s has vanished from the queue", task_id)

    def _batches_of(self, task_ids: set[str]) -> dict[str, str]:
        """The batches of tasks whose jobs are gone: only the batches themselves still name them."""
        found: dict[str, str] = {}
        if not task_ids:
            return found
        for key in self._redis.scan_iter(match=batch_key("*"), count=_SCAN):
            batch = self._redis.get(key)
            for each in _TASK_ID.findall(batch.decode() if isinstance(batch, bytes) else ""):
                if each in task_ids:
                    found[each] = _text(key).removeprefix(batch_key(""))
        return found

    def rewrite_file(self, every_seconds: int) -> None:
        """Have Redis write its append-only file anew once in so many seconds, 0 for never: what was deleted or has
        expired stays in the old one, images too.
        """
        if not every_seconds or not self._redis.eval(scripts.LEAD, 1, REWRITTEN_KEY, every_seconds * 1000):
            return
        try:
            if self._redis.info("persistence").get("aof_enabled"):
                self._redis.bgrewriteaof()
        except redis.ResponseError as error:  # no right to, or one runs already
            log.warning("Redis does not rewrite its append-only file, deleted images stay in it: %s", error)

    def drop_stale_reserves(self) -> None:
        """Free what is kept for the ends of tasks that ended under a worker of an older version, which keeps none."""
        self._reserves_cursor, page = self._redis.hscan(RESERVES_KEY, self._reserves_cursor, count=_SCAN)
        if page:
            self._redis.eval(scripts.UNRESERVE, len(LEDGER), *LEDGER, *page)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
