"""How many requests a client may send: a bucket for each key or address, kept in Redis. One round trip a request."""

import ipaddress
import math
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple

from throttled.asyncio import Quota, RedisStore, RedisStoreBackend, Throttled, per_duration
from throttled.exceptions import StoreUnavailableError

from gateway.errors import RateLimited, ServiceUnavailable
from gateway.redis_names import FREEING, LIMIT_PREFIX
from gateway.redis_pipelined import PipelinedRedis
from gateway.values import remembered

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_IPV6_CLIENT_BITS = 64  # one client has all addresses below


class Standing(NamedTuple):
    """What a client may still do."""

    headers: dict[str, str]
    refusal: RateLimited | None


class Limiter:
    """Lets requests through at a steady rate (GCRA), after a burst of what the rate allows in its period."""

    def __init__(self, shared: PipelinedRedis) -> None:
        self._store = _Store(shared)
        self._throttles: dict[str, Throttled] = {}

    async def ask(self, client: str, rate: str) -> Standing:
        """Count a request of the client. `rate` is such as 600/minute. Raises ServiceUnavailable."""
        quota = _quota(rate)
        if rate not in self._throttles:
            self._throttles[rate] = Throttled(using="gcra", quota=quota, store=self._store, key_prefix=LIMIT_PREFIX)
        try:
            result = await self._throttles[rate].limit(client)
        except StoreUnavailableError as error:
            raise ServiceUnavailable("Redis does not answer at the moment; try again in a few seconds") from error
        state = result.state
        headers = {
            "RateLimit-Policy": f'"requests";q={state.limit};w={quota.get_period_sec()}',
            "RateLimit": f'"requests";r={0 if result.limited else state.remaining};t={math.ceil(state.reset_after)}',
        }
        if not result.limited:
            return Standing(headers, None)
        seconds = max(1, math.ceil(state.retry_after))
        return Standing(headers, RateLimited(f"more than {rate}; send the next request in {seconds} s", seconds))


@remembered(longest=50, most=4096)
def client_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or the network that an IPv6 client has for itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed), _IPV6_CLIENT_BITS), strict=False))


@cache
def _quota(rate: str) -> Quota:
    count, _, period = rate.partition("/")
    return per_duration(timedelta(seconds=_SECONDS[period]), int(count))


class _Client:
    """Has the scripts begin with a command that frees: after that a Redis that is full takes what they write.

    Reading goes on then, and is counted.
    """

    def __init__(self, shared: PipelinedRedis) -> None:
        self._shared = shared

    def register_script(self, script: str) -> Any:
        return self._shared.register_script(FREEING + script)


class _Backend(RedisStoreBackend):
    """Uses the connection that the gateway has, instead of a pool of its own."""

    def get_client(self) -> Any:
        return _Client(self.options["CLIENT"])

    @classmethod
    def _parse(cls, server: str | None = None, options: dict[str, Any] | None = None) -> Any:
        return server, options or {}


class _Store(RedisStore):
    _BACKEND_CLASS = _Backend

    def __init__(self, shared: PipelinedRedis) -> None:
        super().__init__(options={"CLIENT": shared})
