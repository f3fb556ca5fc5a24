"""The stack's parts in the foreground, as `python -m local` runs them, with shell commands as parts."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from local.console import Console
from local.stack import Ended, Stack
from local.wheel import ROOT

WAITS = "exec sleep 60"


class Foreground:
    """Ran until all has ended; `stopped` is set from the start when it is to be stopped at once."""

    def __init__(self, commands: dict[str, str], stopped: bool = False) -> None:
        self.stopping = threading.Event()
        if stopped:
            self.stopping.set()
        self.console = Console(when_unread=self.stopping.set)
        shells = {name: ["/bin/sh", "-c", command] for name, command in commands.items()}
        stack = Stack(shells, os.environ, self.console.open)
        stack.start()
        self.ended: Ended | None = stack.watch(self.stopping)
        stack.stop()


def test_first_process_to_end_is_named_with_its_last_words(capfd: pytest.CaptureFixture[str]) -> None:
    run = Foreground({"redis": WAITS, "worker.1": "echo one; echo why >&2; exit 3"})
    assert run.ended is not None and run.ended[:2] == ("worker.1", 3)
    assert run.console.last_words("worker.1") == "why"
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["worker.1  | one", "worker.1  | why"]


def test_lines_of_a_busy_part_are_whole_and_in_order(capfd: pytest.CaptureFixture[str]) -> None:
    script = "i=0; while [ $i -lt 9999 ]; do echo line $i of größe; i=$((i+1)); done; printf end; exit 3"
    run = Foreground({"worker.1": script})
    assert run.console.last_words("worker.1") == "end"
    said = [line.partition("| ")[2] for line in capfd.readouterr().out.splitlines()]
    assert said == [*(f"line {number} of größe" for number in range(9999)), "end"]


def test_servers_stop_after_those_who_use_them(tmp_path: Path) -> None:
    order = tmp_path / "order"
    told = f"trap 'echo $NAME >> {order}; exit 0' TERM; while :; do sleep 0.05; done"
    slow = told.replace("exit 0", f"sleep 0.5; echo $NAME done >> {order}; exit 0")
    commands = {"redis": f"NAME=redis; {told}", "gateway": f"NAME=gateway; {slow}"}
    commands["waits"] = "sleep 0.3; exit 0"  # ends once the others have set their traps
    Foreground(commands)
    assert order.read_text().split("\n")[:3] == ["gateway", "gateway done", "redis"]


def test_group_ends_with_its_leader(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    Foreground({"triton": f"sleep 61 > /dev/null 2>&1 & echo $! > {mark}; exit 1"})
    deadline = time.monotonic() + 5
    child = int(mark.read_text())
    while runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(child)


def runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_output_that_nobody_reads_ends_all(tmp_path: Path) -> None:
    """`make run | tee log`: Ctrl-C ends tee too, and what the parts say last has no reader."""
    ended = tmp_path / "ended"
    trap = f"trap 'echo $NAME >> {ended}; echo bye; exit 0' TERM"
    waits = "while :; do sleep 0.05; done"
    commands = {
        "redis": f"NAME=redis; {trap}; {waits}",
        "worker.1": f"NAME=worker; {trap}; sleep 0.3; echo hello; {waits}",
    }
    command = f"from tests.unit.test_local_stack import Foreground; Foreground({commands!r})"
    with subprocess.Popen([sys.executable, "-c", command], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(10) == 0
    assert ended.read_text().split() == ["worker", "redis"]


def test_stop_while_starting_ends_all() -> None:
    run = Foreground({"redis": WAITS, "worker.1": WAITS}, stopped=True)
    assert run.ended is None
