"""The hosts that `make chaos` makes of this machine: they reach each other until cut off, and nothing of them stays."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from gateway.queue.results import Results
from gateway.redis_connections import connect_async
from gateway.redis_names import EVENTS_CHANNEL
from gateway.redis_pipelined import PipelinedRedis
from local import valkey
from reliability.hosts import network
from reliability.hosts.network import Network
from tests.support.stack import ROOT, running_program

REASON = network.unavailable()
needs_hosts = pytest.mark.skipif(bool(REASON), reason=REASON)
HOSTS = ("one", "two", "three")
SECONDS = 60
CONNECT = """
import socket, sys, time
begun = time.monotonic()
try:
    socket.create_connection((sys.argv[1], 9), float(sys.argv[2]))
except ConnectionRefusedError:
    print(time.monotonic() - begun)
"""
MAKE = """
import signal, subprocess
from reliability.hosts.network import network
with network(["one"]) as net:
    sleeping = subprocess.Popen(net.command("one", ["sleep", "600"]))
    print(net.prefix, sleeping.pid, flush=True)
    signal.pause()
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network.network(HOSTS) as net:
        yield net


def reaches(net: Network, here: str, there: str, seconds: float = SECONDS) -> float | None:
    """Seconds until the other host has answered, that nobody listens there; None when it has not in time."""
    command = net.command(here, [sys.executable, "-c", CONNECT, net.address[there], str(seconds)])
    done = subprocess.run(command, capture_output=True, text=True)
    return float(done.stdout) if done.stdout else None


def until(true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


@needs_hosts
def test_a_host_that_is_cut_off_reaches_nobody(net: Network) -> None:
    assert reaches(net, "one", "two") is not None
    net.cut("one")
    assert reaches(net, "one", "two", 1) is None and reaches(net, "three", "one", 1) is None
    assert reaches(net, "two", "three") is not None
    net.mend("one")
    assert reaches(net, "one", "two") is not None


@needs_hosts
def test_two_that_are_parted_reach_all_others(net: Network) -> None:
    net.part("one", "two")
    assert reaches(net, "one", "two", 1) is None and reaches(net, "two", "one", 1) is None
    assert reaches(net, "one", "three") is not None and reaches(net, "three", "two") is not None
    net.join("one", "two")
    assert reaches(net, "one", "two") is not None


@needs_hosts
@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="no /dev/net/tun for the relay")
def test_packets_are_late_and_lost(net: Network) -> None:
    with net.disturbed(150, 0):
        late = reaches(net, "one", "two")
        assert late is not None and late >= 0.3, "there and back"
    with net.disturbed(0, 100):
        assert reaches(net, "one", "two", 1) is None
    assert reaches(net, "one", "two") is not None


@needs_hosts
def test_this_thread_can_be_on_a_host_and_comes_back(net: Network) -> None:
    def addresses() -> str:
        return subprocess.run(["ip", "-brief", "address"], capture_output=True, text=True, check=True).stdout

    before = addresses()
    with net.inside("two"):
        assert f"{net.address['two']}/24" in addresses()
    assert addresses() == before and network.ADDRESSES not in before


@needs_hosts
def test_hosts_share_no_memory(net: Network) -> None:
    here = Path("/dev/shm") / f"yolo-test-{os.getpid()}"
    here.touch()
    try:
        listing = subprocess.run(net.command("one", ["ls", "-A", "/dev/shm"]), capture_output=True, text=True)
        assert (listing.returncode, listing.stdout) == (0, "")
    finally:
        here.unlink()


@needs_hosts
def test_a_gateway_notices_that_the_host_of_redis_has_vanished(
    net: Network, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where nobody sends anything, as on its subscription to the ends of tasks."""
    url = f"redis://{net.address['two']}:6379/0"
    server = net.command("two", [*valkey.command(tmp_path, "6379", "0.0.0.0"), "--protected-mode", "no"])

    async def seconds_to_notice() -> float:
        async with connect_async(url, socket_timeout=5, socket_connect_timeout=5) as connection:
            while True:
                try:
                    await connection.ping()
                    break
                except redis.RedisError:
                    await asyncio.sleep(0.1)
            listening = asyncio.create_task(Results(connection, PipelinedRedis(connection), 2).listen())
            while not (await connection.pubsub_numsub(EVENTS_CHANNEL))[0][1]:
                await asyncio.sleep(0.1)
            net.cut("two")
            begun = time.monotonic()
            while "subscription lost" not in caplog.text and time.monotonic() - begun < SECONDS:
                await asyncio.sleep(0.1)
            listening.cancel()
            return time.monotonic() - begun

    with running_program(server, {}, tmp_path / "redis.log"), net.inside("one"):
        try:
            assert asyncio.run(seconds_to_notice()) < 30, "it is asked every 5 s, and has 5 s to answer"
        finally:
            net.mend("two")


def made_by_another() -> "tuple[subprocess.Popen[str], str, int]":
    """A process that has made a host, the prefix of its names, and a process on that host."""
    maker = subprocess.Popen([sys.executable, "-c", MAKE], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert maker.stdout
    prefix, pid = maker.stdout.readline().split()
    return maker, prefix, int(pid)


def made(prefix: str) -> list[str]:
    return [name for name in network.namespaces() if name.startswith(prefix)]


def ended(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@needs_hosts
def test_hosts_go_with_who_made_them_even_when_it_is_killed(net: Network) -> None:
    maker, prefix, sleeping = made_by_another()
    with maker:
        assert len(made(prefix)) == 2
        network.remove_leftovers()
        assert len(made(prefix)) == 2 and not ended(sleeping), "it still lives"
        maker.send_signal(signal.SIGKILL)
    until(lambda: not made(prefix) and ended(sleeping))
    assert made(net.prefix), "those of others stay"


@needs_hosts
def test_what_a_killed_keeper_leaves_is_removed_by_the_next_run(net: Network) -> None:
    maker, prefix, sleeping = made_by_another()
    with maker:
        (keeper,) = [
            int(each.name)
            for each in Path("/proc").iterdir()
            if each.name.isdecimal() and f"PPid:\t{maker.pid}\n" in status(each) and "hosts.network" in words(each)
        ]
        os.kill(keeper, signal.SIGKILL)
        maker.send_signal(signal.SIGKILL)
    assert made(prefix) and not ended(sleeping)
    network.remove_leftovers()
    until(lambda: not made(prefix) and ended(sleeping))


def status(process: Path) -> str:
    try:
        return (process / "status").read_text()
    except OSError:
        return ""


def words(process: Path) -> str:
    try:
        return (process / "cmdline").read_text()
    except OSError:
        return ""


def test_without_ip_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "iproute2" in network.unavailable()


@needs_hosts
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv")
def test_without_the_right_to_make_hosts_the_report_says_that_they_were_skipped() -> None:
    code = (
        "from reliability.hosts import acts; from pathlib import Path; "
        "print(acts.all_of_them(Path('none'), Path('none'), 'none', [], acts.QUICK))"
    )
    less = ["setpriv", "--bounding-set", "-sys_admin,-net_admin", "--inh-caps", "-sys_admin,-net_admin"]
    done = subprocess.run([*less, sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("[Promise(name='several hosts'"), done.stderr
    assert "skipped: several hosts need network namespaces" in done.stdout and done.stdout.count("\n") == 1
