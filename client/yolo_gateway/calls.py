"""What both clients share of their calls."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import msgspec

from yolo_gateway import flows
from yolo_gateway.deadline import Deadline
from yolo_gateway.errors import InvalidInput, NotReached, ServiceError
from yolo_gateway.inputs import Source
from yolo_gateway.messages import Answer, Ask, Pause, Request, decoded
from yolo_gateway.prediction import Prediction
from yolo_gateway.schema import ModelList

TASK_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
DEFAULT_SECONDS, READY_SECONDS, PATIENCE_SECONDS = 60.0, 6.0, 600.0
MANY_WAIT_SECONDS = 5.0  # of one request among many: whoever breaks off has to wait for it


class Models(ModelList):
    """The models that are served, `default` is asked by default; `raw` is all that was answered."""

    raw: dict[str, Any] = msgspec.field(default_factory=dict)


def fetched(url: str, deadline: Deadline) -> Generator[Ask | Pause, Any, bytes]:
    """An image of another host: it gets neither key nor anything else of this client. Raises InvalidInput."""
    try:
        answer: Answer = yield from flows.answered(lambda left: Request("GET", url), deadline)
    except (ServiceError, NotReached) as error:
        why = f"HTTP {error.status}" if isinstance(error, ServiceError) else error
        raise InvalidInput(f"{url.partition('?')[0]} cannot be fetched: {why}; give a URL of an image") from error
    return answer.body


def reading(task_id: str) -> Request:
    """The request that reads a task. Raises InvalidInput for what would be another path."""
    if not (isinstance(task_id, str) and TASK_ID.fullmatch(task_id)):
        raise InvalidInput(f"{task_id!r} is no task id; give the task_id of a task or a prediction")
    return Request("GET", f"/result/{task_id}")


def predicted(upload: Request, deadline: Deadline) -> Generator[Ask | Pause, Any, flows.Read]:
    """The finished task of an upload."""
    known = yield from flows.submitted(upload, deadline, wait=True)
    return (yield from flows.finished(known[0].task_id, deadline, known))


def models(deadline: Deadline) -> Generator[Ask | Pause, Any, Models]:
    """What GET /models tells."""
    answer: Answer = yield from flows.answered(lambda left: Request("GET", "/models"), deadline)
    listed, raw = decoded(answer, Models)
    return msgspec.structs.replace(listed, raw=raw)


def prediction(read: flows.Read, source: Source | None) -> Prediction:
    """The result of a task that was read. Raises TaskFailed, Unfinished."""
    view, raw = read
    found = flows.result_of(view)
    own = found.model, found.image, found.detections, found.timings_ms, found.warnings
    return Prediction(view.task_id, *own, raw["result"], source)
