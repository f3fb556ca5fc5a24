"""A connection to Redis that one thread keeps for the few commands that every task needs.

redis-py's client takes a connection from its pool for each command, looks whether it is still good, and repeats the
command by itself where it is not. Here several commands leave in one write, and whoever sends them decides what is
repeated. Connecting stays the library's: TLS, password, database, Sentinels.
"""

from collections.abc import Sequence
from hashlib import sha1
from typing import Any

import redis

from gateway.redis_pipelined import Command, Word, packed

_sources: dict[Word, str] = {}  # of all scripts of this process, by their digests


class Script:
    """A script, and the commands that run it; `keys` and `args` are those that never change, and come first."""

    def __init__(self, source: str, keys: Sequence[str] = (), args: Sequence[Word] = ()) -> None:
        self._sha = sha1(source.encode()).hexdigest().encode()
        _sources[self._sha] = source
        self._keys = tuple(key.encode() for key in keys)
        self._args = tuple(str(arg).encode() for arg in args)

    def command(self, keys: Sequence[str] = (), args: Sequence[Word] = ()) -> Command:
        number = len(self._keys) + len(keys)
        return b"EVALSHA", self._sha, number, *self._keys, *keys, *self._args, *args


class KeptConnection:
    """Not thread-safe. Each of its commands may have run when `ask` raises; the next call connects again."""

    def __init__(self, pool: "redis.ConnectionPool") -> None:
        self._connection: Any = pool.make_connection()
        self._is_connected = False

    def ask(self, *commands: Command) -> list[Any]:
        """The replies, in order; that of a command which Redis refused is a redis.ResponseError.

        Raises redis.RedisError when the connection is lost.
        """
        replies = self._ask(commands)
        for at, reply in enumerate(replies):
            if isinstance(reply, redis.exceptions.NoScriptError):  # Redis was started anew
                _, sha, *words = commands[at]
                replies[at : at + 1] = self._ask([(b"EVAL", _sources[sha], *words)])
        return replies

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        connection = self._connection
        try:
            if not self._is_connected:
                connection.connect()
                self._is_connected = True
            parts = [part for command in commands for part in packed(command)]
            connection.send_packed_command([b"".join(parts)], check_health=False)
            return [self._reply() for _ in commands]
        except BaseException:  # what is still to come belongs to no other command
            self._is_connected = False
            connection.disconnect()
            raise

    def _reply(self) -> Any:
        try:
            return self._connection.read_response()
        except redis.ResponseError as error:
            return error
