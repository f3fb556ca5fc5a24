"""How many tasks end a second, as counted in Redis over the last minute."""

import math
from collections.abc import Sequence

from gateway import clock
from gateway.redis_names import rate_key

BUCKET_SECONDS = 10
BUCKETS = 6
KEPT_SECONDS = 120


def counter_key(seconds: float) -> str:
    """The counter of the tasks that ended around `seconds` since the epoch."""
    return rate_key(int(seconds // BUCKET_SECONDS))


def rate_keys(instant: float) -> list[str]:
    """The counters of the last minute, newest first."""
    return [counter_key(instant - age * BUCKET_SECONDS) for age in range(BUCKETS)]


def tasks_per_second(counters: Sequence[bytes | str | None], instant: float | None = None) -> float:
    """The rate that the values of `rate_keys(instant)` tell; 0 when no task has ended in the last minute.

    Counters of ten seconds in which nothing ended do not count: there was nothing to do.
    """
    ended = [int(counter or 0) for counter in counters]
    if not any(ended):
        return 0.0
    current = (clock.now() if instant is None else instant) % BUCKET_SECONDS
    seconds = sum(BUCKET_SECONDS if age else current for age, count in enumerate(ended) if count)
    return sum(ended) / max(seconds, 1.0)


def retry_after(tasks: int, per_second: float) -> int:
    """Seconds until half of the open tasks have ended at that rate, from 1 to 120; 60 where no rate is known."""
    if not per_second:
        return 60
    return max(1, min(120, math.ceil(tasks / per_second / 2)))
