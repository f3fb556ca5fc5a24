"""Processes of this machine: each leads a group of its own, so that nothing it has started outlives it."""

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

STOP_SECONDS = 20
PRIVATE = 0o077  # umask: files and shared memory that hold pictures are for their owner only


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    output: IO[bytes],
    folder: Path,
    files: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Start a command in `folder`; what it says goes to `output`. `environment` is its whole environment.

    It inherits the open `files`.
    """
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        umask=PRIVATE,
        pass_fds=files,
    )


@contextmanager
def running(
    command: Sequence[str], settings: Mapping[str, str], log: Path, folder: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """A command with this process's environment and `settings`; stopped when the block is left."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = start(command, os.environ | dict(settings), output, folder)
    with stopping(process):
        yield process


@contextmanager
def stopping(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Ends the process and its group when the block is left."""
    try:
        yield
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]", seconds: float = STOP_SECONDS) -> None:
    """Ask it to end; what is left of it and its group after that time is killed."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    kill_group(process.pid)
    process.wait()


def kill_group(leader: int, number: signal.Signals = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def tree(pid: int) -> list[psutil.Process]:
    """A process and all below it; empty when it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def resident_bytes(processes: Iterable[psutil.Process]) -> int:
    """Resident memory, shared pages included; a process that has ended counts nothing."""
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "it said nothing"
