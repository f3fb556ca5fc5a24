"""A connection between client and server that breaks where a test wants it to."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Cutting:
    """Passes bytes on between clients and a server on 127.0.0.1, and closes both ends once an answer is to be lost."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._loses = threading.Event()
        self._open: list[socket.socket] = []
        self._on_cut: Callable[[], object] = lambda: None
        self.cuts = 0

    def lose_answer(self, on_cut: Callable[[], object] = lambda: None) -> None:
        """The next answer is lost, with its connection: whatever was asked has happened. Before that, call `on_cut`."""
        self._on_cut = on_cut
        self._loses.set()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._open += client, server
                for source, target, answers in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass, args=(source, target, answers), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if answers and self._loses.is_set():
                    self._loses.clear()
                    self._on_cut()
                    self.cuts += 1
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def cutting(server_port: int) -> Iterator[Cutting]:
    between = Cutting(server_port)
    accepting = threading.Thread(target=between.accept)
    accepting.start()
    try:
        yield between
    finally:
        between.close()
        accepting.join()
