"""Looks after tritonserver: it does not notice when one of its model processes dies, and sends it requests for ever;
and it lets every user of the machine read its shared memory, whatever the umask is.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

_LOOK_SECONDS = 2.0
_LOOK_AT_MEMORY_SECONDS = 0.1
_MEMORY = Path("/dev/shm")


def look_after_this_process(memory: str) -> None:
    """Fork a watcher that ends this process, which becomes tritonserver, once a child of it has died.

    It also shuts the regions of shared memory whose names begin with `memory` to other users, soon after they appear.

    tritonserver waits only for the model processes that it ends itself; one that was killed, or ran out of memory,
    stays a zombie. Ended, the server is missed, and whoever keeps it starts it again.
    """
    server = os.getpid()
    if os.fork():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the server may take its time to end, the watcher ends with it
    dead: set[int] = set()
    while os.getppid() == server:
        seen = zombies(server)
        if dead & seen:
            print("error: a process of the model has died (killed, or out of memory); Triton ends", flush=True)
            os.kill(server, signal.SIGKILL)
            time.sleep(_LOOK_SECONDS)
            if os.getppid() == server:  # process 1 of a container cannot be killed from inside
                os.kill(server, signal.SIGTERM)
            break
        dead = seen
        for _ in range(round(_LOOK_SECONDS / _LOOK_AT_MEMORY_SECONDS)):
            make_private(memory)
            time.sleep(_LOOK_AT_MEMORY_SECONDS)
    sys.stdout.flush()
    os._exit(0)


def make_private(memory: str) -> None:
    """Mode 0600 for the regions of shared memory whose names begin so."""
    for region in _MEMORY.glob(f"{memory}*"):
        with suppress(FileNotFoundError):
            if region.stat().st_mode & 0o077:
                region.chmod(0o600)


def zombies(parent: int) -> set[int]:
    """Children of a process that have ended and that it has not waited for."""
    found = set()
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(parent).children():
            if child.status() == psutil.STATUS_ZOMBIE:
                found.add(child.pid)
    return found
