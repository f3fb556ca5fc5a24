"""The gateway on a real socket, with a worker beside it; only Triton is a fake."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from gateway.queue.connection import WorkerRedis
from gateway.queue.task_queue import TaskQueue
from gateway.redis_connections import connect
from gateway.server.timed import server
from gateway.settings import Settings
from gateway.web.app import create_app
from gateway.worker.loop import TaskWorker
from gateway.worker.pipeline import Pipeline
from gateway.worker.processor import Processor
from tests.support.fakes import FakeTriton

_START_SECONDS = 20


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The gateway's address."""
    web = server(create_app(settings), settings)
    with socket.create_server((settings.host, 0)) as listening:
        thread = threading.Thread(target=web.run, kwargs={"sockets": [listening]}, name="gateway")
        thread.start()
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not web.started:
                assert thread.is_alive() and time.monotonic() < deadline, "the gateway did not start"
                time.sleep(0.02)
            yield f"http://{settings.host}:{listening.getsockname()[1]}"
        finally:
            web.should_exit = True
            thread.join()


@contextlib.contextmanager
def working(settings: Settings, triton: FakeTriton) -> Iterator[None]:
    """A worker takes tasks as long as the block lasts."""
    with connect(settings.redis_url, WorkerRedis, socket_timeout=10) as connection:
        worker = TaskWorker(TaskQueue(connection, settings), Processor(Pipeline(triton, settings), settings), settings)
        thread = threading.Thread(target=worker.run, name="worker")
        thread.start()
        try:
            yield
        finally:
            worker.stop()
            thread.join()
