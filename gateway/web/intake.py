"""Choices and images of a request → tasks in the queue."""

import hashlib

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from gateway import clock
from gateway.errors import GatewayError, ServiceUnavailable, SwitchedOff, TooManyOpenTasks
from gateway.outbound.https import NameServerSlow
from gateway.queue.records import FORMAT, BatchEntry, TaskRequest
from gateway.queue.submission import Acceptance, NewTask
from gateway.queue.waiting import Watch
from gateway.security.task_ids import new_id
from gateway.server.request_id import request_id
from gateway.settings import Settings
from gateway.task import problem_of
from gateway.telemetry import tracing
from gateway.vision.header import probe
from gateway.web.admission import ProcessFull
from gateway.web.checks import check_priority, client_of, owner_of
from gateway.web.classes import class_ids
from gateway.web.parameters import Choices, with_defaults
from gateway.web.services import services_of
from gateway.web.uploads import Upload, UploadedImage, too_large

_DELIVERIES_RETRY_SECONDS = 60


async def task_request(request: Request, choices: Choices) -> TaskRequest:
    """What is asked of a worker. Raises PriorityNotAllowed, InvalidParameter, ModelMismatch, ServiceUnavailable,
    TooManyOpenTasks, Overloaded.
    """
    services = services_of(request)
    check_priority(request, choices.priority)
    if choices.callback_url:
        if not services.settings.callbacks:
            raise SwitchedOff("callback_url: callbacks are switched off on this server (CALLBACKS)")
        await _check_deliveries(request)
        try:
            await services.outbound.check(choices.callback_url, client_of(request))
        except NameServerSlow as error:
            raise ServiceUnavailable(f"callback_url: {error}") from error
    model, confidence, iou, max_detections = with_defaults(choices, services.settings)
    classes = labels = None
    is_default = model == services.settings.model
    if is_default and (reason := await services.readiness.no_model()):
        raise ServiceUnavailable(reason)
    if not is_default or choices.version or choices.classes:
        spec = await services.models.spec(model, choices.version)
        classes = class_ids(choices.classes, spec)
        labels = None if classes is None else [spec.labels[index] for index in classes]
    return TaskRequest(
        model=model,
        version=choices.version,
        accepted_at=clock.now(),
        confidence=confidence,
        iou=iou,
        max_detections=max_detections,
        classes=classes,
        labels=labels,
        agnostic_nms=choices.agnostic_nms,
        annotate=choices.annotate,
        callback_url=choices.callback_url,
        owner=owner_of(request) if choices.callback_url else "",
        request_id=request_id.get(),
        format=FORMAT,
    )


async def _check_deliveries(request: Request) -> None:
    services, instead = services_of(request), f"send it without callback_url, or in {_DELIVERIES_RETRY_SECONDS} s"
    waiting, own = await services.submission.deliveries(client_of(request))
    if own >= services.settings.max_webhooks_per_client:
        raise TooManyOpenTasks(
            f"callback_url: {own} of your callbacks wait for their task or their receiver, the most that one client "
            f"may have; {instead}",
            _DELIVERIES_RETRY_SECONDS,
        )
    if waiting >= services.settings.max_webhooks:
        raise ProcessFull(
            f"callback_url: {waiting} deliveries wait for their receivers, the most that are kept; {instead}",
            _DELIVERIES_RETRY_SECONDS,
        )


async def accept(
    request: Request, upload: Upload, wanted: TaskRequest, choices: Choices, key: str, watch: Watch
) -> tuple[Acceptance, bool]:
    """Make tasks of the images of a request, with `watch` on a single one; whether an earlier request had made them.

    Raises as `probe` and `Submission.accept` do.
    """
    with tracing.enqueue(len(upload.images)):
        if trace := tracing.carrier():
            wanted = msgspec.structs.replace(wanted, trace=trace)
        return await _accept(request, upload, wanted, choices, key, watch)


async def _accept(
    request: Request, upload: Upload, wanted: TaskRequest, choices: Choices, key: str, watch: Watch
) -> tuple[Acceptance, bool]:
    services, owner = services_of(request), owner_of(request)
    batch_id = new_id(owner) if len(upload.images) > 1 else ""
    if batch_id:
        wanted = msgspec.structs.replace(wanted, batch_id=batch_id)
    entries, tasks, errors = [], [], []
    for index, image in enumerate(upload.images):
        try:
            _check(image, services.settings)
        except GatewayError as error:
            errors.append(error)
            entries.append(BatchEntry(index, image.filename, error=problem_of(error, wanted.request_id)))
            continue
        task = NewTask(new_id(owner), image.data, wanted)
        tasks.append(task)
        entries.append(BatchEntry(index, image.filename, task.task_id))
    if not tasks:
        raise errors[0]
    if not batch_id:
        watch.on(tasks[0].task_id)
    fingerprint = await run_in_threadpool(_fingerprint, upload, wanted) if key else ""
    acceptance = Acceptance(entries, batch_id, fingerprint)
    high = choices.priority == "high"
    accepted = await services.submission.accept(
        tasks, acceptance, client=client_of(request), high=high, idempotency_key=key
    )
    replayed = accepted is not acceptance  # an earlier request with this key had brought it
    if not replayed:
        services.metrics.accepted.inc(len(tasks))
        for refused in errors:
            services.metrics.rejected.labels(refused.code).inc()
    return accepted, replayed


def _check(image: UploadedImage, settings: Settings) -> None:
    if image.too_large:
        raise too_large(settings.max_image_bytes)
    probe(image.data, max_pixels=settings.max_image_pixels, max_side=settings.max_image_side)


def _fingerprint(upload: Upload, wanted: TaskRequest) -> str:
    """Equal for two requests that ask for the same of the same images."""
    ids = None if wanted.labels else wanted.classes  # another version may count its classes otherwise
    alike = {"accepted_at": 0.0, "request_id": "", "batch_id": "", "owner": "", "trace": None, "format": 1}
    same = msgspec.structs.replace(wanted, classes=ids, **alike)
    digest = hashlib.sha256(msgspec.json.encode(same))
    for image in upload.images:
        digest.update(hashlib.sha256(image.data).digest())
    return digest.hexdigest()
