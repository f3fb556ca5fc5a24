"""The worker's connection: its records are kept, its tasks begin and end, also in a Redis that is full."""

from typing import Any

import redis
from redis.client import Pipeline

from gateway.queue import scripts
from gateway.redis_names import LEADER_KEY


class WorkerRedis(redis.Redis):
    """A Redis over its `maxmemory` refuses a transaction of commands that may take memory; it is then run as a script.

    A worker takes little, and only once it works does memory become free.
    """

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _Insistent(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _Insistent(Pipeline):
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands = list(self.command_stack)
        try:
            return super().execute(raise_on_error)
        except redis.OutOfMemoryError:
            self.command_stack = commands
            words = scripts.words(self)
            self.reset()
            connection = redis.Redis(connection_pool=self.connection_pool)
            if any(command[0] == "EVAL" for command, _ in commands):  # a script cannot run scripts; alone each may
                return [connection.execute_command(*command) for command, _ in commands]  # type: ignore[no-untyped-call]
            connection.eval(scripts.INSIST, 1, LEADER_KEY, *words)
            return [None] * len(commands)
