"""The time as Redis has it. Every age in Redis is judged by it, since the clocks of hosts differ and some are wrong.

Between two answers of Redis to TIME the machine's steady clock counts on, so that a host whose clock is set while the
process runs changes nothing.
"""

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

MOST_WRONG_SECONDS = 2.0
_SLOWEST_ANSWER_SECONDS = 1.0  # an answer tells the time to within half of what it took
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the first one goes on while the machine sleeps


def steady() -> float:
    """Seconds that nobody sets, since some moment."""
    return time.clock_gettime(_STEADY)


class Clock:
    """Redis' time, once it was learnt; the host's until then. Thread-safe; `host` is the host's clock."""

    def __init__(self, host: Callable[[], float] = time.time) -> None:
        self._host = host
        self._base: float | None = None  # Redis' time when the steady clock was 0
        self._changed_at = float("-inf")
        self._warned = False

    def now(self) -> float:
        """Seconds since the epoch."""
        base = self._base
        return self._host() if base is None else steady() + base

    def host_ahead(self) -> float:
        """Seconds by which the host's clock is ahead of Redis', negative when it is behind."""
        return self._host() - self.now()

    def learn(self, redis_time: tuple[int, int], asked_at: float) -> None:
        """Take over what Redis has answered to TIME, asked when `steady()` was `asked_at`."""
        took = steady() - asked_at
        if took > _SLOWEST_ANSWER_SECONDS and self._base is not None:
            return
        base = redis_time[0] + redis_time[1] / 1e6 - asked_at - took / 2
        if self._base is not None and abs(base - self._base) > MOST_WRONG_SECONDS:
            log.warning("Redis' clock has jumped by %.1f s", base - self._base)
            self._changed_at = steady()
        self._base = base
        self._tell()

    def problem(self) -> str | None:
        """One line when the host's clock is too far from Redis'."""
        ahead = self.host_ahead()
        if abs(ahead) <= MOST_WRONG_SECONDS:
            return None
        return f"the host's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} Redis'; set both by NTP"

    def is_settled(self, seconds: float) -> bool:
        """Whether host and Redis agree, and Redis' clock has not jumped for so many seconds."""
        return self.problem() is None and steady() - self._changed_at >= seconds

    def _tell(self) -> None:
        """Once when it goes wrong, once when it is right again."""
        problem = self.problem()
        if problem and not self._warned:
            log.warning("%s; this process goes by Redis', and does no maintenance until they agree", problem)
        elif self._warned and not problem:
            log.info("the clocks of the host and of Redis agree again")
        self._warned = problem is not None


_CLOCK = Clock()  # of this process
now, host_ahead, learn, problem, is_settled = (
    _CLOCK.now,
    _CLOCK.host_ahead,
    _CLOCK.learn,
    _CLOCK.problem,
    _CLOCK.is_settled,
)
