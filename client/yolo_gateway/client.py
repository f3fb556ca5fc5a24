"""The blocking client. Threads may share it; after a fork each process opens connections of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from yolo_gateway import flows
from yolo_gateway.calls import (
    DEFAULT_SECONDS,
    MANY_WAIT_SECONDS,
    PATIENCE_SECONDS,
    READY_SECONDS,
    Models,
    fetched,
    models,
    predicted,
    prediction,
    reading,
)
from yolo_gateway.connection import Address, broken_errors, check, from_environment, is_foreign, timeouts
from yolo_gateway.deadline import Deadline
from yolo_gateway.errors import ServiceError, YoloGatewayError
from yolo_gateway.inputs import Source, source_of
from yolo_gateway.many import many
from yolo_gateway.messages import Answer, Ask, Broken, Events, Pause, Request, decoded, refusal
from yolo_gateway.prediction import Item, Prediction
from yolo_gateway.schema import TaskView
from yolo_gateway.uploads import Options, params_of, upload

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Unpack

T = TypeVar("T")


class Client:
    """A gateway at `server`, with the API key `key` where it asks for one.

    Without these the environment's YOLO_GATEWAY_SERVER and YOLO_GATEWAY_KEY count, then http://127.0.0.1:5000.
    `timeout` is the longest time of a call in seconds, all its tries included; an upload gets a second more for each
    200 kB. At most `connections` requests are under way at a time.
    """

    def __init__(
        self,
        server: str | None = None,
        key: str | None = None,
        *,
        timeout: float = DEFAULT_SECONDS,
        connections: int = 64,
    ) -> None:
        self._address = Address(server, key)
        self._timeout, self._connections = timeout, connections
        self._lock = threading.Lock()
        self._opened = self._open()
        self._closed = False

    def __repr__(self) -> str:
        return f"Client({self._address.server!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections; it cannot be used any more."""
        self._closed = True
        if self._opened[0] == os.getpid():
            for http in self._opened[1:]:
                http.close()

    def predict(
        self,
        image: Any,
        *,
        timeout: float | None = None,
        bgr: bool = False,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        **options: Unpack[Options],
    ) -> Prediction:
        """The detections in an image: a path, a URL, bytes, an open file, a PIL image, or a numpy array (RGB, uint8).

        Raises InvalidInput, Refused, TaskFailed, Unfinished (the task goes on), NotReached.
        """
        deadline = self._deadline(timeout)
        source, request = self._upload(image, bgr, deadline, options, idempotency_key, traceparent)
        return prediction(self._run(predicted(request, deadline)), source)

    def submit(
        self,
        image: Any,
        *,
        timeout: float | None = None,
        bgr: bool = False,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        **options: Unpack[Options],
    ) -> Task:
        """Have an image accepted as a task, and return at once. Raises InvalidInput, Refused, NotReached."""
        deadline = self._deadline(timeout)
        source, request = self._upload(image, bgr, deadline, options, idempotency_key, traceparent)
        return Task(self, self._run(flows.submitted(request, deadline, wait=False)), source)

    def task(self, task_id: str, *, timeout: float | None = None) -> Task:
        """A task that was accepted before. Raises TaskNotFound, NotReached."""
        return Task(self, self._read(task_id, timeout))

    def predict_many(
        self,
        images: Iterable[Any],
        *,
        concurrency: int = 16,
        ordered: bool = False,
        timeout: float | None = None,
        patience: float = PATIENCE_SECONDS,
        bgr: bool = False,
        **options: Unpack[Options],
    ) -> Iterator[Item]:
        """An Item for each image, as they finish, or with `ordered` in their order.

        `images` may be endless: no more than `concurrency` are read ahead. What fails is in the item's `error`, and the
        others go on. `timeout` is for one image; up to `patience` seconds in which the service says "later" do not
        count. Who leaves the loop or interrupts it waits for the requests under way, a few seconds.
        """
        params_of(options)

        def one(image: Any, stopped: threading.Event) -> Prediction:
            deadline = self._deadline(timeout, patience, MANY_WAIT_SECONDS)
            source, request = self._upload(image, bgr, deadline, options, None, None, stopped)
            return prediction(self._run(predicted(request, deadline), stopped), source)

        return many(images, one, concurrency, ordered)

    def models(self, *, timeout: float | None = None) -> Models:
        """The models that are served, and the one that is asked by default."""
        return self._run(models(self._deadline(timeout)))

    def ready(self, *, timeout: float = READY_SECONDS) -> bool:
        """Whether all is there that answers need, Triton and workers too; False too where nobody answers."""
        try:
            return self._ask(Ask(Request("GET", "/status"), Deadline(timeout))).status == 200
        except Broken:
            return False

    def _deadline(self, timeout: float | None, patience: float = 0.0, longest_wait: float = 60.0) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout, patience, longest_wait)

    def _upload(
        self,
        image: Any,
        bgr: bool,
        deadline: Deadline,
        options: Options,
        key: str | None,
        traceparent: str | None,
        stopped: threading.Event | None = None,
    ) -> tuple[Source, Request]:
        params_of(options)  # before anything is read
        source = source_of(image, bgr)
        body = self._run(fetched(source.url, deadline), stopped) if source.url else source.read()
        deadline.extend(len(body))
        return source.after(body), upload(body, options, key, traceparent)

    def _read(self, task_id: str, timeout: float | None) -> flows.Read:
        deadline = self._deadline(timeout)
        request = reading(task_id)
        return decoded(self._run(flows.answered(lambda left: request, deadline, task_id)), TaskView)

    def _run(self, flow: Generator[Ask | Pause, Any, T], stopped: threading.Event | None = None) -> T:
        """Do one step of a flow after the other. Raises YoloGatewayError once it is `stopped`."""
        stopped = stopped or threading.Event()
        try:
            step = next(flow)
            while True:
                if stopped.wait(step.seconds if isinstance(step, Pause) else 0):
                    raise YoloGatewayError("nobody waits for this image any more")
                if isinstance(step, Pause):
                    step = flow.send(None)
                    continue
                try:
                    answer = self._ask(step)
                except Broken as broken:
                    step = flow.throw(broken)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            outcome: T = stop.value
            return outcome

    def _ask(self, ask: Ask) -> Answer:
        request, deadline = ask.request, ask.deadline
        body, received = [], 0
        with broken_errors(), self._stream(request, deadline) as answer:
            for part in answer.iter_bytes():
                body.append(part)
                received += len(part)
                check(received, deadline)
            return Answer(answer.status_code, answer.headers, b"".join(body))

    def _stream(self, request: Request, deadline: Deadline) -> Any:
        return self._http(is_foreign(request)).stream(
            request.method,
            request.path,
            params=request.params or None,
            headers=request.headers,
            content=request.body,
            timeout=timeouts(request, deadline),
        )

    def _http(self, foreign: bool) -> httpx.Client:
        """Connections of this process: those of a parent process are left alone, it uses them."""
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        if self._opened[0] != os.getpid():
            with self._lock:
                if self._opened[0] != os.getpid():
                    self._opened = self._open()
        _, own, other = self._opened
        return other if foreign else own

    def _open(self) -> tuple[int, httpx.Client, httpx.Client]:
        with from_environment():
            own = httpx.Client(**self._address.options(self._connections))
            return os.getpid(), own, httpx.Client(follow_redirects=True)


