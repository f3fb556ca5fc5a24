"""Every error that a client can be told of.

    GatewayError
    ├── RequestError           the request is wrong: 4xx, told at once
    │   ├── MalformedRequest   400 malformed_request
    │   ├── Unauthorized       401 unauthorized
    │   ├── CrossSite          403 cross_site
    │   ├── RequestTimeout     408 request_timeout
    │   ├── UnknownHost        421 unknown_host
    │   ├── RateLimited        429 rate_limited
    │   ├── PathNotFound       404 not_found
    │   ├── MethodNotAllowed   405 method_not_allowed
    │   ├── NotAcceptable      406 not_acceptable
    │   ├── HeadersTooLarge    431 headers_too_large
    │   ├── BadMultipart       400 bad_multipart
    │   ├── NoImage            400 no_image
    │   ├── SwitchedOff        403 switched_off
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
    ├── ServiceUnavailable     503 service_unavailable: Redis does not answer
    ├── Overloaded             503 overloaded: more is waiting than the service takes on
    ├── ShuttingDown           503 shutting_down
    └── TaskFailed             the task ends in FAILURE; never retried
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
    """The client can mend the request."""


class MalformedRequest(RequestError):
    """The bytes on the connection are not HTTP/1.1."""

    status, code, title = 400, "malformed_request", "Malformed request"


class Unauthorized(RequestError):
    """This service asks for a key, and none or a wrong one was given."""

    status, code, title = 401, "unauthorized", "Unauthorized"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="yolov5-triton-gateway"'}


class CrossSite(RequestError):
    """A browser sent this for a page of another site."""

    status, code, title = 403, "cross_site", "Cross-site request"


class RequestTimeout(RequestError):
    """The headers or the body did not come in time; the connection is closed."""

    status, code, title = 408, "request_timeout", "Request timeout"


class UnknownHost(RequestError):
    """The Host header has a name that this service does not go by."""

    status, code, title = 421, "unknown_host", "Unknown host"


class RateLimited(RequestError):
    """The client has sent more requests than its rate allows."""

    status, code, title = 429, "rate_limited", "Too many requests"

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
    """The Accept header allows none of the media types there are."""

    status, code, title = 406, "not_acceptable", "Not acceptable"


class HeadersTooLarge(RequestError):
    """The address and the headers of the request are longer than this service reads."""

    status, code, title = 431, "headers_too_large", "Request headers too large"


class BadMultipart(RequestError):
    """The multipart body is cut or malformed."""

    status, code, title = 400, "bad_multipart", "Broken multipart body"


class NoImage(RequestError):
    """Neither a multipart field `image` nor a raw body was sent."""

    status, code, title = 400, "no_image", "No image"


class SwitchedOff(RequestError):
    """The operator of this service has not switched the feature on; the detail names the setting."""

    status, code, title = 403, "switched_off", "Switched off"


class TaskNotFound(RequestError):
    """The task id was never given out, or its result has expired."""

    status, code, title = 404, "task_not_found", "Task not found"

    @classmethod
    def of(cls, what: str, identity: str) -> "TaskNotFound":
        """For a task or a batch, in the same words whether it is unknown or another's."""
        return cls(f"no {what} {identity}; it was never accepted, or it has expired")


class ImageTooLarge(RequestError):
    """More bytes, pixels or a longer side than the settings allow."""

    status, code, title = 413, "image_too_large", "Image too large"


class UnsupportedImage(RequestError):
    """The signature is none of JPEG, PNG, WebP, BMP, GIF, or the header is broken."""

    status, code, title = 415, "unsupported_image", "Not a supported image"


class TaskRunning(RequestError):
    """A worker has begun the task: it is too late to cancel it and too early to delete it."""

    status, code, title = 409, "task_running", "The task is running"


class ModelNotFound(RequestError):
    """Triton serves no model of that name."""

    status, code, title = 404, "model_not_found", "Model not found"


class NoPicture(RequestError):
    """The task has no annotated picture: none was asked for, or it has not ended well."""

    status, code, title = 404, "no_picture", "No annotated picture"


class BadJSON(RequestError):
    """The JSON body is malformed or lacks the image."""

    status, code, title = 400, "bad_json", "Bad JSON body"


class TooManyImages(RequestError):
    """More `image` parts in one request than the settings allow."""

    status, code, title = 413, "too_many_images", "Too many images"


class IdempotencyConflict(RequestError):
    """An Idempotency-Key came again with another request."""

    status, code, title = 422, "idempotency_conflict", "Idempotency-Key used for another request"


class UrlNotAllowed(RequestError):
    """The URL is not https, has a user name or a port that is not allowed, or its host is not in public."""

    status, code, title = 422, "url_not_allowed", "URL not allowed"


class FetchFailed(RequestError):
    """The host of the URL does not answer, not in time, or not with an image."""

    status, code, title = 422, "fetch_failed", "The image cannot be fetched"


class InvalidParameter(RequestError):
    """A parameter is out of its range; the detail names it and what is allowed."""

    status, code, title = 422, "invalid_parameter", "Invalid parameter"


class ServiceUnavailable(GatewayError):
    """Redis does not answer; nothing was accepted."""

    status, code, title = 503, "service_unavailable", "Service unavailable"
    retry_after = 5


class Overloaded(GatewayError):
    """More is waiting than the service takes on; nothing was accepted. Retry-After is worked out from its rate."""

    status, code, title = 503, "overloaded", "Overloaded"

    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class ShuttingDown(GatewayError):
    """This process is about to end; nothing was accepted."""

    status, code, title = 503, "shutting_down", "Shutting down"
    retry_after = 1


class TaskFailed(GatewayError):
    """The task has ended without a result; a retry would end the same way."""

    title = "The task failed"


class Canceled(TaskFailed):
    """The client deleted the task before it began."""

    status, code, title = 410, "canceled", "The task was canceled"


class InvalidImage(TaskFailed):
    """The header was good, the pixels are not."""

    status, code, title = 422, "invalid_image", "The image cannot be decoded"


class ImageExpired(TaskFailed):
    """The image left Redis before a worker came to it."""

    status, code, title = 410, "image_expired", "The image expired"


class ModelUnavailable(TaskFailed):
    """Triton does not serve the model, or not in time."""

    status, code, title = 503, "model_unavailable", "The model is not available"


class ModelMismatch(TaskFailed):
    """Triton serves a model that is not one of ours: wrong inputs, outputs or labels."""

    status, code, title = 500, "model_mismatch", "The model does not fit"


class WorkerLost(TaskFailed):
    """The worker died under the task, more often than the task may be retried."""

    status, code, title = 500, "worker_lost", "The worker was lost"


class InternalError(TaskFailed):
    """A defect of this service; the worker's log has the traceback."""

    status, code, title = 500, "internal_error", "Internal error"
