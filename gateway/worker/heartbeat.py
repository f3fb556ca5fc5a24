"""The thread by which others see that a worker lives."""

import logging
import os
import threading
import time
from collections.abc import Callable

import redis

log = logging.getLogger("gateway.worker")


class Heartbeat:
    """Calls `beat` every quarter of `ttl_seconds`, and `maintain` after each beat that was on time.

    After a late beat the other workers' may be late too, and they are not dead. A defect here ends the process, before
    the others count it as dead while it still works.
    """

    def __init__(self, ttl_seconds: float, beat: Callable[[], None], maintain: Callable[[], None]) -> None:
        self._ttl_seconds, self._beat, self._maintain = ttl_seconds, beat, maintain
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        fresh_at = time.monotonic()
        try:
            while not self._stopped.wait(self._ttl_seconds / 4):
                try:
                    self._beat()
                    late, fresh_at = time.monotonic() - fresh_at > self._ttl_seconds / 2, time.monotonic()
                    if not late:
                        self._maintain()
                except redis.RedisError as error:
                    log.warning("heartbeat not written: %s", error)
        finally:
            if not self._stopped.is_set():
                log.critical("the heartbeat has stopped by a defect; this worker ends before it counts as dead")
                os._exit(1)
