"""Ports of this machine."""

import errno
import random
import socket
from collections.abc import Mapping
from itertools import islice

from local.errors import LocalError

# Each part's usual port: Triton's own, and those of gateway/settings.py.
USUAL = {
    "TRITON_HTTP_PORT": 8000,
    "TRITON_GRPC_PORT": 8001,
    "TRITON_METRICS_PORT": 8002,
    "METRICS_PORT": 9464,
    "WORKER_METRICS_PORT": 9465,
}


# Systems give the ports above these to connections, which could take one before its server listens.
_FOR_SERVERS = range(10_000, 32_768)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, all different."""
    free = (port for port in random.sample(_FOR_SERVERS, len(_FOR_SERVERS)) if _is_free(port))
    return list(islice(free, count))


def check_free(host: str, port: int, setting: str = "PORT") -> None:
    """Raises LocalError if nobody could listen on that address now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As uvicorn does: connections of a server that just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            wrong = setting if error.errno in (errno.EADDRINUSE, errno.EACCES) else "HOST"
            raise LocalError(f"{host}:{port}: {reason.lower()}; choose another with `make run {wrong}=...`") from error


def door(host: str, port: int) -> socket.socket:
    """A socket that listens there, for several processes. Raises LocalError."""
    check_free(host, port)
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)


def choose(given: Mapping[str, str], gateway_port: int) -> dict[str, int]:
    """A port for each of `USUAL`: the given one, else the usual one, else, where another program has that, a free one.

    A metrics port of 0 stays 0: no metrics. Raises LocalError for a given port that cannot be had.
    """
    chosen = {setting: _number(setting, given[setting]) for setting in USUAL if given.get(setting)}
    for setting, port in chosen.items():
        if port:
            check_free("127.0.0.1", port, setting)
    for setting, port in USUAL.items():
        if setting not in chosen:
            taken = port in (gateway_port, *chosen.values()) or not _is_free(port)
            chosen[setting] = free_ports(1)[0] if taken else port
    ports = [port for port in (*chosen.values(), gateway_port) if port]
    if twice := [port for port in ports if ports.count(port) > 1]:
        settings = " and ".join([setting for setting, port in chosen.items() if port == twice[0]] or ["PORT"])
        raise LocalError(f"{settings}={twice[0]}: this port is given to two parts; give each its own")
    return chosen


def _number(setting: str, text: str) -> int:
    least = 0 if setting in ("METRICS_PORT", "WORKER_METRICS_PORT") else 1
    if not text.isdecimal() or not least <= int(text) <= 65535:
        raise LocalError(f"{setting}={text}: give a port, {least} to 65535")
    return int(text)


def _is_free(port: int) -> bool:
    try:
        check_free("127.0.0.1", port)
    except LocalError:
        return False
    return True
