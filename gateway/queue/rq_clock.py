"""RQ asks the host for the time, through two functions; `follow` has all of RQ ask `gateway.clock` instead.

Executions, worker records and registries then hold Redis' time whatever the host believes.
"""

import sys
from datetime import UTC, datetime

import rq.utils

from gateway import clock


def now() -> datetime:
    return datetime.fromtimestamp(clock.now(), UTC)


def current_timestamp() -> int:
    return int(clock.now())


_OWN = {"now": (rq.utils.now, now), "current_timestamp": (rq.utils.current_timestamp, current_timestamp)}


def follow() -> None:
    """Put them in place, also where modules of RQ have imported the functions by name."""
    for module in [module for name, module in sys.modules.items() if name == "rq" or name.startswith("rq.")]:
        for name, (theirs, ours) in _OWN.items():
            if getattr(module, name, None) is theirs:
                setattr(module, name, ours)
