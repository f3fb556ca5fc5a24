"""Which workers are alive, by the heartbeats that they keep in Redis."""

from collections.abc import Sequence
from datetime import datetime

from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from gateway import clock
from gateway.queue.records import FORMAT
from gateway.redis_names import QUEUE_NAME

WORKERS_KEY = WORKERS_BY_QUEUE_KEY % QUEUE_NAME  # the set of their records' keys
# Fields of a record: RQ's, what is wrong with the clock of its host, the latest format of tasks that it knows.
HEARTBEAT, CLOCK, KNOWN_FORMAT = "last_heartbeat", "clock", "format"


def is_fresh(beat: bytes | None, worker_ttl: float) -> bool:
    """Whether a worker with this last heartbeat is alive: it beats four times in `worker_ttl` seconds."""
    return beat is not None and age_seconds(beat) < worker_ttl


def older(formats: Sequence[bytes | None]) -> str | None:
    """One line when workers, each with the format that it says to know, are of an older version than this process."""
    known = [int(each or 0) for each in formats]  # those of before say none
    if all(each >= FORMAT for each in known):
        return None
    behind = [each for each in known if each < FORMAT]
    latest = f"know tasks up to format {min(behind)}" if min(behind) else "do not say which format of tasks they know"
    return (
        f"{len(behind)} of {len(known)} workers are of an older version: they {latest}, this gateway writes {FORMAT}; "
        "what they do not know waits for others; start workers of this version"
    )


def age_seconds(moment: bytes) -> float:
    """Seconds since a time as RQ writes it."""
    return clock.now() - datetime.fromisoformat(moment.decode()).timestamp()
