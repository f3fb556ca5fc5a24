"""The supervisor of `python -m local`, with shell commands as processes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local.supervisor import Supervisor
from local.triton import ROOT

WAITS = "exec sleep 60"


def loop(commands: dict[str, str], when_started: str = "") -> Supervisor:
    """Run until all has ended; `when_started` is a process to be stopped for, or nothing."""
    supervisor = Supervisor(when_started=lambda: supervisor.terminate() if when_started else None)
    for name, command in commands.items():
        supervisor.add_process(name, command)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        supervisor.loop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return supervisor


def test_first_process_to_end_is_named_with_its_last_words(capfd: pytest.CaptureFixture[str]) -> None:
    supervisor = loop({"redis.1": WAITS, "worker.1": "echo one; echo why >&2; exit 3"})
    assert supervisor.ended == ("worker.1", 3)
    assert supervisor.console.last_words("worker.1") == "why"
    assert "system" not in capfd.readouterr().out


def test_servers_stop_after_those_who_use_them(tmp_path: Path) -> None:
    order = tmp_path / "order"
    told = f"trap 'echo $NAME >> {order}; exit 0' TERM; while :; do sleep 0.05; done"
    slow = told.replace("exit 0", f"sleep 0.5; echo $NAME done >> {order}; exit 0")
    commands = {"redis.1": f"NAME=redis; {told}", "gateway.1": f"NAME=gateway; {slow}"}
    commands["waits.1"] = "sleep 0.3; exit 0"  # ends once the others have set their traps
    loop(commands)
    assert order.read_text().split("\n")[:3] == ["gateway", "gateway done", "redis"]


def test_group_ends_with_its_leader(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    loop({"triton.1": f"sleep 61 > /dev/null 2>&1 & echo $! > {mark}; exit 1"})
    deadline = time.monotonic() + 5
    child = Path("/proc") / mark.read_text().strip()
    while child.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists() or "State:\tZ" in (child / "status").read_text()


def test_output_that_nobody_reads_ends_all(tmp_path: Path) -> None:
    """`make run | tee log`: Ctrl-C ends tee too, and what the processes say last has no reader."""
    ended = tmp_path / "ended"
    waits = f"trap 'echo $NAME >> {ended}; echo bye; exit 0' TERM; while :; do sleep 0.05; done"
    commands = {"redis.1": f"NAME=redis; {waits}", "worker.1": f"NAME=worker; echo hello; {waits}"}
    command = f"from tests.unit.test_local_supervisor import loop; loop({commands!r})"
    with subprocess.Popen([sys.executable, "-c", command], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(10) == 0
    assert ended.read_text().split() == ["worker", "redis"]


def test_stop_while_starting_ends_all() -> None:
    supervisor = loop({"redis.1": WAITS, "worker.1": WAITS}, when_started="stop")
    assert supervisor.ended is None and supervisor.stopping.is_set()
