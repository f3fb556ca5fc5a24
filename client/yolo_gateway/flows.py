"""Each call as a generator: it gives what is to be done next, gets what came of it, and returns the call's outcome.

`client.Client` does these steps, `aio.AsyncClient` awaits them; what is tried again, when, and for how long is decided
here, once.
"""

import random
from collections.abc import Callable, Generator
from typing import Any

from yolo_gateway.deadline import Deadline
from yolo_gateway.errors import NotReached, ServiceError, TaskNotFound, TaskRunning, Unfinished
from yolo_gateway.messages import Answer, Ask, Broken, Pause, Request, decoded, failure, is_tried_again, refusal
from yolo_gateway.schema import DetectionResult, TaskView

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
Read = tuple[TaskView, dict[str, Any]]


def answered(
    make: Callable[[float], Request], deadline: Deadline, task_id: str = ""
) -> Generator["Ask | Pause", Any, Answer]:
    """An answer below 300, after as many tries as the deadline has room for. `make` gets the seconds that are left.

    Raises ServiceError for what another try would not change, or that comes later than the deadline; NotReached.
    """
    attempt = 0
    while True:
        outcome = yield from _tried(make(deadline.left), deadline, task_id)
        if isinstance(outcome, Answer):
            return outcome
        yield _before_next(outcome, attempt, deadline)
        attempt += 1


def _tried(
    request: Request, deadline: Deadline, task_id: str
) -> Generator[Ask, Any, Answer | ServiceError | NotReached]:
    """An answer below 300, or what another try may not meet again. Raises ServiceError for all else."""
    try:
        answer: Answer = yield Ask(request, deadline)
    except Broken as broken:
        return NotReached(f"no answer within {deadline.seconds:g} s: {broken}")
    if answer.status < 300:
        return answer
    problem = refusal(answer, task_id)
    if not is_tried_again(answer.status):
        raise problem
    return problem


def _before_next(problem: ServiceError | NotReached, attempt: int, deadline: Deadline) -> Pause:
    """Raises the problem where the deadline comes before the next try."""
    retry_after = problem.retry_after if isinstance(problem, ServiceError) else None
    seconds = pause(attempt, retry_after)
    if retry_after is not None:
        deadline.wait_longer(seconds)
    if seconds >= deadline.left:
        raise problem
    return Pause(seconds)


def pause(attempt: int, retry_after: float | None) -> float:
    """Seconds before the next try: what the service says and up to half as much more, so that not all come at once.

    Without its word twice as long each time, by "full jitter":
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    if retry_after is not None:
        return retry_after + random.uniform(0, max(retry_after / 2, FIRST_PAUSE))
    return random.uniform(FIRST_PAUSE / 2, min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE))


def submitted(upload: Request, deadline: Deadline, wait: bool) -> Generator["Ask | Pause", Any, Read]:
    """The task of an upload, with `wait` once it has finished or the service waits no longer."""

    def make(left: float) -> Request:
        return waiting(upload, left, deadline.longest_wait) if wait else upload

    try:
        answer = yield from answered(make, deadline)
    except NotReached as error:
        error.idempotency_key = upload.headers["Idempotency-Key"]
        raise
    return decoded(answer, TaskView)


def finished(task_id: str, deadline: Deadline, known: Read | None = None) -> Generator["Ask | Pause", Any, Read]:
    """The task once it has finished, whatever its outcome. Raises Unfinished, TaskNotFound, NotReached."""
    request = Request("GET", f"/result/{task_id}")
    while known is None or known[0].status == "PENDING":
        if not deadline.left:
            raise Unfinished(f"task {task_id} has not finished within {deadline.seconds:g} s; it goes on", task_id)
        try:
            answer = yield from answered(lambda left: waiting(request, left, deadline.longest_wait), deadline, task_id)
        except NotReached as error:
            raise Unfinished(f"task {task_id} may have finished: {error}", task_id) from error
        known = decoded(answer, TaskView)
    return known


def waiting(request: Request, left: float, longest: float = 60.0) -> Request:
    """The request with the longest `wait` that ends before the deadline does."""
    seconds = round(max(0.0, min(longest, left - min(1.0, left / 10))), 2)
    params = {**request.params, "wait": f"{seconds:g}"}
    return Request(request.method, request.path, params, request.headers, request.body, seconds)


def result_of(view: TaskView) -> DetectionResult:
    """Raises TaskFailed, Unfinished."""
    if isinstance(view.result, DetectionResult):
        return view.result
    if view.status == "PENDING":
        raise Unfinished(f"task {view.task_id} has not finished", view.task_id)
    raise failure(view)


def canceled(task_id: str, deadline: Deadline) -> Generator["Ask | Pause", Any, bool]:
    """Whether the task was canceled before it began. What has begun or finished is left as it is.

    The service forgets a finished task that is deleted, so none is asked for again before its state was read.
    """
    path, attempt = f"/result/{task_id}", 0
    while True:
        view, _ = decoded((yield from answered(lambda left: Request("GET", path), deadline, task_id)), TaskView)
        if view.state not in ("queued", "retrying"):
            return view.state == "canceled"
        try:
            outcome = yield from _tried(Request("DELETE", path), deadline, task_id)
        except TaskRunning:
            return False
        if isinstance(outcome, Answer):
            return outcome.status == 200
        yield _before_next(outcome, attempt, deadline)
        attempt += 1


def forgotten(task_id: str, deadline: Deadline) -> Generator["Ask | Pause", Any, None]:
    """Delete what the service keeps of a finished task."""
    try:
        yield from answered(lambda left: Request("DELETE", f"/result/{task_id}"), deadline, task_id)
    except TaskNotFound:
        return


class Following:
    """The events of a task over as many connections as it takes."""

    def __init__(self, task_id: str, deadline: Deadline) -> None:
        self.request = Request("GET", f"/result/{task_id}/events")
        self.deadline = deadline
        self._task_id, self._last, self._attempt = task_id, b"", 0

    def changed(self, data: bytes) -> Read | None:
        """The task of an event; None for what a new connection says again."""
        if data == self._last:
            return None
        self._last, self._attempt = data, 0
        return decoded(Answer(200, {}, data), TaskView)

    def pause_after(self, problem: Broken | ServiceError | None) -> float:
        """Seconds until it is followed again. Raises the problem, or Unfinished where the time is over."""
        if isinstance(problem, ServiceError) and not is_tried_again(problem.status):
            raise problem
        seconds = pause(self._attempt, getattr(problem, "retry_after", None))
        self._attempt += 1
        if seconds >= self.deadline.left:
            reason = f": {problem}" if problem else ""
            said = f"task {self._task_id} has not finished within {self.deadline.seconds:g} s; it goes on{reason}"
            raise Unfinished(said, self._task_id) from problem
        return seconds
