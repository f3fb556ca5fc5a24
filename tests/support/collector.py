"""A collector of OpenTelemetry traces in this process: OTLP over HTTP, protobuf as from Python or JSON as Triton's."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Received:
    """One span; ids in hexadecimal digits, `parent` empty for a root, `links` the ids of other spans."""

    service: str
    name: str
    trace: str
    identity: str
    parent: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    has_failed: bool


class Collector:
    """What has come so far; `hold` seconds pass before each answer."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.raw = b""
        self.hold = 0.0
        self.url = ""

    def of(self, trace: str) -> list[Received]:
        return [span for span in list(self.spans) if span.trace == trace]

    def wait(self, trace: str, enough: Callable[[list[Received]], bool], seconds: float = 40) -> list[Received]:
        give_up_at = time.monotonic() + seconds
        while not enough(found := self.of(trace)):
            assert time.monotonic() < give_up_at, "\n".join(map(str, self.spans))
            time.sleep(0.05)
        return found

    def take(self, kind: str, body: bytes) -> None:
        self.raw += body
        if "json" in kind:
            self.spans += _from_json(json.loads(body))
        else:
            self.spans += _from_protobuf(ExportTraceServiceRequest.FromString(body))


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(collector.hold)
            collector.take(self.headers["Content-Type"], body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            collector.url = f"http://127.0.0.1:{server.server_address[1]}"
            yield collector
        finally:
            server.shutdown()
            thread.join()


def _from_protobuf(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for resource in request.resource_spans:
        of_process = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        for span in (span for scope in resource.scope_spans for span in scope.spans):
            attributes = {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}
            ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
            links = tuple(link.span_id.hex() for link in span.links)
            yield Received(of_process["service.name"], span.name, *ids, attributes, links, span.status.code == 2)


def _from_json(request: Any) -> Iterator[Received]:
    for resource in request["resourceSpans"]:
        of_process = {pair["key"]: pair["value"].get("stringValue") for pair in resource["resource"]["attributes"]}
        for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
            ids = span["traceId"], span["spanId"], span.get("parentSpanId", "")
            yield Received(of_process["service.name"], span["name"], *ids, {}, (), False)
