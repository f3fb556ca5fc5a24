"""Every error a client can receive.

    GatewayError
    ├── RequestError           the request is wrong: 4xx, answered at once
    │   ├── MalformedRequest   400 malformed_request
    │   ├── Unauthorized       401 unauthorized
    │   ├── CrossSite          403 cross_site
    │   ├── RequestTimeout     408 request_timeout
    │   ├── UnknownHost        421 unknown_host
    │   ├── RateLimited        429 rate_limited
    │   ├── TooManyOpenTasks   429 too_many_open_tasks
    │   ├── PathNotFound       404 not_found
    │   ├── MethodNotAllowed   405 method_not_allowed
    │   ├── NotAcceptable      406 not_acceptable
    │   ├── HeadersTooLarge    431 headers_too_large
    │   ├── BadMultipart       400 bad_multipart
    │   ├── NoImage            400 no_image
    │   ├── SwitchedOff        403 switched_off
    │   ├── PriorityNotAllowed 403 priority_not_allowed
    │   ├── TaskNotFound       404 task_not_found
    │   ├── ImageTooLarge      413 image_too_large
    │   ├── UnsupportedImage   415 unsupported_image
    │   ├── TaskRunning        409 task_running
    │   ├── ModelNotFound      404 model_not_found
    │   ├── NoPicture          404 no_picture
    │   ├── BadJSON            400 bad_json
    │   ├── TooManyImages      413 too_many_images
    │   ├── IdempotencyConflict 422 idempotency_conflict
    │   ├── UrlNotAllowed      422 url_not_allowed
    │   ├── FetchFailed        422 fetch_failed
    │   └── InvalidParameter   422 invalid_parameter
    ├── ServiceUnavailable     503 service_unavailable: Redis or the model is not available
    ├── Overloaded             503 overloaded: too much is waiting already
    ├── ShuttingDown           503 shutting_down
    └── TaskFailed             the task finishes as FAILURE; never retried
        ├── Canceled           410 canceled
        ├── InvalidImage       422 invalid_image
        ├── ImageExpired       410 image_expired
        ├── ModelUnavailable   503 model_unavailable
        ├── ModelMismatch      500 model_mismatch
        ├── WorkerLost         500 worker_lost
        └── InternalError      500 internal_error

`status` is the HTTP status of the problem object, `code` its machine-readable name, `title` the same for all
occurrences; the message of the exception is the `detail`: one line that says what, where and what to do.
"""

from typing import ClassVar


class GatewayError(Exception):
    """Base of all errors that reach a client as RFC 9457 problem details."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"
    retry_after: int | None = None  # seconds, for the header of that name

    @property
    def detail(self) -> str:
        return " ".join(str(self).split())  # what a client has sent may stand in it

    @property
    def headers(self) -> dict[str, str]:
        """Headers that the answer has because of this error."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class RequestError(GatewayError):
    """The client can fix the request."""


class MalformedRequest(RequestError):
    """The bytes on the connection are not HTTP/1.1."""

    status, code, title = 400, "malformed_request", "Malformed request"


class Unauthorized(RequestError):
    """This service requires a key, and none or a wrong one was given."""

    status, code, title = 401, "unauthorized", "Unauthorized"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="yolov5-triton-gateway"'}


class CrossSite(RequestError):
    """A browser sent this on behalf of another site's page."""

    status, code, title = 403, "cross_site", "Cross-site request"


class RequestTimeout(RequestError):
    """The headers or the body did not arrive in time; the connection is closed."""

    status, code, title = 408, "request_timeout", "Request timeout"


class UnknownHost(RequestError):
    """The Host header names a host this service does not serve."""

    status, code, title = 421, "unknown_host", "Unknown host"


class RateLimited(RequestError):
    """The client has sent more requests than its rate allows, or holds more than its share."""

    status, code, title = 429, "rate_limited", "Too many requests"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class TooManyOpenTasks(RequestError):
    """The key, or the address without keys, has as many unfinished tasks as it may have."""

    status, code, title = 429, "too_many_open_tasks", "Too many open tasks"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class PathNotFound(RequestError):
    """This service has no such path."""

    status, code, title = 404, "not_found", "Not Found"


class MethodNotAllowed(RequestError):
    """The path takes other methods; the header Allow lists them."""

    status, code, title = 405, "method_not_allowed", "Method Not Allowed"


class NotAcceptable(RequestError):
    """The Accept header allows none of the media types on offer."""

    status, code, title = 406, "not_acceptable", "Not acceptable"


class HeadersTooLarge(RequestError):
    """The address and the headers of the request are longer than this service reads."""

    status, code, title = 431, "headers_too_large", "Request headers too large"


class BadMultipart(RequestError):
    """The multipart body is cut or malformed."""

    status, code, title = 400, "bad_multipart", "Broken multipart body"


