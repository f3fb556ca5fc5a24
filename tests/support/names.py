"""A DNS server that says what a test wants."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def name_server(addresses: list[str]) -> Iterator[int]:
    """A DNS server on 127.0.0.1, whose port is given; every name has these IPv4 addresses, whatever they are then."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def answer() -> None:
            with suppress(OSError):
                while True:
                    query, client = server.recvfrom(4096)
                    server.sendto(_answer(query, addresses), client)

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]


def _answer(query: bytes, addresses: list[str]) -> bytes:
    question = query[12 : query.index(b"\0", 12) + 5]
    found = [socket.inet_aton(each) for each in addresses] if question.endswith(b"\0\1\0\1") else []
    head = query[:2] + struct.pack(">5H", 0x8180, 1, len(found), 0, 0)
    records = (b"\xc0\x0c" + struct.pack(">2HIH", 1, 1, 1, 4) + each for each in found)
    return head + question + b"".join(records)