class Task:
    """An accepted task. `view` is how it was when last read."""

    def __init__(self, client: Client, read: flows.Read, source: Source | None = None) -> None:
        self._client, self._source = client, source
        self.view, self.raw = read

    @property
    def task_id(self) -> str:
        return self.view.task_id

    @property
    def state(self) -> str:
        """queued, started, retrying, succeeded, failed or canceled, when it was last read."""
        return self.view.state

    def __repr__(self) -> str:
        return f"Task({self.task_id!r}, {self.state})"

    def refresh(self, *, timeout: float | None = None) -> Self:
        """Read it again."""
        self.view, self.raw = self._client._read(self.task_id, timeout)
        return self

    def wait(self, timeout: float = DEFAULT_SECONDS) -> Prediction:
        """Its result, once it has finished. Raises TaskFailed, Unfinished after `timeout` seconds, TaskNotFound."""
        read = self.view, self.raw
        read = self._client._run(flows.finished(self.task_id, Deadline(timeout), read))
        self.view, self.raw = read
        return prediction(read, self._source)

    def cancel(self, *, timeout: float = DEFAULT_SECONDS) -> bool:
        """Whether it was canceled before it began; otherwise it is left as it is."""
        return self._client._run(flows.canceled(self.task_id, Deadline(timeout)))

    def forget(self, *, timeout: float = DEFAULT_SECONDS) -> None:
        """Delete its result from the service, or cancel it if it has not begun. Raises TaskRunning."""
        self._client._run(flows.forgotten(self.task_id, Deadline(timeout)))

    def picture(self, *, png: bool = False, timeout: float = DEFAULT_SECONDS) -> bytes:
        """The service's annotated picture, a JPEG or a PNG, of a task with `annotate=True`. Raises NoPicture."""
        accept = {"Accept": "image/png" if png else "image/jpeg"}
        request = Request("GET", f"/result/{self.task_id}/image", headers=accept)
        return self._client._run(flows.answered(lambda left: request, Deadline(timeout), self.task_id)).body

    def events(self, timeout: float = DEFAULT_SECONDS) -> Iterator[TaskView]:
        """The task as it is, and at each change, until it has finished. Raises Unfinished after `timeout` seconds."""
        following = flows.Following(self.task_id, Deadline(timeout))
        while True:
            problem: Broken | ServiceError | None = None
            try:
                for data in self._event_data(following):
                    if (read := following.changed(data)) is None:
                        continue
                    self.view, self.raw = read
                    yield self.view
                    if self.view.status != "PENDING":
                        return
            except (Broken, ServiceError) as error:
                problem = error
            time.sleep(following.pause_after(problem))

    def _event_data(self, following: flows.Following) -> Iterator[bytes]:
        request, deadline, events = following.request, following.deadline, Events()
        with broken_errors(), self._client._stream(request, deadline) as answer:
            if answer.status_code >= 300:
                raise refusal(Answer(answer.status_code, answer.headers, answer.read()), self.task_id)
            for line in answer.iter_lines():
                yield from events.feed(line)
                check(0, deadline)
