"""Logging: one JSON object a line for machines, one plain line for people; ids of request, task and trace on each."""

import contextvars
import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.task import timestamp

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
task_id: contextvars.ContextVar[str] = contextvars.ContextVar("task_id", default="")
trace_id: contextvars.ContextVar[str] = contextvars.ContextVar("trace_id", default="")

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


@contextmanager
def about(*, task: str, request: str) -> Iterator[None]:
    """Everything that is logged inside is about this task and the request that brought it."""
    tokens = task_id.set(task), request_id.set(request), trace_id.set("")
    try:
        yield
    finally:
        task_id.reset(tokens[0])
        request_id.reset(tokens[1])
        trace_id.reset(tokens[2])


def configure(level: str, log_format: str, process: str) -> None:
    """Log to standard error, `json` or `text`; `process` is the name of this kind of process in each JSON line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines(process) if log_format == "json" else Text())
    # What no line shows is not looked up: it takes 2 of 14 µs.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("rq", "httpx", "httpcore", "uvicorn"):  # httpcore would log the signatures of webhooks
        logging.getLogger(noisy).setLevel(logging.WARNING)


class JSONLines(logging.Formatter):
    """A record as one JSON object; the fields of `extra` are next to the message."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            **_ids(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class Text(logging.Formatter):
    """A record as a line for people: time, level, message, then name=value."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        pairs = "".join(f" {name}={value}" for name, value in {**_extra(record), **_ids()}.items())
        line = f"{clock} {record.levelname} {record.name}: {record.getMessage()}{pairs}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _ids() -> dict[str, str]:
    found = {"request_id": request_id.get(), "task_id": task_id.get(), "trace_id": trace_id.get()}
    return {name: value for name, value in found.items() if value}


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _OWN}
