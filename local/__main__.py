"""`python -m local`: Redis, Triton, workers and gateway in the foreground, without Docker.

With `--export` a model that is not there yet is exported first.
"""

import fcntl
import json
import os
import secrets
import shlex
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import redis

from gateway.redis_connections import connect
from gateway.security.exposure import check_exposure
from gateway.settings import Settings, SettingsError, check_callbacks, load, with_files
from local import ports, triton, wheel
from local.console import Console
from local.errors import LocalError
from local.model import prepare
from local.processes import PRIVATE
from local.ready import reachable, wait_until_ready
from local.stack import DEFAULT_WORKERS, Ended, Stack, commands, gateways
from local.stack import settings as settings_of_all

STATE = "stack.json"  # in RUN_DIR while the stack runs: where its parts answer


class Size(NamedTuple):
    """How many workers, and the port of each gateway's metrics."""

    workers: int
    gateways: tuple[int, ...]


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends a running export too
    try:
        return run(os.environ)
    except LocalError as error:
        print(f"local: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def run(given: Mapping[str, str]) -> int:
    """Start everything, say when it is ready, stop everything. Raises LocalError when it cannot start or breaks."""
    settings, given = read_settings(given)
    repository = Path(given.get("MODEL_REPOSITORY") or wheel.ROOT / "model_repository").resolve()
    run_dir = Path(given.get("RUN_DIR") or wheel.ROOT / ".run").resolve()
    ports.check_free(settings.host, settings.port)
    chosen = ports.choose(given, settings.port)
    if "--export" in sys.argv[1:]:
        weights = Path(os.path.expanduser(given["WEIGHTS"])).absolute() if given.get("WEIGHTS") else None
        settings = msgspec.structs.replace(settings, model=prepare(repository, settings.model, weights))
    check_model(repository, settings.model)
    with lock(run_dir):
        os.umask(PRIVATE)  # from here on; a model that was exported above may be read by the users of containers
        shutil.rmtree(run_dir / "metrics", ignore_errors=True)  # the counts of the last run's workers
        key = settings.triton_key or new_triton_key(run_dir)
        settings = msgspec.structs.replace(settings, triton_key=key)
        all_ports = {**chosen, **redis_port(given), "PORT": settings.port}
        environment = {
            "DRAIN_SECONDS": "0",  # nobody else is asked whether this gateway is ready
            "TRITON_MEMORY_KEY": secrets.token_hex(16),  # given as nothing: images go as bytes
            **given,
            **settings_of_all(settings.model, repository, run_dir, all_ports),
            "TRITON_KEY": key,
        }
        size = stack_size(given, chosen["METRICS_PORT"])
        parts = where(settings, chosen, repository, run_dir)
        if len(size.gateways) > 1 and chosen["METRICS_PORT"]:
            host = reachable(settings.metrics_host)
            parts["gateway"]["metrics_of_all"] = [f"http://{host}:{port}/metrics" for port in size.gateways]
        state = run_dir / STATE
        try:
            state.write_text(json.dumps(parts, indent=1) + "\n")
            return run_stack(settings, environment, size, parts)
        finally:
            state.unlink(missing_ok=True)


def new_triton_key(run_dir: Path) -> str:
    """A key to Triton's model control, for the gateway, and in a file for `make export-model` and `make doctor`."""
    key, path = secrets.token_hex(16), run_dir / "triton.key"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key)
    return key


def where(settings: Settings, chosen: Mapping[str, int], repository: Path, run_dir: Path) -> dict[str, Any]:
    """Where the parts of the stack answer: what STATE holds, as JSON. A page that was switched off is left out."""
    metrics_host = reachable(settings.metrics_host)

    def page(host: str, setting: str) -> dict[str, str]:
        return {"metrics": f"http://{host}:{chosen[setting]}/metrics"} if chosen[setting] else {}

    return {
        "pid": os.getpid(),
        "model": settings.model,
        "gateway": {
            "url": f"http://{reachable(settings.host)}:{settings.port}",
            **page(metrics_host, "METRICS_PORT"),
        },
        "workers": page(metrics_host, "WORKER_METRICS_PORT"),
        "triton": {
            "http": f"127.0.0.1:{chosen['TRITON_HTTP_PORT']}",
            "grpc": f"127.0.0.1:{chosen['TRITON_GRPC_PORT']}",
            **page("127.0.0.1", "TRITON_METRICS_PORT"),
            "repository": str(repository),
            "log": str(run_dir / triton.LOG),
        },
    }


