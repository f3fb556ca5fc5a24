"""The real service, started once for the tests of the command line, and the command line as a process."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
import redis

from local.ports import free_ports
from tests.support import tiny
from tests.support.stack import ROOT, Stack, Triton, running_stack, running_triton

WAIT_SECONDS = 60


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A real Triton; its model finds the same two boxes in every input, which the service maps to each image."""
    repository = tmp_path_factory.mktemp("models")
    tiny.write(repository, "tiny", tiny.finder())
    with running_triton(repository, tmp_path_factory.mktemp("triton")) as server:
        yield server


@pytest.fixture(scope="session")
def metrics_port() -> int:
    (port,) = free_ports(1)
    return port


@pytest.fixture(scope="session")
def stack(triton: Triton, metrics_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {"METRICS_PORT": str(metrics_port)}
    with running_stack(triton, tmp_path_factory.mktemp("stack"), "tiny", settings=settings) as service:
        yield service


@pytest.fixture
def forgetful(stack: Stack) -> Callable[[], None]:
    """Has the service forget every task, so that nothing is answered from memory."""

    def forget() -> None:
        with redis.Redis.from_url(stack.redis_url) as connection:
            for key in connection.scan_iter("yolo:*"):
                connection.delete(key)

    return forget


def counted(metrics_port: int, name: str) -> int:
    """The sum of a counter of the gateway, over all its labels."""
    page = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10).raise_for_status().text
    return sum(int(float(line.split()[-1])) for line in page.splitlines() if line.startswith(name))


@pytest.fixture
def accepted(stack: Stack, metrics_port: int) -> Callable[[], int]:
    """How many images have become tasks so far; one that was answered from memory is none."""
    return lambda: counted(metrics_port, "yolo_gateway_accepted_images_total")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Forty images of different contents and sizes, in folders in which names recur."""
    folder = tmp_path / "photos"
    for number in range(40):
        path = folder / f"day {number % 4}" / f"image{number // 4}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.full((40 + number, 60 + 2 * number, 3), number * 5, np.uint8)
        cv2.imwrite(str(path), picture)
    return folder


class Command:
    """Runs `python -m yolo_gateway` against a service."""

    def __init__(self, server: str) -> None:
        outside = {name: value for name, value in os.environ.items() if name not in ("YOLO_GATEWAY_KEY", "NO_COLOR")}
        self.environment = {**outside, "YOLO_GATEWAY_SERVER": server, "PYTHONPATH": str(ROOT / "client")}

    def shell(self, *arguments: object) -> str:
        """The command as a line for a shell."""
        return shlex.join([sys.executable, "-m", "yolo_gateway", *map(str, arguments)])

    def start(self, *arguments: object, **options: object) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "yolo_gateway", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": self.environment} | options
        return subprocess.Popen(command, **pipes)  # type: ignore[call-overload, no-any-return]

    def run(
        self, *arguments: object, input: bytes | None = None, **options: object
    ) -> "subprocess.CompletedProcess[str]":
        """Runs to its end; output as text, in which bytes that are none are escaped."""
        with self.start(*arguments, stdin=subprocess.PIPE, **options) as process:
            out, err = process.communicate(input, timeout=WAIT_SECONDS)
        text = out.decode(errors="backslashreplace"), err.decode(errors="backslashreplace")
        assert "Traceback" not in text[1], text[1]
        return subprocess.CompletedProcess(process.args, process.returncode, *text)


@pytest.fixture
def yolo(stack: Stack) -> Command:
    return Command(stack.base_url)


def kill_when(process: "subprocess.Popen[bytes]", true: Callable[[], bool], how: int = signal.SIGKILL) -> None:
    """Signal the process as soon as it is true; fails where it ends before."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        assert process.poll() is None, f"ended before: {process.communicate()}"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)
    process.send_signal(how)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
