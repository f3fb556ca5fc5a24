"""Requests and answers as data, and what they mean. No I/O."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import msgspec

from yolo_gateway.deadline import Deadline
from yolo_gateway.errors import ServiceError, StrangeAnswer, TaskFailed, class_of
from yolo_gateway.schema import Problem, TaskView

T = TypeVar("T")
_TRIED_AGAIN = frozenset({408, 429})  # and all from 500 on


@dataclass(frozen=True)
class Request:
    """One HTTP request. `path` is below the server's address, or a whole URL of another host, which gets no key."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    wait_seconds: float = 0.0  # how long the service may take before it begins to answer


@dataclass(frozen=True)
class Answer:
    """A whole answer; the names of headers are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Ask:
    """Have a request answered within the deadline. Raises Broken."""

    request: Request
    deadline: Deadline


@dataclass(frozen=True)
class Pause:
    """Wait before the next try."""

    seconds: float


class Broken(Exception):
    """The connection was refused, broke, or gave no whole answer in time; the message says which."""


def is_tried_again(status: int) -> bool:
    return status in _TRIED_AGAIN or status >= 500


def decoded(answer: Answer, kind: type[T]) -> tuple[T, dict[str, Any]]:
    """The body as a type of the service, and as plain data with the fields that this type lacks.

    Raises StrangeAnswer.
    """
    try:
        raw = msgspec.json.decode(answer.body)
        return msgspec.convert(raw, kind), raw
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        start = " ".join(answer.body[:60].decode(errors="replace").split())
        raise StrangeAnswer(f"the answer is not this service's: {error}; it begins with {start!r}") from error


def refusal(answer: Answer, task_id: str = "") -> ServiceError:
    """The error of an answer of 300 or more; what a proxy answers has no code."""
    retry_after = seconds_of(answer.headers.get("retry-after", ""), answer.headers.get("date", ""))
    try:
        problem = msgspec.json.decode(answer.body, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        detail = f"HTTP {answer.status}, without a reason of this service"
        return ServiceError(detail, status=answer.status, retry_after=retry_after, task_id=task_id)
    return error_of(problem, task_id, retry_after)


def error_of(problem: Problem, task_id: str = "", retry_after: float | None = None) -> ServiceError:
    return class_of(problem.code)(
        problem.detail,
        status=problem.status,
        code=problem.code,
        request_id=problem.request_id,
        retry_after=retry_after,
        task_id=task_id,
    )


def failure(view: TaskView) -> ServiceError:
    """Why a task has no result."""
    if isinstance(view.error, Problem):
        return error_of(view.error, view.task_id)
    return TaskFailed(str(view.result), status=500, task_id=view.task_id)


def seconds_of(retry_after: str, date: str) -> float | None:
    """Retry-After in seconds: it holds these or a date, which counts from the answer's own. None: neither."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        then, now = parsedate_to_datetime(retry_after), parsedate_to_datetime(date)
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError):
        return None


class Events:
    """Server-sent events line by line, https://html.spec.whatwg.org/multipage/server-sent-events.html."""

    def __init__(self) -> None:
        self._data: list[str] = []

    def feed(self, line: str) -> Iterator[bytes]:
        """The data of the event that this line completes."""
        if line.startswith("data:"):
            self._data.append(line[5:].removeprefix(" "))
        elif not line and self._data:
            yield "\n".join(self._data).encode()
            self._data = []
