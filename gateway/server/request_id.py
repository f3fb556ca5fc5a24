"""A request id for every request: taken from the client, or made; in every answer and in the logs."""

import os
import re
from collections.abc import Iterable

from gateway.telemetry.logs import request_id as request_id

HEADER = "X-Request-ID"
_RAW_HEADER = HEADER.lower().encode()
_ACCEPTED = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def new_request_id() -> str:
    return os.urandom(16).hex()


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The one that a request brings, where it can be taken; the last of several. Else a new one."""
    given = b""
    for name, value in headers:
        if name == _RAW_HEADER:
            given = value
    return given.decode() if given and _ACCEPTED.fullmatch(given) else new_request_id()
