"""The gateway as a process of its own, with a Redis and without a Triton, and raw connections to it."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.ports import free_ports
from tests.support.stack import get_status, running, wait_until

HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"


@dataclass(frozen=True)
class Gateway:
    """A running gateway on 127.0.0.1."""

    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


@contextmanager
def running_gateway(redis_url: str, folder: Path, **settings: str) -> Iterator[Gateway]:
    """`folder` takes its log."""
    (port,) = free_ports(1)
    needed = {"REDIS_URL": redis_url, "TRITON_URL": "127.0.0.1:1", "PORT": str(port), "METRICS_PORT": "0"}
    log = folder / "gateway.log"
    with running("gateway.web", {**needed, **settings}, log) as process:
        wait_until(lambda: get_status(port, "/livez") == 200, process, log)
        yield Gateway(port, process, log)


@dataclass(frozen=True)
class Answer:
    """What came over a connection until it was closed."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def read_to_end(connection: socket.socket) -> Answer | None:
    """The last answer on the connection, None when there was none."""
    received = b""
    with suppress(ConnectionError):
        while data := connection.recv(65536):
            received += data
    if not received:
        return None
    head, _, body = received[received.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(status.split()[1]), headers, body)
