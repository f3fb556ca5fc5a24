"""A proxy that does harm: answers are lost, cut, late or not the service's, connections break."""

import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class Hostile:
    """Does `harm` to one request after the other, and passes on what comes later.

    lost: the service gets the request, the client no answer; cut: half an answer; drip: an answer of one byte a second;
    hang: nothing; garbage: a page of somebody else; a number: an answer of that status.
    """

    def __init__(self, service: str) -> None:
        self._service = urlsplit(service)
        self.harm: list[str | int] = []
        self.headers: dict[str, str] = {}  # of the answers that it makes up
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.stopped = threading.Event()
        hostile = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None: ...

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:
                    self.close_connection = True

            def do_GET(self) -> None:
                hostile.handle(self)

            do_POST = do_DELETE = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Hostile":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.command, request.path, headers))
        harm = self.harm.pop(0) if self.harm else "pass"
        if harm == "hang":
            self.stopped.wait(30)
            request.close_connection = True
        elif isinstance(harm, int) or harm == "garbage":
            status = harm if isinstance(harm, int) else 200
            self._send(request, status, self.headers, b"<html>Sign in to the guest network</html>")
        else:
            self._pass(request, harm, body, headers)

    def _pass(self, request: BaseHTTPRequestHandler, harm: str, body: bytes, headers: dict[str, str]) -> None:
        connection = http.client.HTTPConnection(self._service.netloc, timeout=70)
        connection.request(request.command, request.path, body or None, headers)
        answer = connection.getresponse()
        kept = {name.lower(): value for name, value in answer.getheaders()}
        data = answer.read()
        connection.close()
        if harm == "lost":
            request.close_connection = True
            request.connection.close()
            return
        sent = data[: len(data) // 2] if harm == "cut" else data
        self._send(request, answer.status, kept | {"content-length": str(len(data))}, sent, slowly=harm == "drip")
        request.close_connection |= harm == "cut"

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes, slowly: bool = False
    ) -> None:
        request.send_response_only(status)
        for name, value in ({"content-length": str(len(body))} | headers).items():
            if name not in ("transfer-encoding", "connection"):
                request.send_header(name, value)
        request.end_headers()
        for at in range(0, len(body), 1 if slowly else len(body)):
            request.wfile.write(body[at : at + 1] if slowly else body)
            if slowly and not self.stopped.is_set():
                time.sleep(1)