def run_stack(settings: Settings, environment: dict[str, str], size: Size, parts: Mapping[str, Any]) -> int:
    """Run all in the foreground until a signal comes, a part ends or nobody reads what they say."""
    stopping, failures = threading.Event(), list[str]()
    console = Console(when_unread=stopping.set)
    run_dir, own_redis = Path(environment["RUN_DIR"]), "LOCAL_REDIS_PORT" in environment
    others = ("triton", "webhooks", *(("redis",) if own_redis else ()))
    door = ports.door(settings.host, settings.port) if len(size.gateways) > 1 else None
    front = gateways(door, size.gateways) if door else commands(run_dir, 0, "gateway")
    stack = Stack(commands(run_dir, size.workers, *others) | front, environment, console.open, door)

    def watch() -> None:
        missing = wait_until_ready(settings, stopping, console.say, parts)
        if missing:
            failures.append(missing)
            stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    several = f"{len(size.gateways)} gateways" if door else "the gateway"
    console.say(f"Starting {'Redis, ' if own_redis else ''}Triton, {size.workers} workers and {several} ...")
    try:
        stack.start()
        if door:
            door.close()  # theirs alone: nobody is to wait at it once they have ended
        threading.Thread(target=watch, daemon=True).start()
        ended = stack.watch(stopping)
        stopping.set()
    finally:
        stack.stop()
    if ended:
        failures.append(cause(ended, console.last_words(ended.name), run_dir))
    if failures:
        raise LocalError(failures[0])
    return 0


def cause(ended: Ended, words: str, run_dir: Path) -> str:
    """Why the stack ended: which part was first, and its own words."""
    if ended.name == "triton" and not words:
        words = f"{triton.failure(run_dir / triton.LOG)} (log: {run_dir / triton.LOG})"
    ending = f"was killed by signal {-ended.status}" if ended.status < 0 else f"ended with exit status {ended.status}"
    return f"{ended.name} {ending}, so all was stopped: {words or 'it said nothing'}"


def read_settings(given: Mapping[str, str]) -> tuple[Settings, Mapping[str, str]]:
    """The settings, and the environment with the secrets that are in files."""
    try:
        given = with_files(given)
        settings = load(given)
        check_exposure(settings)
        check_callbacks(settings)
        return settings, given
    except SettingsError as error:
        raise LocalError(str(error)) from error


def stack_size(given: Mapping[str, str], metrics_port: int) -> Size:
    """WORKERS and GATEWAYS; the first gateway has `metrics_port`, further ones free ports. Raises LocalError."""
    further = count("GATEWAYS", given, 1, 64) - 1
    metrics = ports.free_ports(further) if metrics_port else [0] * further
    return Size(count("WORKERS", given, DEFAULT_WORKERS, 256), (metrics_port, *metrics))


def count(name: str, given: Mapping[str, str], default: int, most: int) -> int:
    text = given.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise LocalError(f"{name}={text}: give a whole number from 1 to {most}")
    return int(text)


def check_model(repository: Path, name: str) -> None:
    names = triton.models(repository)
    if name not in names:
        there = f"; there are: {', '.join(names)}" if names else ""
        raise LocalError(f"no model {name} in {repository}{there}; run `make export-model MODEL={shlex.quote(name)}`")


def redis_port(given: Mapping[str, str]) -> dict[str, int]:
    """A free port for an own Redis, unless REDIS_URL names one that answers."""
    url = given.get("REDIS_URL")
    if not url:
        return {"LOCAL_REDIS_PORT": ports.free_ports(1)[0]}
    try:
        with connect(url, redis.Redis, socket_timeout=5, socket_connect_timeout=5) as connection:
            connection.ping()
    except (redis.RedisError, ValueError, TypeError) as error:  # TypeError: an unknown option in the URL
        raise LocalError(f"REDIS_URL names a Redis that does not answer: {error}") from error
    return {}


def lock(run_dir: Path) -> IO[str]:
    """One stack per RUN_DIR: two servers must not write the same files. Only its owner can look into it."""
    make_private(run_dir)
    file = (run_dir / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise LocalError(f"another stack runs on {run_dir}; stop it, or set RUN_DIR to another folder") from error
    return file


def make_private(folder: Path) -> None:
    """Make the folder if need be, mode 0700. Raises LocalError for one that is somebody else's, or everybody's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & stat.S_ISVTX:
        raise LocalError(f"RUN_DIR={folder}: it is shared with other users; give a folder of your own")
    folder.chmod(0o700)


if __name__ == "__main__":
    sys.exit(main())
