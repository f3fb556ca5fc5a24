"""A Lua script, sent as the digest of its text once the server knows it."""

from collections.abc import Sequence
from hashlib import sha1
from typing import Any

import redis
import redis.asyncio as aioredis

Words = Sequence[bytes | str | int | float]


class Script(str):
    """The text itself; `call` and `acall` run it by its digest, and by its text where the server has not seen it."""

    digest: str

    def __new__(cls, text: str) -> "Script":
        script = super().__new__(cls, text)
        script.digest = sha1(text.encode()).hexdigest()  # by which Redis knows it
        return script

    def call(self, connection: "redis.Redis", keys: Words, args: Words) -> Any:
        try:
            return connection.evalsha(self.digest, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            return connection.eval(self, len(keys), *keys, *args)

    async def acall(self, connection: "aioredis.Redis", keys: Words, args: Words) -> Any:
        try:
            return await connection.evalsha(self.digest, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            return await connection.eval(self, len(keys), *keys, *args)
