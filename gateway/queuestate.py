"""What the queue looks like, read for the metrics in two round trips. Nothing is cleaned up, moved or locked by it."""

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import redis
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from gateway.metrics import QueueState
from gateway.queue import QUEUE_NAME, TaskQueue, image_key, job_key
from gateway.readiness import FRESH_SECONDS

log = logging.getLogger(__name__)

# Bytes of the queued images, and when the oldest task was made. RQ's times compare as text.
_WAITING = """
local bytes, oldest = 0, ''
for _, id in ipairs(redis.call('lrange', KEYS[1], 0, -1)) do
  bytes = bytes + redis.call('strlen', ARGV[1] .. id)
  local created = redis.call('hget', ARGV[2] .. id, 'created_at')
  if created and (oldest == '' or created < oldest) then oldest = created end
end
return {bytes, oldest}
"""


def reader(queue: TaskQueue) -> Callable[[], QueueState | None]:
    """A function that reads the state over the queue's connection; None while Redis is away."""

    def read() -> QueueState | None:
        try:
            return _read(queue)
        except redis.RedisError as error:
            log.warning("the queue's metrics cannot be read: %s", error)
            return None

    return read


def _read(queue: TaskQueue) -> QueueState:
    rq, instant = queue.rq, time.time()
    with queue.connection.pipeline(transaction=False) as pipe:
        pipe.llen(rq.key)
        pipe.llen(rq.intermediate_queue_key)
        pipe.zcount(rq.started_job_registry.key, instant, "+inf")
        pipe.eval(_WAITING, 1, rq.key, image_key(""), job_key(""))
        pipe.smembers(WORKERS_BY_QUEUE_KEY % QUEUE_NAME)
        pipe.info("memory")
        queued, taken, started, (image_bytes, oldest), workers, memory = pipe.execute()
        for key in workers:
            pipe.hget(key, "last_heartbeat")
            pipe.scard(key + b":executions")
        found: list[Any] = pipe.execute()
    alive = [
        running for beat, running in zip(found[::2], found[1::2], strict=True) if beat and _age(beat) < FRESH_SECONDS
    ]
    return QueueState(
        tasks={"queued": queued, "taken": taken, "started": started},
        image_bytes=image_bytes,
        oldest_age=max(_age(oldest), 0.0) if oldest else 0.0,
        workers={"alive": len(alive), "busy": sum(running > 0 for running in alive)},
        memory=memory["used_memory"],
        memory_limit=memory["maxmemory"],
    )


def _age(moment: bytes) -> float:
    return time.time() - datetime.fromisoformat(moment.decode()).timestamp()
