"""A worker and a deliverer as processes of their own, with settings of their own."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tests.api.receiving import SECRET, answers
from tests.support.internet import PUBLIC_ADDRESS, Site
from tests.support.stack import ROOT, running


def worker(
    redis_url: str, log: Path, settings: dict[str, str], seconds: float = 0
) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """A worker whose Triton is a fake that takes that many `seconds`."""
    own = {"REDIS_URL": redis_url, "WORKER_TTL": "2", "TASK_SECONDS": str(seconds), "LOG_FORMAT": "json"}
    return running("tests.api.traced_worker", {**own, **settings}, log)


@contextmanager
def receiving(redis_url: str, folder: Path, settings: dict[str, str]) -> Iterator[list[bytes]]:
    """A deliverer as a process, and what a receiver at PUBLIC_ADDRESS got of it."""
    site, loop = Site(answers(200), PUBLIC_ADDRESS), asyncio.new_event_loop()
    authority = folder / "authority.pem"
    site.authority.cert_pem.write_to_path(str(authority))
    opened = site.open()
    port = loop.run_until_complete(opened.__aenter__())
    command = [sys.executable, "-m", "tests.api.deliver", redis_url, str(port), str(authority), SECRET]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings})
    try:
        yield site.requests
    finally:
        process.kill()
        process.wait()
        asyncio.run_coroutine_threadsafe(opened.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def until(true: Any, seconds: float = 30) -> None:
    give_up_at = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
