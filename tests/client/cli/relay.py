"""A TCP relay in front of the service that is slow or can be cut: what a network does."""

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

WAIT_SECONDS = 60


class Relay:
    """Passes connections on until it is cut, and again once it is mended; each piece `seconds` later."""

    def __init__(self, base_url: str, seconds: float = 0) -> None:
        self._seconds = seconds
        address = urlsplit(base_url)
        self._there = (str(address.hostname), int(address.port or 80))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "Relay":
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Nothing listens any more, and what was connected is not."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            self._open.clear()

    def cut_when(self, true: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not true():
            assert process.poll() is None and time.monotonic() < deadline, process.args
            time.sleep(0.002)
        self.cut()

    def mend_after(self, seconds: float) -> None:
        time.sleep(seconds)
        self._listening = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = listening.accept()
                there = socket.create_connection(self._there)
                with self._lock:
                    self._open += [here, there]
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                time.sleep(self._seconds)
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
