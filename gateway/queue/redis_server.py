"""What this service asks of a Redis: BLMOVE, so version 6.2, and that it forgets nothing by itself."""

from collections.abc import Mapping

LEAST_VERSION = (6, 2)
MEMORY_SHARE = 0.8  # of maxmemory, for all that is accepted; the rest is for Redis' records and for webhooks that wait
Info = Mapping[str, object]  # what INFO answers


def too_old(info: Info) -> str | None:
    """One line when this Redis lacks commands that the service needs. None: it has them, or does not say."""
    version = str(info.get("redis_version", ""))
    parts = version.split(".")[:2]
    if not all(part.isdecimal() for part in parts) or tuple(map(int, parts)) >= LEAST_VERSION:
        return None
    return f"is Redis {version}; this service needs {'.'.join(map(str, LEAST_VERSION))} or newer"


def read_only(info: Info) -> str | None:
    """One line when this Redis is a replica, which takes no writes."""
    if info.get("role", "master") != "slave":
        return None
    return "is a read-only replica now; nothing is accepted until the primary is found"


def forgetful(info: Info) -> str | None:
    """One line when a restart of this Redis loses what was accepted."""
    if info.get("aof_enabled", 1):
        return None
    return "keeps no append-only file, its restart loses what was accepted; set its appendonly to yes"


def evicting(info: Info) -> str | None:
    """One line when this Redis drops keys once it is full: tasks that were accepted may be lost."""
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction" or not info.get("maxmemory"):
        return None
    return f"drops keys when it is full, tasks and results too; set its maxmemory-policy to noeviction (it is {policy})"


def nearly_full(info: Info, reserved_bytes: int) -> str | None:
    """One line when no task is accepted since Redis, with the results of all open tasks, would be full."""
    used, most = (int(str(info.get(name) or 0)) for name in ("used_memory", "maxmemory"))
    if not most or used + reserved_bytes < MEMORY_SHARE * most:
        return None
    return (
        f"has hardly any memory left, and new tasks are refused: {used} of {most} bytes are used and {reserved_bytes} "
        "are kept for the results of open tasks; raise its maxmemory or lower RESULT_TTL"
    )
