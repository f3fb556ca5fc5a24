"""Spans with OpenTelemetry's SDK, which reads its own variables. Imported only where traces are wanted.

No span holds an image, the name of a file, a URL, a query or a key; of a request only the route is kept.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.settings import SettingsError
from gateway.telemetry import logs
from gateway.telemetry.tracing import Carrier

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 2.0
_LONGEST_STATE = 512  # of tracestate; a longer one may be left out
_SILENT_SECONDS = 600.0
_POLLED = frozenset({"/livez", "/readyz"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUEUE = {"messaging.system": "redis", "messaging.destination.name": "predict"}

_W3C = TraceContextTextMapPropagator()


class RequestSpan:
    """The span of a request that is being answered."""

    def __init__(self, span: Span, method: str) -> None:
        self._span = span
        self._method = method

    def finish(self, route: str, status: int) -> None:
        """`route` is the template of the path, `none` where there is none."""
        if not self._span.is_recording():
            return
        if route != "none":
            self._span.update_name(f"{self._method} {route}")
            self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        self._span.set_attribute("yolo.request_id", logs.request_id.get())
        if status >= 500:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(Status(StatusCode.ERROR))


class Spans:
    """Makes the spans of this process, and sends them from a thread of its own. Raises SettingsError."""

    def __init__(self) -> None:
        self._ids = _Ids()
        with _complaints() as found:
            try:
                self._provider = TracerProvider(id_generator=self._ids, shutdown_on_exit=False)
                self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
            except (ValueError, OSError, RuntimeError) as error:
                found.append(str(error))
        if found:
            if found[0].startswith("Header"):  # the SDK's line has the value, which is a key
                raise SettingsError("OTEL_EXPORTER_OTLP_HEADERS: give name=value, several with commas, URL-encoded")
            raise SettingsError(f"one of the variables OTEL_... has no meaning: {found[0]}")
        self._tracer = self._provider.get_tracer("gateway")
        sdk = logging.getLogger("opentelemetry")
        sdk.handlers, sdk.propagate = [_Seldom()], False

    def close(self) -> None:
        """Send what is left. A collector that does not answer keeps no process from ending."""
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)

    @contextmanager
    def request(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[RequestSpan | None]:
        if path in _POLLED:
            yield None
            return
        wanted = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in _CONTEXT}
        method = method if method in _METHODS else "_OTHER"
        parent, attributes = _W3C.extract(wanted, Context()), {"http.request.method": method}
        with self._current(self._tracer.start_span(method, parent, SpanKind.SERVER, attributes)) as span:
            yield RequestSpan(span, method)

    @contextmanager
    def enqueue(self, tasks: int) -> Iterator[None]:
        attributes: dict[str, str | int] = {**_QUEUE, "messaging.operation.type": "send"}
        attributes["messaging.batch.message_count"] = tasks
        with self._current(self._tracer.start_span("predict send", None, SpanKind.PRODUCER, attributes)):
            yield

    @contextmanager
    def execution(self, task_id: str, execution_id: str, carrier: Carrier | None, former: str) -> Iterator[None]:
        with self._current(self._execution(task_id, execution_id, carrier, former, None)):
            yield

    def lost(self, task_id: str, execution_id: str, carrier: Carrier | None, seconds: float) -> None:
        begun = time.time_ns() - int(seconds * 1e9)
        span = self._execution(task_id, execution_id, carrier, "", begun)
        span.set_attribute("error.type", "worker_died")
        span.set_status(Status(StatusCode.ERROR))
        span.end()

    def _execution(self, task_id: str, identity: str, carrier: Carrier | None, former: str, begun: int | None) -> Span:
        """Its id follows from that of the execution: so a retry can name it, and who finds it dead can make it."""
        parent = _W3C.extract(carrier or {}, Context())
        origin = trace.get_current_span(parent).get_span_context()
        links = [Link(_sibling(origin, _span_id(former)))] if former and origin.is_valid else None
        attributes = {**_QUEUE, "messaging.operation.type": "process", "messaging.message.id": task_id}
        with self._ids.given(_span_id(identity)):
            return self._tracer.start_span("predict process", parent, SpanKind.CONSUMER, attributes, links, begun)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        if not trace.get_current_span().is_recording():
            yield
            return
        with self._current(self._tracer.start_span(name)):
            yield

    @contextmanager
    def delivery(self, task_id: str, host: str, attempt: int, carrier: Carrier | None) -> Iterator[None]:
        parent = _W3C.extract(carrier or {}, Context())
        attributes: dict[str, str | int] = {"http.request.method": "POST", "server.address": host}
        attributes |= {"messaging.message.id": task_id, "http.request.resend_count": attempt - 1}
        with self._current(self._tracer.start_span("webhook POST", parent, SpanKind.CLIENT, attributes)):
            yield

    def carrier(self) -> Carrier | None:
        found: Carrier = {}
        _W3C.inject(found)
        if len(found.get("tracestate", "")) > _LONGEST_STATE:
            del found["tracestate"]
        return found or None

    def sampled(self) -> Carrier | None:
        return self.carrier() if trace.get_current_span().is_recording() else None

    def note(self, attributes: Mapping[str, str | int | float]) -> None:
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attributes({name.replace("__", "."): value for name, value in attributes.items()})

    def failed(self, code: str) -> None:
        span = trace.get_current_span()
        span.set_attribute("error.type", code)
        span.set_status(Status(StatusCode.ERROR))

    @contextmanager
    def _current(self, span: Span) -> Iterator[Span]:
        """Exceptions are named by their class only: messages may name what a client sent."""
        logs.trace_id.set(f"{span.get_span_context().trace_id:032x}")
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            except Exception as error:
                self.failed(getattr(error, "code", type(error).__name__))
                raise


_CONTEXT = frozenset({b"traceparent", b"tracestate"})


class _Ids(RandomIdGenerator):
    """Random ids, but for a span that others must be able to name."""

    def __init__(self) -> None:
        self._given: ContextVar[int] = ContextVar("span_id", default=0)

    @contextmanager
    def given(self, span_id: int) -> Iterator[None]:
        token = self._given.set(span_id)
        try:
            yield
        finally:
            self._given.reset(token)

    def generate_span_id(self) -> int:
        return self._given.get() or super().generate_span_id()


def _span_id(execution_id: str) -> int:
    """RQ's ids of executions are random: 32 hexadecimal digits."""
    return int(execution_id[:16], 16)


def _sibling(origin: SpanContext, span_id: int) -> SpanContext:
    return SpanContext(origin.trace_id, span_id, is_remote=True, trace_flags=origin.trace_flags)


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What the SDK logs: it would go on with a default in place of a value that it does not understand."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    sdk = logging.getLogger("opentelemetry")
    propagates, sdk.propagate = sdk.propagate, False
    sdk.addHandler(handler)
    try:
        yield found
    finally:
        sdk.removeHandler(handler)
        sdk.propagate = propagates


class _Seldom(logging.Handler):
    """What the SDK says while a collector is away, each thing once in ten minutes and in one line."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if record.msg.startswith("Transient") or now - self._said.get(record.msg, -_SILENT_SECONDS) < _SILENT_SECONDS:
            return
        self._said[record.msg] = now
        log.warning("spans are lost, tasks are not: %s", record.getMessage())
