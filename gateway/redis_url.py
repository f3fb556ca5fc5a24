"""Whether the Redis client can use a URL, before it is asked to at the first request; URLs that name Sentinels."""

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

import redis
from redis.connection import parse_url

_OPTIONS_OF_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
# Objects cannot be given in a URL, and what this service reads is bytes.
_NEVER_IN_URL = {"retry", "retry_on_error", "credential_provider", "encoding", "encoding_errors"}
_SENTINEL_SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
_OF_SENTINELS = {"sentinel_username": "username", "sentinel_password": "password"}
_SENTINEL_PORT = 26379
_SENTINEL_SECONDS = 2.0  # until the next Sentinel is asked
SENTINEL_FORM = "redis+sentinel://[user:password@]host:26379[,host:26379...]/name of the primary[/database]"


class BadRedisURL(ValueError):
    """The client cannot use the URL; the message says why."""


class Sentinels(NamedTuple):
    """What a URL with Sentinels says: their addresses, the name of the primary, options of Redis and of Sentinels."""

    addresses: list[tuple[str, int]]
    service: str
    redis: dict[str, Any]
    sentinels: dict[str, Any]

    def of_redis(self) -> dict[str, Any]:
        return dict(self.redis)

    def of_sentinels(self) -> dict[str, Any]:
        """With the same TLS as Redis, and a password of their own."""
        tls = {name: value for name, value in self.redis.items() if name.startswith("ssl")}
        seconds = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), _SENTINEL_SECONDS)
        return {**seconds, **tls, **self.sentinels}


def has_sentinels(url: str) -> bool:
    return urlsplit(url).scheme in _SENTINEL_SCHEMES


def parse_sentinels(url: str) -> Sentinels:
    """Raises BadRedisURL."""
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not all(hosts.split(",")):
        raise BadRedisURL(f"give {SENTINEL_FORM}")
    query = parse_qsl(parts.query)
    rest = urlencode([(name, value) for name, value in query if name not in _OF_SENTINELS])
    scheme = _SENTINEL_SCHEMES[parts.scheme]
    plain = f"{scheme}://{credentials}{'@' if credentials else ''}redis/{database}?{rest}"
    _check_plain(plain)
    options: dict[str, Any] = parse_url(plain)  # type: ignore[no-untyped-call]
    del options["host"]
    if options.pop("connection_class", None):
        options["ssl"] = True
    of_sentinels = {_OF_SENTINELS[name]: value for name, value in query if name in _OF_SENTINELS}
    return Sentinels([_address(host) for host in hosts.split(",")], unquote(service), options, of_sentinels)


def _address(host: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname or "", parts.port or _SENTINEL_PORT
    except ValueError as error:
        raise BadRedisURL(f"the Sentinel {host}: {error}") from error


def without_password(url: str) -> str:
    """For people to read; the user is left out with it."""
    shown = f"...@{url.rpartition('@')[2]}" if "@" in url else url
    return re.sub(r"((?:^|[?&_])(?:password|username)=)[^&]*", r"\1...", shown)


def check(url: str) -> None:
    """Raises BadRedisURL for a scheme, an option, a file or a database that the client refuses, now or later."""
    try:
        sentinels = has_sentinels(url)
    except ValueError as error:
        raise BadRedisURL(str(error)) from error
    if sentinels:
        parse_sentinels(url)
    else:
        _check_plain(url)


def _check_plain(url: str) -> None:
    try:
        redis.ConnectionPool.from_url(url).make_connection()
        parts = urlsplit(url)
        options = parse_qs(parts.query)
    except (ValueError, TypeError, redis.RedisError) as error:  # TypeError: an unknown option of the query
        raise BadRedisURL(str(error).rpartition("__init__() got an ")[2]) from error
    if refused := sorted(_NEVER_IN_URL & set(options)):
        raise BadRedisURL(f"{refused[0]} is no option of a URL")
    database = parts.path.strip("/") if parts.scheme != "unix" else ""
    if (database and not database.isdecimal()) or options.get("db", ["0"])[0].startswith("-"):
        raise BadRedisURL("the database is a number from 0")
    for name in _OPTIONS_OF_FILES:
        for path in options.get(name, []):
            try:
                open(path).close()
            except OSError as error:
                raise BadRedisURL(f"{name}: {error}") from error
