"""What this service asks of a Redis: BLMOVE, so version 6.2, and that it forgets nothing by itself."""

from collections.abc import Mapping

LEAST_VERSION = (6, 2)
Info = Mapping[str, object]  # what INFO answers


def too_old(info: Info) -> str | None:
    """One line when this Redis lacks commands that the service needs. None: it has them, or does not say."""
    version = str(info.get("redis_version", ""))
    parts = version.split(".")[:2]
    if not all(part.isdecimal() for part in parts) or tuple(map(int, parts)) >= LEAST_VERSION:
        return None
    return f"is Redis {version}; this service needs {'.'.join(map(str, LEAST_VERSION))} or newer"


def evicting(info: Info) -> str | None:
    """One line when this Redis drops keys once it is full: tasks that were accepted may be lost."""
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction" or not info.get("maxmemory"):
        return None
    return f"drops keys when it is full, tasks and results too; set its maxmemory-policy to noeviction (it is {policy})"
