"""Deliveries of ended tasks to the `callback_url`s of their clients: a queue of its own in Redis that loses nothing.

Keys: `yolo:webhooks` is a sorted set of task ids by the time at which each is due, in seconds since the epoch;
`yolo:webhook:<task_id>` a hash of `url`, `body` and `attempts`. Who claims a delivery moves its due time by a lease:
when the claimer dies, the delivery is due again.
"""

import time
from typing import NamedTuple

import redis
import redis.asyncio as aioredis

from gateway.redis_names import WEBHOOKS_KEY, webhook_key

_KEPT_SECONDS = 86_400  # as long as nobody delivers

_CLAIM = """
local claimed = {}
for _, id in ipairs(redis.call('zrange', KEYS[1], '-inf', ARGV[1], 'byscore', 'limit', 0, ARGV[3])) do
    local key = ARGV[4] .. id
    if redis.call('exists', key) == 1 then
        redis.call('zadd', KEYS[1], ARGV[2], id)
        local attempt = redis.call('hincrby', key, 'attempts', 1)
        table.insert(claimed, {id, redis.call('hget', key, 'url'), redis.call('hget', key, 'body'), attempt})
    else
        redis.call('zrem', KEYS[1], id)
    end
end
return claimed
"""


class Delivery(NamedTuple):
    """One try to deliver; `attempt` counts from 1, also over those whose process died."""

    task_id: str
    url: str
    body: bytes
    attempt: int


def schedule(pipe: "redis.client.Pipeline", task_id: str, url: str, body: bytes) -> None:
    """Have `body`, the ended task as JSON, delivered to `url`: part of the transaction in which the task ends."""
    key = webhook_key(task_id)
    pipe.hset(key, mapping={"url": url, "body": body, "attempts": 0})
    pipe.expire(key, _KEPT_SECONDS)
    pipe.zadd(WEBHOOKS_KEY, {task_id: time.time()})


class WebhookQueue:
    """The deliverer's side; any number of processes may share the queue. Raises redis.RedisError."""

    def __init__(self, connection: "aioredis.Redis", lease_seconds: float) -> None:
        self._redis = connection
        self._lease_seconds = lease_seconds
        self._claim = connection.register_script(_CLAIM)

    async def claim(self, most: int) -> list[Delivery]:
        """Take up to `most` deliveries that are due; they are due again after the lease, unless ended before."""
        now = time.time()
        args: list[float | str] = [now, now + self._lease_seconds, most, webhook_key("")]
        claimed = await self._claim(keys=[WEBHOOKS_KEY], args=args)
        return [Delivery(task_id.decode(), url.decode(), body, attempt) for task_id, url, body, attempt in claimed]

    async def end(self, task_id: str) -> None:
        """Forget a delivery: it has arrived, or was given up."""
        async with self._redis.pipeline() as pipe:
            pipe.zrem(WEBHOOKS_KEY, task_id)
            pipe.delete(webhook_key(task_id))
            await pipe.execute()

    async def put_off(self, task_id: str, seconds: float) -> None:
        """Try again in so many seconds."""
        async with self._redis.pipeline() as pipe:
            pipe.zadd(WEBHOOKS_KEY, {task_id: time.time() + seconds}, xx=True)  # another process may have ended it
            pipe.expire(webhook_key(task_id), int(seconds) + _KEPT_SECONDS)
            await pipe.execute()
