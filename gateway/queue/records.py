"""What travels from the gateway to a worker, and what is kept of a task and of a batch."""

import msgspec

from gateway.task import Problem

# Of a result in JSON: one detection, its label and the corners of the largest image among it, and all the rest.
_DETECTION_BYTES, _END_BYTES = 160, 2_000


# Of what gateways write for workers. It goes up with each choice that a worker of before would leave out of account;
# such a worker gives the task back. 1: what has no number.
FORMAT = 2


class TaskRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One image to detect in, with every choice made. `accepted_at` is in seconds since the epoch.

    `labels` are those of `classes` in the version that was served then; another one may count its classes otherwise.
    """

    model: str
    accepted_at: float
    version: str = ""
    confidence: float = 0.25
    iou: float = 0.45
    max_detections: int = 300
    classes: list[int] | None = None
    labels: list[str] | None = None
    agnostic_nms: bool = False
    annotate: bool = False
    callback_url: str = ""
    request_id: str = ""
    batch_id: str = ""
    owner: str = ""  # the name of the key that it came with, where there is a callback
    trace: dict[str, str] | None = None  # W3C Trace Context; a worker that leaves it out changes no outcome
    format: int = 1

    @property
    def end_bytes(self) -> int:
        """What the end of the task takes in Redis at most: twice with a callback, whose body is kept too."""
        result = _END_BYTES + self.max_detections * _DETECTION_BYTES
        return 2 * result if self.callback_url else result


class BatchEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One part of a batch: a task, or the reason why it was refused."""

    index: int
    filename: str
    task_id: str = ""
    error: Problem | None = None
