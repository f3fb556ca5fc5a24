"""OpenTelemetry traces, off unless the standard variables (OTEL_...) ask for them: then nothing of it is imported.

`spans` is None while they are off, and every function here returns at once.
"""

import os
from collections.abc import Iterable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway.settings import SettingsError

if TYPE_CHECKING:
    from gateway.telemetry.spans import RequestSpan, Spans

# The headers of W3C Trace Context: `traceparent`, and `tracestate` where there is one.
Carrier = dict[str, str]

spans: "Spans | None" = None
_OFF: AbstractContextManager[Any] = nullcontext()
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_INSTALL = "pip install 'yolov5-triton-gateway[tracing]'"


def start(process: str, environment: MutableMapping[str, str] = os.environ) -> None:
    """Make spans from now on as `process`, a service name, if the environment asks for it. Raises SettingsError."""
    global spans
    for name in [name for name, value in environment.items() if name.startswith("OTEL_") and not value.strip()]:
        del environment[name]  # Compose gives what is not given as empty
    if not is_wanted(environment):
        return
    if "service.name=" not in environment.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        environment.setdefault("OTEL_SERVICE_NAME", process)
    try:
        from gateway.telemetry.spans import Spans
    except ImportError as error:
        raise SettingsError(f"OTEL_... asks for traces, and {error.name} is not installed: {_INSTALL}") from error
    spans = Spans()


def is_wanted(environment: MutableMapping[str, str]) -> bool:
    """Whether the environment asks for traces. Raises SettingsError for what this service cannot do."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    if not exporter and not any(environment.get(name) for name in _ENDPOINTS):
        return False
    if exporter not in ("", "otlp"):
        raise SettingsError(f"OTEL_TRACES_EXPORTER={exporter}: give otlp or none")
    for name in _PROTOCOLS:
        if environment.get(name, "http/protobuf") != "http/protobuf":
            raise SettingsError(f"{name}={environment[name]}: give http/protobuf, which collectors take on port 4318")
    for name in _ENDPOINTS:
        if name in environment and not _is_url(environment[name]):
            raise SettingsError(f"{name}: give a URL such as http://collector:4318")
    return True


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def stop() -> None:
    """Send what is left, for a bounded time."""
    global spans
    if spans is not None:
        spans.close()
        spans = None


def request(
    method: str, path: str, headers: Iterable[tuple[bytes, bytes]]
) -> AbstractContextManager["RequestSpan | None"]:
    """A request of a client, with the trace that its headers name; None where it has no span."""
    return _OFF if spans is None else spans.request(method, path, headers)


def enqueue(tasks: int) -> AbstractContextManager[None]:
    """The acceptance of so many tasks."""
    return _OFF if spans is None else spans.enqueue(tasks)


def execution(task_id: str, execution_id: str, trace: Carrier | None, former: str) -> AbstractContextManager[None]:
    """One execution of a task; `former` is the id of the one before, empty at the first."""
    return _OFF if spans is None else spans.execution(task_id, execution_id, trace, former)


def step(name: str) -> AbstractContextManager[None]:
    """A part of what is being done."""
    return _OFF if spans is None else spans.step(name)


def delivery(task_id: str, host: str, attempt: int, trace: Carrier | None) -> AbstractContextManager[None]:
    """One try to deliver a webhook."""
    return _OFF if spans is None else spans.delivery(task_id, host, attempt, trace)


def lost(task_id: str, execution_id: str, trace: Carrier | None, seconds: float) -> None:
    """An execution whose worker died some `seconds` after its begin: nobody else can make its span."""
    if spans is not None:
        spans.lost(task_id, execution_id, trace, seconds)


def carrier() -> Carrier | None:
    """What others need to go on with the current trace, None where there is none."""
    return None if spans is None else spans.carrier()


def sampled() -> Carrier | None:
    """The same, None also for a trace that is not recorded: Triton records whatever it is given."""
    return None if spans is None else spans.sampled()


def note(**attributes: str | int | float) -> None:
    """Attributes of the current span; a double underscore in a name is a dot."""
    if spans is not None:
        spans.note(attributes)


def failed(code: str) -> None:
    """The current span ends in this error."""
    if spans is not None:
        spans.failed(code)
