"""Deliveries of ended tasks to the `callback_url`s of their clients: a queue of its own in Redis that loses nothing.

Keys: `yolo:webhooks` is a sorted set of task ids by the time at which each is due, in seconds since the epoch;
`yolo:webhook:<task_id>` a hash of `url`, `body`, `attempts`, `owner` and `trace`. Who claims a delivery moves its due
time by a lease: when the claimer dies, the delivery is due again.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import redis.asyncio as aioredis

from gateway import clock
from gateway.redis_names import FREEING, WEBHOOKS_KEY, webhook_key
from gateway.redis_pipelined import Command
from gateway.telemetry.tracing import Carrier

_KEPT_SECONDS = 86_400  # as long as nobody delivers
ASIDE_SECONDS = 0.1

# KEYS: deliveries. ARGV: instant, end of the lease, most, prefix of deliveries, most of one host, instant until which
# others of a host wait that has so many, hosts that have some under way with their numbers.
# What a slow host leaves waiting moves aside for a moment: it must not stand before what is due for others.
_CLAIM = (
    FREEING
    + """
local under_way, claimed, looked_at = {}, {}, 0
for at = 7, #ARGV, 2 do under_way[ARGV[at]] = tonumber(ARGV[at + 1]) end
while #claimed < tonumber(ARGV[3]) and looked_at < 2000 do
    local due = redis.call('zrange', KEYS[1], '-inf', ARGV[1], 'byscore', 'limit', 0, 200)
    if #due == 0 then break end
    for _, id in ipairs(due) do
        if #claimed == tonumber(ARGV[3]) then break end
        looked_at = looked_at + 1
        local key = ARGV[4] .. id
        local url = redis.call('hget', key, 'url')
        if not url then
            redis.call('zrem', KEYS[1], id)
        else
            local host = string.lower(string.match(url, '^%a+://([^/?#]*)') or url)
            if (under_way[host] or 0) >= tonumber(ARGV[5]) then
                redis.call('zadd', KEYS[1], ARGV[6], id)
            else
                under_way[host] = (under_way[host] or 0) + 1
                redis.call('zadd', KEYS[1], ARGV[2], id)
                local attempt = redis.call('hincrby', key, 'attempts', 1)
                local found = redis.call('hmget', key, 'body', 'owner', 'trace')
                table.insert(claimed, {id, url, found[1], attempt, found[2] or '', host, found[3] or ''})
            end
        end
    end
end
return claimed
"""
)

# Scripts, since a Redis that is full refuses transactions. KEYS: deliveries, delivery. ARGV: id.
_END = "redis.call('zrem', KEYS[1], ARGV[1]) redis.call('del', KEYS[2])"
# The same, then when it is due, seconds to keep it. Another process may have ended it.
_PUT_OFF = FREEING + "redis.call('zadd', KEYS[1], 'xx', ARGV[2], ARGV[1]) redis.call('expire', KEYS[2], ARGV[3])"


class Delivery(NamedTuple):
    """One try to deliver; `attempt` counts from 1, also over those whose process died.

    `owner` is the name of the key that the task came with, empty where no keys are asked for.
    """

    task_id: str
    url: str
    body: bytes
    attempt: int
    owner: str
    host: str
    trace: Carrier | None = None


def schedule(task_id: str, url: str, body: bytes, owner: str = "", trace: Carrier | None = None) -> list[Command]:
    """Commands to have `body`, the ended task as JSON, delivered to `url`, for the script in which the task ends."""
    key = webhook_key(task_id)
    known = ("owner", owner.encode()), ("trace", msgspec.json.encode(trace) if trace else b"")
    fields = [word for pair in known if pair[1] for word in pair]
    return [
        ("HSET", key, "url", url, "body", body, "attempts", 0, *fields),
        ("EXPIRE", key, _KEPT_SECONDS),
        ("ZADD", WEBHOOKS_KEY, clock.now(), task_id),
    ]


class WebhookQueue:
    """The deliverer's side; any number of processes may share the queue. Raises redis.RedisError."""

    def __init__(self, connection: "aioredis.Redis", lease_seconds: float) -> None:
        self._redis = connection
        self._lease_seconds = lease_seconds
        self._claim = connection.register_script(_CLAIM)
        self._end, self._put_off = connection.register_script(_END), connection.register_script(_PUT_OFF)

    async def claim(self, most: int, most_of_host: int, under_way: Mapping[str, int]) -> list[Delivery]:
        """Take up to `most` deliveries that are due; they are due again after the lease, unless ended before.

        Of one host no more are taken than make `most_of_host` with those that are `under_way`.
        """
        asked_at = clock.steady()
        clock.learn(await self._redis.time(), asked_at)
        now = clock.now()
        bounds = now, now + self._lease_seconds, most, webhook_key(""), most_of_host, now + ASIDE_SECONDS
        args: list[float | str] = [*bounds, *(word for pair in under_way.items() for word in pair)]
        claimed = await self._claim(keys=[WEBHOOKS_KEY], args=args)
        return [
            Delivery(task_id.decode(), url.decode(), body, attempt, owner.decode(), host.decode(), _carrier(trace))
            for task_id, url, body, attempt, owner, host, trace in claimed
        ]

    async def end(self, task_id: str) -> None:
        """Forget a delivery: it has arrived, or was given up."""
        await self._end(keys=[WEBHOOKS_KEY, webhook_key(task_id)], args=[task_id])

    async def put_off(self, task_id: str, seconds: float) -> None:
        """Try again in so many seconds."""
        args = task_id, clock.now() + seconds, int(seconds) + _KEPT_SECONDS
        await self._put_off(keys=[WEBHOOKS_KEY, webhook_key(task_id)], args=args)


def _carrier(trace: bytes) -> Carrier | None:
    return msgspec.json.decode(trace, type=Carrier) if trace else None
