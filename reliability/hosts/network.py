"""Hosts of this machine: a network namespace each, joined by a bridge in one more; nothing else is connected to it.

A keeper in a process of its own removes all of it, with what runs there, as soon as this process has ended, however.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from local.errors import LocalError
from local.wheel import ROOT

ADDRESSES = "10.77.0"  # of the hosts, which nothing outside of them can reach
_NAMES = re.compile(r"yolo-(\d+)-(\d+)-")  # the process that made a namespace, and when that process began
_SWITCH = "switch"  # the namespace of the bridge, and the bridge
_NOBODY = "02:00:00:00:00:01"  # a link address that no host has
_GONE_SECONDS = 20
_CLONE_NEWNET = 0x40000000


class Network:
    """Hosts by their names; `disturbed` and all else take effect at once. Use `network` to make one."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self.address = {host: f"{ADDRESSES}.{number}" for number, host in enumerate(hosts, 1)}
        self.prefix = f"yolo-{os.getpid()}-{int(psutil.Process().create_time())}-"
        self._relay: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        """Raises LocalError."""
        for name in (_SWITCH, *self.address):
            _ip("netns", "add", self.prefix + name)
        self._in(_SWITCH, f"link add name {_SWITCH} type bridge", f"link set {_SWITCH} up")
        for host, address in self.address.items():
            other = self.prefix + host
            self._in(
                _SWITCH,
                f"link add name {host} type veth peer name eth0 netns {other}",
                f"link set dev {host} master {_SWITCH} up",
            )
            self._in(host, "link set lo up", "link set eth0 up", f"address add {address}/24 dev eth0")

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """The command as one of that host: with its network, and a /dev/shm of its own."""
        own_memory = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
        return ["ip", "netns", "exec", self.prefix + host, "sh", "-c", own_memory, "sh", *command]

    @contextmanager
    def inside(self, host: str) -> Iterator[None]:
        """This thread, and those that it starts, are on that host."""
        with open("/proc/thread-self/ns/net") as own, open(f"/run/netns/{self.prefix}{host}") as others:
            _enter(others.fileno())
            try:
                yield
            finally:
                _enter(own.fileno())

    def cut(self, host: str) -> None:
        """Pull the host's cable at the switch: what it sends vanishes, and what is sent to it."""
        self._in(_SWITCH, f"link set dev {host} nomaster")

    def mend(self, host: str) -> None:
        self._in(_SWITCH, f"link set dev {host} master {_SWITCH}")

    def part(self, one: str, other: str) -> None:
        """Nothing passes between these two any more; all others reach both."""
        for here, there in ((one, other), (other, one)):
            self._in(here, f"neigh replace {self.address[there]} lladdr {_NOBODY} nud permanent dev eth0")

    def join(self, one: str, other: str) -> None:
        for here, there in ((one, other), (other, one)):
            self._in(here, f"neigh del {self.address[there]} dev eth0")

    @contextmanager
    def disturbed(self, delay_ms: int, loss_percent: float) -> Iterator[str]:
        """What each host sends is late, and part of it is lost; yields by what means."""
        if self._has_netem():
            how = f"netem delay {delay_ms}ms loss {loss_percent}%"
            for host in self.address:
                _run("tc", "-n", self.prefix + host, "qdisc", "replace", "dev", "eth0", "root", *how.split())
            try:
                yield "tc netem"
            finally:
                for host in self.address:
                    _run("tc", "-n", self.prefix + host, "qdisc", "del", "dev", "eth0", "root")
        else:
            with self._relayed(delay_ms, loss_percent):
                yield "a relay: this kernel has no netem"

    def _has_netem(self) -> bool:
        command = ["tc", "-n", self.prefix + _SWITCH, "qdisc", "add", "dev", "lo", "root", "netem"]
        return shutil.which("tc") is not None and subprocess.run(command, capture_output=True).returncode == 0

    @contextmanager
    def _relayed(self, delay_ms: int, loss_percent: float) -> Iterator[None]:
        """Between the link of each host and the switch come a bridge, two taps and a process that joins them."""
        options = [str(delay_ms), str(loss_percent), *self.address]
        command = ["ip", "netns", "exec", self.prefix + _SWITCH, sys.executable, "-m", "reliability.hosts.relay"]
        relay = subprocess.Popen(
            [*command, *options], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert relay.stdin and relay.stdout
        try:
            if not relay.stdout.readline():
                raise LocalError("the relay between the hosts did not start; see above")
            for number, host in enumerate(self.address):
                self._in(
                    _SWITCH,
                    f"link add name aside{number} type bridge",
                    f"link set aside{number} up",
                    f"link set near{number} master aside{number} up",
                    f"link set far{number} master {_SWITCH} up",
                    f"link set dev {host} master aside{number}",
                )
            yield
        finally:
            for number, host in enumerate(self.address):
                self._in(_SWITCH, f"link set dev {host} master {_SWITCH}", f"link del aside{number}")
            relay.stdin.close()
            relay.wait()
            relay.stdout.close()

    def _in(self, host: str, *commands: str) -> None:
        _ip("-n", self.prefix + host, "-batch", "-", lines=commands)


@contextmanager
def network(hosts: Sequence[str]) -> Iterator[Network]:
    """Raises LocalError where it cannot be made. What earlier runs have left is removed first."""
    if reason := unavailable():
        raise LocalError(reason)
    remove_leftovers()
    command = [sys.executable, "-m", "reliability.hosts.network"]
    keeper = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True)
    assert keeper.stdin
    try:
        found = Network(hosts)
        keeper.stdin.write(found.prefix.encode())
        keeper.stdin.flush()
        found.make()
        yield found
    finally:
        keeper.stdin.close()
        keeper.wait()


