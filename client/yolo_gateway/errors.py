"""Every error of the client.

YoloGatewayError
├── InvalidInput           what was given is no image that can be sent (a ValueError)
├── NotReached             no answer came, or none that is whole, within the time of the call (a ConnectionError)
├── StrangeAnswer          what answers at the address is no YOLOv5 gateway
├── Unfinished             the time of the call is over, the task goes on: `task_id` (a TimeoutError)
└── ServiceError           an answer with a `code`, one class for each
    ├── Refused            the request was not accepted
    └── TaskFailed         the task was accepted and has failed: `task_id`
"""


class YoloGatewayError(Exception):
    """Base of all errors of this package."""


class InvalidInput(YoloGatewayError, ValueError):
    """What was given cannot be sent as an image; the message says what to give."""


class NotReached(YoloGatewayError, ConnectionError):
    """No whole answer came within the time of the call. Whether a request was accepted is not known."""


class StrangeAnswer(YoloGatewayError):
    """What answers at the address is no YOLOv5 gateway, or something between stands in its way."""


class Unfinished(YoloGatewayError, TimeoutError):
    """The time of the call is over. The task goes on: `client.task(error.task_id).wait()` waits for it."""

    def __init__(self, detail: str, task_id: str) -> None:
        super().__init__(detail)
        self.task_id = task_id


class ServiceError(YoloGatewayError):
    """An error of the service: `code` is for programs, `detail` for people, `request_id` for the service's logs.

    `retry_after` is in seconds, `status` of HTTP. A code that this version does not know is this class itself.
    """

    code: str = ""

    def __init__(
        self,
        detail: str,
        *,
        status: int,
        code: str = "",
        request_id: str = "",
        retry_after: float | None = None,
        task_id: str = "",
    ) -> None:
        super().__init__(f"{detail} (request {request_id})" if request_id else detail)
        self.detail, self.status, self.code = detail, status, code or self.code
        self.request_id, self.retry_after, self.task_id = request_id, retry_after, task_id


class Refused(ServiceError):
    """Nothing was accepted."""


class TaskFailed(ServiceError):
    """The task was accepted and has no result."""


class MalformedRequest(Refused):
    code = "malformed_request"


class Unauthorized(Refused):
    code = "unauthorized"


class CrossSite(Refused):
    code = "cross_site"


class RequestTimeout(Refused):
    code = "request_timeout"


class UnknownHost(Refused):
    code = "unknown_host"


class RateLimited(Refused):
    code = "rate_limited"


class TooManyOpenTasks(Refused):
    code = "too_many_open_tasks"


class PathNotFound(Refused):
    code = "not_found"


class MethodNotAllowed(Refused):
    code = "method_not_allowed"


class NotAcceptable(Refused):
    code = "not_acceptable"


class HeadersTooLarge(Refused):
    code = "headers_too_large"


class BadMultipart(Refused):
    code = "bad_multipart"


class NoImage(Refused):
    code = "no_image"


class SwitchedOff(Refused):
    code = "switched_off"


class PriorityNotAllowed(Refused):
    code = "priority_not_allowed"


class TaskNotFound(Refused):
    code = "task_not_found"


class ImageTooLarge(Refused):
    code = "image_too_large"


class UnsupportedImage(Refused):
    code = "unsupported_image"


class TaskRunning(Refused):
    code = "task_running"


class ModelNotFound(Refused):
    code = "model_not_found"


class NoPicture(Refused):
    code = "no_picture"


class BadJSON(Refused):
    code = "bad_json"


class TooManyImages(Refused):
    code = "too_many_images"


class IdempotencyConflict(Refused):
    code = "idempotency_conflict"


class UrlNotAllowed(Refused):
    code = "url_not_allowed"


class FetchFailed(Refused):
    code = "fetch_failed"


class InvalidParameter(Refused):
    code = "invalid_parameter"


class ServiceUnavailable(Refused):
    code = "service_unavailable"


class Overloaded(Refused):
    code = "overloaded"


class ShuttingDown(Refused):
    code = "shutting_down"


class Canceled(TaskFailed):
    code = "canceled"


class InvalidImage(TaskFailed):
    code = "invalid_image"


class ImageExpired(TaskFailed):
    code = "image_expired"


class ModelUnavailable(TaskFailed):
    code = "model_unavailable"


class ModelMismatch(TaskFailed):
    code = "model_mismatch"


class WorkerLost(TaskFailed):
    code = "worker_lost"


class InternalError(TaskFailed):
    code = "internal_error"


_CLASSES: dict[str, type[ServiceError]] = {
    each.code: each for base in (Refused, TaskFailed) for each in base.__subclasses__()
}


def class_of(code: str) -> type[ServiceError]:
    """The class of a code; ServiceError for one that is not known."""
    return _CLASSES.get(code, ServiceError)
