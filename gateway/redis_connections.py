"""The one place where connections to Redis are made: plain, with TLS, or to the primary that Sentinels name.

A primary that was demoted refuses writes with READONLY. Here that counts as a lost connection: it is closed, and the
next one goes to whatever the name or the Sentinels point to by then. Only replies that are errors are looked at.
"""

import socket
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

# Of a Sentinel: one that is silent is not asked again, there are others. By itself redis-py asks it eleven times.
_ONCE_MORE = NoBackoff(), 1, (redis.ConnectionError,)

# A host that has vanished is noticed after 5 s of silence and three questions, 11 s in all; by itself redis-py sets 45.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 3}


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
    of_sentinels, options = parts.of_sentinels() | {"retry": Retry(*_ONCE_MORE)}, {**parts.of_redis(), **options}
    manager = redis.sentinel.Sentinel(parts.addresses, sentinel_kwargs=of_sentinels)  # type: ignore[no-untyped-call]
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
    of_sentinels, options = parts.of_sentinels() | {"retry": AsyncRetry(*_ONCE_MORE)}, {**parts.of_redis(), **options}
    manager = aiosentinel.Sentinel(parts.addresses, sentinel_kwargs=of_sentinels)  # type: ignore[no-untyped-call]
    pool = _BlockingSentinelPool if is_bounded else _SentinelPool
    client: aioredis.Redis = manager.master_for(parts.service, connection_pool_class=pool, **options)
    return client


def connect_listening(url: str) -> "aioredis.Redis":
    """An asyncio client for a subscription. Silence is usual there, so the system asks whether the other end lives."""
    return connect_async(url, socket_connect_timeout=5, health_check_interval=15, socket_keepalive_options=_KEEPALIVE)
