"""The time that one call may take, over all its tries and waits."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

LEAST_BYTES_PER_SECOND = 200_000  # an upload gets this much longer


@dataclass
class Deadline:
    """Seconds from now on."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    ends_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.ends_at = self.clock() + self.seconds

    @property
    def left(self) -> float:
        """Seconds, 0 once it is over."""
        return max(0.0, self.ends_at - self.clock())

    def extend(self, upload_bytes: int) -> None:
        """Give an upload the time that its size takes on a slow line."""
        self.ends_at += upload_bytes / LEAST_BYTES_PER_SECOND
