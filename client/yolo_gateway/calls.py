"""What both clients share of their calls."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from yolo_gateway import flows
from yolo_gateway.deadline import Deadline
from yolo_gateway.inputs import Source
from yolo_gateway.messages import Answer, Ask, Pause, Request
from yolo_gateway.prediction import Prediction

DEFAULT_SECONDS, READY_SECONDS = 60.0, 6.0


def fetched(url: str, deadline: Deadline) -> Generator[Ask | Pause, Any, bytes]:
    """An image of another host: it gets neither key nor anything else of this client."""
    answer: Answer = yield from flows.answered(lambda left: Request("GET", url), deadline)
    return answer.body


def predicted(upload: Request, deadline: Deadline) -> Generator[Ask | Pause, Any, flows.Read]:
    """The finished task of an upload."""
    known = yield from flows.submitted(upload, deadline, wait=True)
    return (yield from flows.finished(known[0].task_id, deadline, known))


def prediction(read: flows.Read, source: Source | None) -> Prediction:
    """The result of a task that was read. Raises TaskFailed, Unfinished."""
    view, raw = read
    found = flows.result_of(view)
    own = found.model, found.image, found.detections, found.timings_ms, found.warnings
    return Prediction(view.task_id, *own, raw["result"], source)