class NoImage(RequestError):
    """The request has no image: no multipart field `image`, no `image` in the JSON body, no raw body."""

    status, code, title = 400, "no_image", "No image"


class SwitchedOff(RequestError):
    """The operator has not switched this feature on; the detail names the setting."""

    status, code, title = 403, "switched_off", "Switched off"


class PriorityNotAllowed(RequestError):
    """The key has no right to priority=high."""

    status, code, title = 403, "priority_not_allowed", "Priority not allowed"


class TaskNotFound(RequestError):
    """There was never a task of that id, or its result has expired."""

    status, code, title = 404, "task_not_found", "Task not found"

    @classmethod
    def of(cls, what: str, identity: str) -> "TaskNotFound":
        """For a task or a batch, in the same words whether it is unknown or another client's."""
        return cls(f"no {what} {identity}; it was never accepted, or it has expired")


class ImageTooLarge(RequestError):
    """More bytes, pixels or a longer side than the settings allow."""

    status, code, title = 413, "image_too_large", "Image too large"


class UnsupportedImage(RequestError):
    """The image is not JPEG, PNG, WebP, BMP or GIF, or its header is broken."""

    status, code, title = 415, "unsupported_image", "Not a supported image"


class TaskRunning(RequestError):
    """A worker has begun the task: too late to cancel it, too early to delete it."""

    status, code, title = 409, "task_running", "The task is running"


class ModelNotFound(RequestError):
    """Triton serves no model of that name."""

    status, code, title = 404, "model_not_found", "Model not found"


class NoPicture(RequestError):
    """The task has no annotated picture: none was requested, or the task did not succeed."""

    status, code, title = 404, "no_picture", "No annotated picture"


class BadJSON(RequestError):
    """The JSON body is malformed, has too many members, or its `image` is not valid base64."""

    status, code, title = 400, "bad_json", "Bad JSON body"


class TooManyImages(RequestError):
    """More `image` parts in one request than the settings allow."""

    status, code, title = 413, "too_many_images", "Too many images"


class IdempotencyConflict(RequestError):
    """An Idempotency-Key was used again for another request."""

    status, code, title = 422, "idempotency_conflict", "Idempotency-Key used for another request"


class UrlNotAllowed(RequestError):
    """The URL is not https, has a user name or a port that is not allowed, or its host is not a public address."""

    status, code, title = 422, "url_not_allowed", "URL not allowed"


class FetchFailed(RequestError):
    """The host of the URL does not answer in time, or not with an image."""

    status, code, title = 422, "fetch_failed", "The image cannot be fetched"


class InvalidParameter(RequestError):
    """A parameter is out of range; the detail names it and what is allowed."""

    status, code, title = 422, "invalid_parameter", "Invalid parameter"


class ServiceUnavailable(GatewayError):
    """Redis, or the model in Triton, is not available. An upload can be sent again with its Idempotency-Key."""

    status, code, title = 503, "service_unavailable", "Service unavailable"
    retry_after = 5


class Overloaded(GatewayError):
    """Too much is waiting already; nothing was accepted. Retry-After is computed from the current rate."""

    status, code, title = 503, "overloaded", "Overloaded"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class ShuttingDown(GatewayError):
    """This process is stopping and the request did not end in time; with its Idempotency-Key it can be sent again."""

    status, code, title = 503, "shutting_down", "Shutting down"
    retry_after = 1


class TaskFailed(GatewayError):
    """The task finished without a result; a retry would fail the same way."""

    title = "The task failed"


class Canceled(TaskFailed):
    """The client canceled the task before it began."""

    status, code, title = 410, "canceled", "The task was canceled"


class InvalidImage(TaskFailed):
    """The image's header was valid, its pixels cannot be decoded."""

    status, code, title = 422, "invalid_image", "The image cannot be decoded"


class ImageExpired(TaskFailed):
    """The image expired before a worker reached it."""

    status, code, title = 410, "image_expired", "The image expired"


class ModelUnavailable(TaskFailed):
    """Triton does not serve the model, or did not answer in time."""

    status, code, title = 503, "model_unavailable", "The model is not available"


class ModelMismatch(TaskFailed):
    """The model that Triton serves has other inputs, outputs or labels than it should, or than a task needs."""

    status, code, title = 500, "model_mismatch", "The model does not fit"


class WorkerLost(TaskFailed):
    """Workers died while running this task, on every retry."""

    status, code, title = 500, "worker_lost", "The worker was lost"


class InternalError(TaskFailed):
    """A defect of this service; the worker's log has the traceback."""

    status, code, title = 500, "internal_error", "Internal error"


def error_classes(base: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    """All classes of errors below `base` that a client can meet, sorted by status and code."""
    below = {found for child in base.__subclasses__() for found in [child, *error_classes(child)]}
    return sorted((each for each in below if "code" in vars(each)), key=lambda each: (each.status, each.code))
