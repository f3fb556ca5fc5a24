"""The time that one call may take, over all its tries and waits."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Real

from yolo_gateway.errors import InvalidInput

LEAST_BYTES_PER_SECOND = 200_000  # an upload gets this much longer
LONGEST_SECONDS = 1e8  # threads cannot wait for much longer


@dataclass
class Deadline:
    """Seconds from now on. Raises InvalidInput.

    `patience` is how long the service may say "later" without that being counted, `longest_wait` how long it may hold
    one request.
    """

    seconds: float
    patience: float = 0.0
    longest_wait: float = 60.0
    clock: Callable[[], float] = time.monotonic
    ends_at: float = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.seconds, Real):
            raise InvalidInput(f"timeout={self.seconds!r}: give seconds, a number")
        if not 0 <= self.seconds <= LONGEST_SECONDS:  # nor NaN
            raise InvalidInput(f"timeout={self.seconds}: give seconds, from 0 to {LONGEST_SECONDS:.0f}")
        self.ends_at = self.clock() + self.seconds

    @property
    def left(self) -> float:
        """Seconds, 0 once it is over."""
        return max(0.0, self.ends_at - self.clock())

    def extend(self, upload_bytes: int) -> None:
        """Give an upload the time that its size takes on a slow line."""
        self.ends_at += upload_bytes / LEAST_BYTES_PER_SECOND

    def wait_longer(self, seconds: float) -> None:
        """The service asks for this pause: it is not counted while there is patience for all of it."""
        if seconds <= self.patience:
            self.patience -= seconds
            self.ends_at += seconds
