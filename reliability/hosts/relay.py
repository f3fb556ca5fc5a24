"""`python -m reliability.hosts.relay DELAY_MS LOSS_PERCENT HOST...`: late and lossy cables, for kernels without netem.

For the host number N it makes the taps `nearN` and `farN` in its own network namespace, and passes frames between
them: at once toward the host, late or not at all away from it. It ends with its input.
"""

import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x2, 0x1000
_LARGEST = 65_600
_AT_ONCE = 32  # frames of one tap, before the next has its turn


def tap(name: str) -> int:
    """The file of a tap, which lives as long as it is open."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return file


def relay(near: list[int], far: list[int], delay: float, loss: float, stop: int) -> None:
    """Until `stop` can be read. Files of taps; seconds, and the part that is lost."""
    other = dict(zip(near, far, strict=True)) | dict(zip(far, near, strict=True))
    outward, late = set(near), deque[tuple[float, int, bytes]]()
    poll = select.epoll()
    for file in (*other, stop):
        poll.register(file, select.EPOLLIN)
    while True:
        wait = max(0.0, late[0][0] - time.monotonic()) if late else None
        for file, _ in poll.poll(wait):
            if file == stop:
                return
            for frame in received(file):
                if file not in outward:
                    send(other[file], frame)
                elif random.random() >= loss:
                    late.append((time.monotonic() + delay, other[file], frame))
        while late and late[0][0] <= time.monotonic():
            send(*late.popleft()[1:])


def received(file: int) -> list[bytes]:
    frames: list[bytes] = []
    try:
        while len(frames) < _AT_ONCE:
            frames.append(os.read(file, _LARGEST))
    except OSError:  # there is no more, or the tap is not up
        pass
    return frames


def send(file: int, frame: bytes) -> None:
    try:
        os.write(file, frame)
    except OSError:  # a queue that is full, a tap that is not up: the frame is lost, as it would be on a cable
        pass


def main(delay_ms: str, loss_percent: str, *hosts: str) -> None:
    near, far = ([tap(f"{side}{number}") for number in range(len(hosts))] for side in ("near", "far"))
    print("ready", flush=True)
    relay(near, far, float(delay_ms) / 1000, float(loss_percent) / 100, sys.stdin.fileno())


if __name__ == "__main__":
    main(*sys.argv[1:])
