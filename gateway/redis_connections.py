"""The one place where connections to Redis are made: plain, with TLS, or to the primary that Sentinels name.

A primary that was demoted refuses writes with READONLY. Here that counts as a lost connection: it is closed, and the
next one goes to whatever the name or the Sentinels point to by then. Only replies that are errors are looked at.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import redis
import redis.asyncio as aioredis
import redis.asyncio.connection as aioconnection
import redis.asyncio.sentinel as aiosentinel
import redis.sentinel
from redis._parsers import _AsyncHiredisParser, _HiredisParser
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway import redis_url

_Client = TypeVar("_Client", bound="redis.Redis")

# How a blocked command and a script of Redis 6.2 say it, in the middle of their lines.
_DEMOTED = ("READONLY", "UNBLOCKED", "MASTERDOWN")

# What a connection that was cut has swallowed is asked once more, by itself redis-py does it ten times; a Sentinel that
# is silent not at all, there are others.
ONCE_MORE = NoBackoff(), 1, (redis.ConnectionError,)


class Demoted(redis.ConnectionError):
    """This Redis is a replica now: nothing was written, and a new connection finds the primary."""


def _demoted(reply: str) -> Demoted | None:
    return Demoted(f"it is not the primary any more ({reply})") if any(word in reply for word in _DEMOTED) else None


class _Parser(_HiredisParser):
    @classmethod
    def parse_error(cls, response: str) -> Exception:
        return _demoted(response) or super().parse_error(response)  # type: ignore[no-untyped-call]


class _AsyncParser(_AsyncHiredisParser):
    @classmethod
    def parse_error(cls, response: str) -> Exception:
        return _demoted(response) or super().parse_error(response)  # type: ignore[no-untyped-call]


def _no_primary(service: str, error: Exception, sentinels: Sequence[Any]) -> str:
    """In one line: redis-py's own has all that it knows of each connection."""
    line = f"no Sentinel names a primary for {service!r}"
    if str(error) == f"No master found for {service!r}":
        return f"{line}; is that its name in `sentinel monitor`, and is it up?"
    options = [each.connection_pool.connection_kwargs for each in sentinels]
    asked = ", ".join(f"{each['host']}:{each['port']}" for each in options)
    return f"{line}: not all of {asked} answer"


class _Sentinel(redis.sentinel.Sentinel):
    def discover_master(self, service_name: str) -> Any:
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except redis.sentinel.MasterNotFoundError as error:
            raise type(error)(_no_primary(service_name, error, self.sentinels)) from None


class _AsyncSentinel(aiosentinel.Sentinel):
    async def discover_master(self, service_name: str) -> Any:
        try:
            return await super().discover_master(service_name)
        except aiosentinel.MasterNotFoundError as error:
            raise type(error)(_no_primary(service_name, error, self.sentinels)) from None


class _SentinelPool(aiosentinel.SentinelConnectionPool):
    """Closes the connections to the Sentinels with its own."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:  # else only the primary has changed
            await self.sentinel_manager.aclose()


class _BlockingSentinelPool(_SentinelPool, aioconnection.BlockingConnectionPool):
    """Waits for a free connection, as the pool without Sentinels does."""


def connect(url: str, kind: type[_Client], **options: Any) -> _Client:
    """A client of this kind; `options` are those of redis-py's connections. Nothing is sent yet."""
    options["parser_class"] = _Parser
    if not redis_url.has_sentinels(url):
        plain: _Client = kind.from_url(url, **options)  # type: ignore[assignment]
        return plain
    parts = redis_url.parse_sentinels(url)
    of_sentinels, options = parts.of_sentinels() | {"retry": Retry(*ONCE_MORE)}, {**parts.of_redis(), **options}
    manager = _Sentinel(parts.addresses, sentinel_kwargs=of_sentinels)  # type: ignore[no-untyped-call]
    client: _Client = manager.master_for(parts.service, kind, **options)  # type: ignore[no-untyped-call]
    return client


def connect_async(url: str, **options: Any) -> "aioredis.Redis":
    """An asyncio client; with `max_connections` it waits for a free one. Nothing is sent yet."""
    options["parser_class"] = _AsyncParser
    is_bounded = "max_connections" in options
    if not redis_url.has_sentinels(url):
        kind = aioconnection.BlockingConnectionPool if is_bounded else aioconnection.ConnectionPool
        return aioredis.Redis.from_pool(kind.from_url(url, **options))
    parts = redis_url.parse_sentinels(url)
    of_sentinels, options = parts.of_sentinels() | {"retry": AsyncRetry(*ONCE_MORE)}, {**parts.of_redis(), **options}
    manager = _AsyncSentinel(parts.addresses, sentinel_kwargs=of_sentinels)  # type: ignore[no-untyped-call]
    pool = _BlockingSentinelPool if is_bounded else _SentinelPool
    client: aioredis.Redis = manager.master_for(parts.service, connection_pool_class=pool, **options)
    return client
