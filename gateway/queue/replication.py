"""Accepting only what replicas of Redis have too, so that a failover loses nothing that was answered."""

from collections.abc import Sequence
from typing import Any

import redis

from gateway.errors import ServiceUnavailable
from gateway.redis_names import REPLICATED_CHANNEL

WAIT_SECONDS = 2.0  # a replica that is well confirms within milliseconds

# Goes before a script that accepts. Last of ARGV: how many replicas must be there; else nothing is accepted.
GATE = """
local function online()
    local found = redis.call('info', 'replication')
    local _, number = string.gsub(found, 'state=online', '')
    return number
end
if online() < tonumber(table.remove(ARGV)) then return {'replicas'} end
"""


class Replication:
    """Adds to the pipeline that accepts tasks what makes it wait for `replicas`; 0 adds nothing."""

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas

    def guard(self, script: str, args: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        """The script and its ARGV, which then refuses as `replicas` when too few are connected."""
        return (GATE + script, (*args, self._replicas)) if self._replicas else (script, args)

    def begin(self, pipe: Any, as_one: bool) -> None:
        """`as_one`: what follows is one transaction. The pipeline's own would have WAIT in it, where it cannot wait."""
        if self._replicas and as_one:
            pipe.execute_command("MULTI")

    def end(self, pipe: Any, as_one: bool) -> None:
        """WAIT is for the writes of its connection. The message is one also where the task is known already."""
        if not self._replicas:
            return
        if as_one:
            pipe.execute_command("EXEC")
        pipe.publish(REPLICATED_CHANNEL, "")
        pipe.execute_command("WAIT", self._replicas, int(WAIT_SECONDS * 1000))

    def answer(self, answers: Sequence[Any], as_one: bool) -> Any:
        """What the script answered. Raises redis.RedisError, and ServiceUnavailable where replicas are missing."""
        if not self._replicas:
            return answers[0]
        found = answers[-3][0] if as_one else answers[0]
        if isinstance(found, redis.RedisError):
            raise found
        if found[0] == b"replicas":
            raise ServiceUnavailable(
                f"fewer than {self._replicas} replicas of Redis are connected; nothing was accepted"
            )
        if found[0] in (b"accepted", b"known") and answers[-1] < self._replicas:
            raise ServiceUnavailable(
                f"fewer than {self._replicas} replicas of Redis confirmed the task within {WAIT_SECONDS:g} s; it may "
                "run, or be lost: send it again with the same Idempotency-Key, then it is one task"
            )
        return found
