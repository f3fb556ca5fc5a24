"""Ports of this machine."""

import errno
import socket
from contextlib import ExitStack

from local.errors import LocalError


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, all different."""
    with ExitStack() as sockets:
        found = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]


def check_free(host: str, port: int) -> None:
    """Raises LocalError if nobody could listen on that address now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As uvicorn does: connections of a server that just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            wrong = "PORT" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "HOST"
            raise LocalError(f"{host}:{port}: {reason.lower()}; choose another with `make run {wrong}=...`") from error
