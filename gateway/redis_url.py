"""Whether the Redis client can use a URL, before it is asked to at the first request."""

from urllib.parse import parse_qs, urlsplit

import redis

_OPTIONS_OF_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
# Objects cannot be given in a URL, and what this service reads is bytes.
_NEVER_IN_URL = {"retry", "retry_on_error", "credential_provider", "encoding", "encoding_errors"}


class BadRedisURL(ValueError):
    """The client cannot use the URL; the message says why."""


def without_password(url: str) -> str:
    """For people to read; the user is left out with it."""
    return f"...@{url.rpartition('@')[2]}" if "@" in url else url


def check(url: str) -> None:
    """Raises BadRedisURL for a scheme, an option, a file or a database that the client refuses, now or later."""
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
