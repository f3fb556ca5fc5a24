"""Processes of this machine through /proc: start, find, stop; CPU seconds and memory."""

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

STOP_SECONDS = 20
_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a group of its own, stopped at the end; its output goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def descendants(pid: int) -> dict[int, str]:
    """Command lines, arguments separated by spaces, of the processes below `pid` by their ids."""
    found: dict[int, str] = {}
    open_pids = [pid]
    while open_pids:
        parent = open_pids.pop()
        with suppress(OSError):
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                for child in map(int, children.read_text().split()):
                    found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ").strip()
                    open_pids.append(child)
    return found


def named(commands: Mapping[int, str], part: str) -> list[int]:
    """The processes whose command line contains `part`."""
    return [pid for pid, command in commands.items() if part in command]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes since their start, without that of their children."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def resident_megabytes(pid: int) -> float:
    """Resident memory, shared pages included, in units of 10**6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def load_average() -> float:
    return os.getloadavg()[0]


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "it said nothing"
