"""`POST /predict`: upload → checked choices → queue → answer."""

import contextlib
import hashlib

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.errors import InvalidParameter
from gateway.queue.submission import Acceptance
from gateway.queue.waiting import Watch
from gateway.task import TaskView
from gateway.telemetry import logs
from gateway.web.batch_view import batch_view
from gateway.web.checks import client_of, owner_of
from gateway.web.intake import accept, task_request
from gateway.web.parameters import Choices, of_query, parse
from gateway.web.responses import JSON, server_timing
from gateway.web.services import services_of
from gateway.web.uploads import UploadedImage, read_upload
from gateway.web.wait import forget, wait_seconds, while_connected

_LONGEST_KEY = 255


async def predict(request: Request) -> Response:
    """Accept one image or several; 202 with where to read, or 200 with the end when it was waited for."""
    services = services_of(request)
    with contextlib.ExitStack() as staying, services.results.watch() as watch:
        with services.admission.taking(client_of(request)) as receiving:
            upload = await receiving.read(read_upload(request, services.settings, receiving.received))
            for size in [len(image.data) for image in upload.images]:
                services.metrics.uploaded.observe(size)
            choices = parse(Choices, upload.fields, of_query(request.scope["query_string"].decode("latin-1")))
            if upload.url:
                fetched = await while_connected(request, services.fetcher.fetch(upload.url, client_of(request)))
                upload.images.append(UploadedImage(data=fetched))
                receiving.received(len(upload.images[-1].data))
            wait, preferred = wait_seconds(request, choices.wait)
            request.state.waits = bool(wait)
            if wait:
                staying.enter_context(services.waiting.taken(client_of(request)))
            key = _idempotency_key(request)
            wanted = await task_request(request, choices)
            accepted, replayed = await accept(request, upload, wanted, choices, key, watch)
            del upload  # a client may wait for long, its image need not
        headers = {"Preference-Applied": f"wait={wait:g}"} if preferred else {}
        try:
            if accepted.batch_id:
                return await _batch_answer(request, accepted, wait, replayed, headers)
            logs.task_id.set(accepted.entries[0].task_id)
            if wait or replayed:
                return await _waited_answer(request, accepted.entries[0].task_id, wait, headers, watch)
            return _pending_answer(accepted.entries[0].task_id, headers)
        except ClientDisconnect:
            if not key and not choices.callback_url:  # nobody knows of it
                await _forget_all(request, accepted)
            raise


async def _forget_all(request: Request, accepted: Acceptance) -> None:
    for entry in accepted.entries:
        if entry.task_id:
            await forget(request, entry.task_id)


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "")
    if len(key) > _LONGEST_KEY:
        raise InvalidParameter(f"Idempotency-Key: give at most {_LONGEST_KEY} characters")
    return hashlib.sha256(f"{owner_of(request)}:{key}".encode()).hexdigest() if key else ""


async def _waited_answer(
    request: Request, task_id: str, wait: float, headers: dict[str, str], watch: Watch
) -> Response:
    ended, view = await while_connected(request, services_of(request).results.wait(task_id, wait, watch))
    if not ended:
        return _pending_answer(task_id, headers)
    return JSON(view, 200, {**headers, **server_timing(view), "Content-Location": f"/result/{task_id}"})


def _pending_answer(task_id: str, headers: dict[str, str]) -> Response:
    pending = TaskView(task_id=task_id, status="PENDING", state="queued")
    return JSON(pending, 202, {**headers, "Location": f"/result/{task_id}"})


async def _batch_answer(
    request: Request, accepted: Acceptance, wait: float, replayed: bool, headers: dict[str, str]
) -> Response:
    results = services_of(request).results
    if wait:
        task_ids = [entry.task_id for entry in accepted.entries if entry.task_id]
        await while_connected(request, results.wait_all(task_ids, wait))
    view = batch_view(accepted, await results.ends([entry.task_id for entry in accepted.entries if entry.task_id]))
    place = f"/batches/{accepted.batch_id}"
    if view.pending or not (wait or replayed):
        return JSON(view, 202, {**headers, "Location": place})
    return JSON(view, 200, {**headers, "Content-Location": place})
