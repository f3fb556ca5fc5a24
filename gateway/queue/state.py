"""What the queue looks like, read for the metrics in two round trips. Nothing is cleaned up, moved or locked by it."""

import logging
from collections.abc import Callable
from typing import Any

import redis

from gateway import clock
from gateway.queue.common import rq_queue
from gateway.queue.redis_server import evicting, forgetful
from gateway.queue.workers import HEARTBEAT, WORKERS_KEY, age_seconds, is_fresh
from gateway.redis_names import (
    HIGH_KEY,
    LARGE_RESULTS_BYTES_KEY,
    OPEN_BYTES_KEY,
    OPEN_KEY,
    RESERVED_KEY,
    RESULTS_BYTES_KEY,
    WEBHOOKS_KEY,
    job_key,
)
from gateway.telemetry.metrics import QueueState

log = logging.getLogger(__name__)

# When the oldest queued task was made. RQ's times compare as text.
_OLDEST = """
local oldest = ''
for _, id in ipairs(redis.call('lrange', KEYS[1], 0, -1)) do
  local created = redis.call('hget', ARGV[1] .. id, 'created_at')
  if created and (oldest == '' or created < oldest) then oldest = created end
end
return oldest
"""


def reader(connection: "redis.Redis", worker_ttl: float) -> Callable[[], QueueState | None]:
    """A function that reads the state over this connection; None while Redis is away."""

    def read() -> QueueState | None:
        try:
            return _read(connection, worker_ttl)
        except redis.RedisError as error:
            log.warning("the queue's metrics cannot be read: %s", error)
            return None

    return read


def _read(connection: "redis.Redis", worker_ttl: float) -> QueueState:
    rq, instant = rq_queue(connection), clock.now()
    with connection.pipeline(transaction=False) as pipe:
        pipe.llen(rq.key)
        pipe.llen(HIGH_KEY)
        pipe.zcard(WEBHOOKS_KEY)
        pipe.zrange(WEBHOOKS_KEY, 0, 0, withscores=True)
        pipe.llen(rq.intermediate_queue_key)
        pipe.zcount(rq.started_job_registry.key, instant, "+inf")
        pipe.hlen(OPEN_KEY)
        pipe.mget(OPEN_BYTES_KEY, RESERVED_KEY, RESULTS_BYTES_KEY, LARGE_RESULTS_BYTES_KEY)
        pipe.eval(_OLDEST, 1, rq.key, job_key(""))
        pipe.smembers(WORKERS_KEY)
        pipe.info()
        queued, high, deliveries, first_due, taken, started, open_tasks, sums, oldest, workers, info = pipe.execute()
        for key in workers:
            pipe.hget(key, HEARTBEAT)
            pipe.scard(key + b":executions")
        found: list[Any] = pipe.execute()
    open_bytes, reserved_bytes, *results_bytes = (int(each or 0) for each in sums)
    alive = [running for beat, running in zip(found[::2], found[1::2], strict=True) if is_fresh(beat, worker_ttl)]
    return QueueState(
        tasks={"queued": queued, "taken": taken, "started": started},
        high_priority=high,
        deliveries=deliveries,
        deliveries_late=max(instant - first_due[0][1], 0.0) if first_due else 0.0,
        open_tasks=open_tasks,
        open_bytes=open_bytes,
        reserved_bytes=reserved_bytes,
        results_bytes=sum(results_bytes),
        oldest_age=max(age_seconds(oldest), 0.0) if oldest else 0.0,
        workers={"alive": len(alive), "busy": sum(running > 0 for running in alive)},
        memory=info["used_memory"],
        memory_limit=info["maxmemory"],
        evicts=evicting(info) is not None,
        keeps_file=forgetful(info) is None,
    )