def unavailable() -> str:
    """Why no hosts can be made here, in one line; empty where they can."""
    if shutil.which("ip") is None:
        return "several hosts need `ip` (Debian, Ubuntu: `apt install iproute2`)"
    name = f"yolo-{os.getpid()}-{int(psutil.Process().create_time())}-trial"
    try:
        _ip("netns", "add", name)
    except LocalError as error:
        return f"several hosts need network namespaces, which only root with CAP_NET_ADMIN can make ({error})"
    try:
        _ip("-n", name, "link", "add", "name", "one", "type", "veth", "peer", "name", "other")
        _ip("-n", name, "link", "add", "name", _SWITCH, "type", "bridge")
    except LocalError as error:
        return f"several hosts need veth and bridges, which this kernel does not make ({error})"
    finally:
        _ip("netns", "delete", name)
    return ""


def remove_leftovers() -> None:
    """The hosts of processes that have ended."""
    for name in namespaces():
        made = _NAMES.match(name)
        if made and not _lives(int(made[1]), int(made[2])):
            remove(made[0])


def remove(prefix: str) -> None:
    """All namespaces whose names begin so, with the processes in them."""
    names = [name for name in namespaces() if name.startswith(prefix)]
    give_up_at = time.monotonic() + _GONE_SECONDS
    while time.monotonic() < give_up_at and (pids := [pid for name in names for pid in processes(name)]):
        for pid in pids:
            _kill(pid)
        time.sleep(0.05)
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)  # another may have been quicker


def processes(namespace: str) -> list[int]:
    """Those in a namespace, by id."""
    found = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split() if int(pid) != os.getpid()]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def namespaces() -> list[str]:
    folder = Path("/run/netns")
    return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []


def _lives(pid: int, since: int) -> bool:
    try:
        return int(psutil.Process(pid).create_time()) == since
    except psutil.NoSuchProcess:
        return False


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):  # Python has it from 3.12 on
        raise LocalError(f"setns: {os.strerror(ctypes.get_errno())}")


def _ip(*words: str, lines: Sequence[str] = ()) -> None:
    _run("ip", *words, lines=lines)


def _run(*command: str, lines: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, env=environment)
    if done.returncode:
        what = "; ".join(lines) or " ".join(command)
        raise LocalError(f"{what}: {done.stderr.strip() or done.stdout.strip()}".replace("\n", " "))


if __name__ == "__main__":  # the keeper: told the prefix, it waits for the end of its input, that of who made the hosts
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if made_here := _NAMES.match(sys.stdin.read()):
        remove(made_here[0])
