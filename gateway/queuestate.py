"""What the queue looks like, read for the metrics in two round trips. Nothing is cleaned up, moved or locked by it."""

import logging
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import redis
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from gateway.atomic import OPEN_BYTES_KEY, OPEN_KEY
from gateway.metrics import QueueState
from gateway.queue import QUEUE_NAME, job_key, rq_queue
from gateway.readiness import FRESH_SECONDS

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


def reader(connection: "redis.Redis") -> Callable[[], QueueState | None]:
    """A function that reads the state over this connection; None while Redis is away."""

    def read() -> QueueState | None:
        try:
            return _read(connection)
        except redis.RedisError as error:
            log.warning("the queue's metrics cannot be read: %s", error)
            return None

    return read


def _read(connection: "redis.Redis") -> QueueState:
    rq, instant = rq_queue(connection), time.time()
    with connection.pipeline(transaction=False) as pipe:
        pipe.llen(rq.key)
        pipe.llen(rq.intermediate_queue_key)
        pipe.zcount(rq.started_job_registry.key, instant, "+inf")
        pipe.hlen(OPEN_KEY)
        pipe.get(OPEN_BYTES_KEY)
        pipe.eval(_OLDEST, 1, rq.key, job_key(""))
        pipe.smembers(WORKERS_BY_QUEUE_KEY % QUEUE_NAME)
        pipe.info("memory")
        queued, taken, started, open_tasks, open_bytes, oldest, workers, memory = pipe.execute()
        for key in workers:
            pipe.hget(key, "last_heartbeat")
            pipe.scard(key + b":executions")
        found: list[Any] = pipe.execute()
    alive = [
        running for beat, running in zip(found[::2], found[1::2], strict=True) if beat and _age(beat) < FRESH_SECONDS
    ]
    return QueueState(
        tasks={"queued": queued, "taken": taken, "started": started},
        open_tasks=open_tasks,
        open_bytes=int(open_bytes or 0),
        oldest_age=max(_age(oldest), 0.0) if oldest else 0.0,
        workers={"alive": len(alive), "busy": sum(running > 0 for running in alive)},
        memory=memory["used_memory"],
        memory_limit=memory["maxmemory"],
    )


def _age(moment: bytes) -> float:
    return time.time() - datetime.fromisoformat(moment.decode()).timestamp()
