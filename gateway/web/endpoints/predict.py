"""`POST /predict`: upload → checked choices → queue → answer."""

import hashlib
import time

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import GatewayError, InvalidParameter, SwitchedOff
from gateway.queue.records import BatchEntry, TaskRequest
from gateway.queue.results import Watch
from gateway.queue.submission import Acceptance, NewTask
from gateway.security.api_keys import new_id
from gateway.server.request_id import request_id
from gateway.settings import Settings
from gateway.task import TaskView, problem_of
from gateway.telemetry import logs
from gateway.vision.header import probe
from gateway.web.checks import owner_of
from gateway.web.endpoints.batches import batch_view
from gateway.web.parameters import LONGEST_WAIT_SECONDS, Choices, class_ids, joined, parse, with_defaults
from gateway.web.responses import JSON, server_timing
from gateway.web.services import services_of
from gateway.web.uploads import Upload, UploadedImage, read_upload, too_large

_LONGEST_KEY = 255


async def predict(request: Request) -> Response:
    """Accept one image or several; 202 with where to read, or 200 with the end when it was waited for."""
    services = services_of(request)
    with services.results.watch() as watch:
        with services.admission.taking() as received:
            upload = await read_upload(request, services.settings, received)
            for size in [len(image.data) for image in upload.images]:
                services.metrics.uploaded.observe(size)
            choices = parse(Choices, upload.fields, joined(request.query_params.multi_items()))
            if upload.url:
                upload.images.append(UploadedImage(data=await services.fetcher.fetch(upload.url)))
                received(len(upload.images[-1].data))
            wait, preferred = wait_seconds(request, choices.wait)
            request.state.waits = bool(wait)
            key = _idempotency_key(request)
            wanted = await task_request(request, choices)
            accepted = await accept(request, upload, wanted, choices, key, watch)
            del upload  # a client may wait for long, its image need not
        headers = {"Preference-Applied": f"wait={wait:g}"} if preferred else {}
        if accepted.batch_id:
            return await _batch_answer(request, accepted, wait, headers)
        logs.task_id.set(accepted.entries[0].task_id)
        if wait or key:  # the key may be that of a task which has ended
            return await _waited_answer(request, accepted.entries[0].task_id, wait, headers, watch)
        return _pending_answer(accepted.entries[0].task_id, headers)


def wait_seconds(request: Request, wanted: float | None) -> tuple[float, bool]:
    """How long to wait, and whether a Prefer header (RFC 7240) said so: a hint, of which at most 60 s are granted."""
    if wanted is not None:
        return wanted, False
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        seconds = value.strip('" ')
        if name.strip().lower() == "wait" and seconds.isdecimal():
            return min(float(seconds), LONGEST_WAIT_SECONDS), True
    return 0.0, False


async def task_request(request: Request, choices: Choices) -> TaskRequest:
    """What is asked of a worker. Raises InvalidParameter, ModelMismatch, ServiceUnavailable."""
    services = services_of(request)
    if choices.callback_url:
        if not services.settings.callbacks:
            raise SwitchedOff("callback_url: callbacks are switched off on this server (CALLBACKS)")
        await services.outbound.check(choices.callback_url)
    model, confidence, iou, max_detections = with_defaults(choices, services.settings)
    classes = None
    if choices.model or choices.version or choices.classes:
        spec = await services.models.spec(model, choices.version)
        classes = class_ids(choices, spec)
    return TaskRequest(
        model=model,
        version=choices.version,
        accepted_at=time.time(),
        confidence=confidence,
        iou=iou,
        max_detections=max_detections,
        classes=classes,
        agnostic_nms=choices.agnostic_nms,
        annotate=choices.annotate,
        callback_url=choices.callback_url,
        request_id=request_id.get(),
    )


async def accept(
    request: Request, upload: Upload, wanted: TaskRequest, choices: Choices, key: str, watch: Watch
) -> Acceptance:
    """Make tasks of the images of a request, with `watch` on a single one.

    Raises as `probe` and `Submission.accept` do; nothing was accepted then.
    """
    services, owner = services_of(request), owner_of(request)
    batch_id = new_id(owner) if len(upload.images) > 1 else ""
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
    at_front = choices.priority == "high"
    accepted = await services.submission.accept(tasks, acceptance, at_front=at_front, idempotency_key=key)
    if accepted is acceptance:  # not what an earlier request with this key had brought
        services.metrics.accepted.inc(len(tasks))
        for refused in errors:
            services.metrics.rejected.labels(refused.code).inc()
    return accepted


def _check(image: UploadedImage, settings: Settings) -> None:
    if image.too_large:
        raise too_large(settings.max_image_bytes)
    probe(image.data, max_pixels=settings.max_image_pixels, max_side=settings.max_image_side)


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if len(key) > _LONGEST_KEY:
        raise InvalidParameter(f"Idempotency-Key: give at most {_LONGEST_KEY} characters")
    return hashlib.sha256(f"{owner_of(request)}:{key}".encode()).hexdigest() if key else ""


def _fingerprint(upload: Upload, wanted: TaskRequest) -> str:
    """Equal for two requests that ask for the same of the same images."""
    same = msgspec.structs.replace(wanted, accepted_at=0.0, request_id="", batch_id="")
    digest = hashlib.sha256(msgspec.json.encode(same))
    for image in upload.images:
        digest.update(hashlib.sha256(image.data).digest())
    return digest.hexdigest()


async def _waited_answer(
    request: Request, task_id: str, wait: float, headers: dict[str, str], watch: Watch
) -> Response:
    ended, view = await services_of(request).results.wait(task_id, wait, watch)
    if not ended:
        return _pending_answer(task_id, headers)
    return JSON(view, 200, {**headers, **server_timing(view), "Content-Location": f"/result/{task_id}"})


def _pending_answer(task_id: str, headers: dict[str, str]) -> Response:
    pending = TaskView(task_id=task_id, status="PENDING", state="queued")
    return JSON(pending, 202, {**headers, "Location": f"/result/{task_id}"})


async def _batch_answer(request: Request, accepted: Acceptance, wait: float, headers: dict[str, str]) -> Response:
    results = services_of(request).results
    if wait:
        await results.wait_all([entry.task_id for entry in accepted.entries if entry.task_id], wait)
    view = batch_view(accepted, await results.ends([entry.task_id for entry in accepted.entries if entry.task_id]))
    place = f"/batches/{accepted.batch_id}"
    if view.pending:
        return JSON(view, 202, {**headers, "Location": place})
    return JSON(view, 200, {**headers, "Content-Location": place})
