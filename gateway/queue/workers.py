"""Which workers are alive, by the heartbeats that they keep in Redis."""

from datetime import datetime

from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from gateway import clock
from gateway.redis_names import QUEUE_NAME

WORKERS_KEY = WORKERS_BY_QUEUE_KEY % QUEUE_NAME  # the set of their records' keys
HEARTBEAT = "last_heartbeat"  # fields of a record: RQ's, and what is wrong with the clock of its host
CLOCK = "clock"


def is_fresh(beat: bytes | None, worker_ttl: float) -> bool:
    """Whether a worker with this last heartbeat is alive: it beats four times in `worker_ttl` seconds."""
    return beat is not None and age_seconds(beat) < worker_ttl


def age_seconds(moment: bytes) -> float:
    """Seconds since a time as RQ writes it."""
    return clock.now() - datetime.fromisoformat(moment.decode()).timestamp()
