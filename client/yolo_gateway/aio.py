"""The client for asyncio: `client.Client`, awaited. What blocks, such as reading files, is done in threads."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable
from contextlib import AbstractAsyncContextManager, aclosing
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from yolo_gateway import flows
from yolo_gateway.calls import (
    DEFAULT_SECONDS,
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
from yolo_gateway.many import check_many
from yolo_gateway.messages import Answer, Ask, Broken, Events, Pause, Request, decoded, refusal
from yolo_gateway.prediction import Item, Prediction
from yolo_gateway.schema import TaskView
from yolo_gateway.uploads import Options, params_of, upload

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Unpack

T = TypeVar("T")


class AsyncClient:
    """As `Client`, for one event loop."""

    def __init__(
        self,
        server: str | None = None,
        key: str | None = None,
        *,
        timeout: float = DEFAULT_SECONDS,
        connections: int = 64,
    ) -> None:
        self._address = Address(server, key)
        self._timeout = timeout
        with from_environment():
            self._own = httpx.AsyncClient(**self._address.options(connections))
            self._foreign = httpx.AsyncClient(follow_redirects=True)

    def __repr__(self) -> str:
        return f"AsyncClient({self._address.server!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections; it cannot be used any more."""
        await self._own.aclose()
        await self._foreign.aclose()

    async def predict(
        self,
        image: Any,
        *,
        timeout: float | None = None,
        bgr: bool = False,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        **options: Unpack[Options],
    ) -> Prediction:
        """As `Client.predict`."""
        deadline = self._deadline(timeout)
        source, request = await self._upload(image, bgr, deadline, options, idempotency_key, traceparent)
        return prediction(await self._run(predicted(request, deadline)), source)

    async def submit(
        self,
        image: Any,
        *,
        timeout: float | None = None,
        bgr: bool = False,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
        **options: Unpack[Options],
    ) -> AsyncTask:
        """As `Client.submit`."""
        deadline = self._deadline(timeout)
        source, request = await self._upload(image, bgr, deadline, options, idempotency_key, traceparent)
        return AsyncTask(self, await self._run(flows.submitted(request, deadline, wait=False)), source)

    async def task(self, task_id: str, *, timeout: float | None = None) -> AsyncTask:
        """As `Client.task`."""
        return AsyncTask(self, await self._read(task_id, timeout))

    async def predict_many(
        self,
        images: Iterable[Any],
        *,
        concurrency: int = 16,
        ordered: bool = False,
        timeout: float | None = None,
        patience: float = PATIENCE_SECONDS,
        bgr: bool = False,
        **options: Unpack[Options],
    ) -> AsyncIterator[Item]:
        """As `Client.predict_many`."""
        check_many(images, concurrency)
        params_of(options)

        async def one(image: Any) -> Prediction:
            deadline = self._deadline(timeout, patience)
            source, request = await self._upload(image, bgr, deadline, options, None, None)
            return prediction(await self._run(predicted(request, deadline)), source)

        async def item(index: int, given: Any) -> Item:
            try:
                return Item(index, given, await one(given))
            except YoloGatewayError as error:
                return Item(index, given, error=error)

        numbered, under_way = enumerate(images), deque[asyncio.Task[Item]]()
        try:
            while True:
                free = concurrency - len(under_way)
                under_way.extend(asyncio.create_task(item(*each)) for each in islice(numbered, free))
                if not under_way:
                    return
                first = under_way[0]
                if ordered:
                    await asyncio.wait([first])
                else:
                    first = (await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED))[0].pop()
                under_way.remove(first)
                yield first.result()
        finally:
            for each in under_way:
                each.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def models(self, *, timeout: float | None = None) -> Models:
        """As `Client.models`."""
        return await self._run(models(self._deadline(timeout)))

    async def ready(self, *, timeout: float = READY_SECONDS) -> bool:
        """As `Client.ready`."""
        try:
            return (await self._ask(Ask(Request("GET", "/status"), Deadline(timeout)))).status == 200
        except Broken:
            return False

    def _deadline(self, timeout: float | None, patience: float = 0.0) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout, patience)

    async def _upload(
        self, image: Any, bgr: bool, deadline: Deadline, options: Options, key: str | None, traceparent: str | None
    ) -> tuple[Source, Request]:
        params_of(options)
        source = await asyncio.to_thread(source_of, image, bgr)
        if source.url:
            body = await self._run(fetched(source.url, deadline))
        else:
            body = await asyncio.to_thread(source.read)
        deadline.extend(len(body))
        return source.after(body), upload(body, options, key, traceparent)

    async def _read(self, task_id: str, timeout: float | None) -> flows.Read:
        deadline = self._deadline(timeout)
        request = reading(task_id)
        return decoded(await self._run(flows.answered(lambda left: request, deadline, task_id)), TaskView)

    async def _run(self, flow: Generator[Ask | Pause, Any, T]) -> T:
        """Do one step of a flow after the other."""
        try:
            step = next(flow)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = flow.send(None)
                    continue
                try:
                    answer = await self._ask(step)
                except Broken as broken:
                    step = flow.throw(broken)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            outcome: T = stop.value
            return outcome

    async def _ask(self, ask: Ask) -> Answer:
        if self._own.is_closed:
            raise RuntimeError("this client is closed; make a new one")
        try:
            return await asyncio.wait_for(self._whole(ask.request, ask.deadline), max(ask.deadline.left, 0.001))
        except asyncio.TimeoutError as error:
            raise Broken("no answer in time") from error

    async def _whole(self, request: Request, deadline: Deadline) -> Answer:
        body, received = [], 0
        with broken_errors():
            async with self._stream(request, deadline) as answer:
                async for part in answer.aiter_bytes():
                    body.append(part)
                    received += len(part)
                    check(received, deadline)
                return Answer(answer.status_code, answer.headers, b"".join(body))

    def _stream(self, request: Request, deadline: Deadline) -> AbstractAsyncContextManager[httpx.Response]:
        return (self._foreign if is_foreign(request) else self._own).stream(
            request.method,
            request.path,
            params=request.params or None,
            headers=request.headers,
            content=request.body,
            timeout=timeouts(request, deadline),
        )


class AsyncTask:
    """As `client.Task`, awaited."""

    def __init__(self, client: AsyncClient, read: flows.Read, source: Source | None = None) -> None:
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
        return f"AsyncTask({self.task_id!r}, {self.state})"

    async def refresh(self, *, timeout: float | None = None) -> Self:
        """As `Task.refresh`."""
        self.view, self.raw = await self._client._read(self.task_id, timeout)
        return self

    async def wait(self, timeout: float = DEFAULT_SECONDS) -> Prediction:
        """As `Task.wait`."""
        read = self.view, self.raw
        read = await self._client._run(flows.finished(self.task_id, Deadline(timeout), read))
        self.view, self.raw = read
        return prediction(read, self._source)

    async def cancel(self, *, timeout: float = DEFAULT_SECONDS) -> bool:
        """As `Task.cancel`."""
        return await self._client._run(flows.canceled(self.task_id, Deadline(timeout)))

    async def forget(self, *, timeout: float = DEFAULT_SECONDS) -> None:
        """As `Task.forget`."""
        await self._client._run(flows.forgotten(self.task_id, Deadline(timeout)))

    async def picture(self, *, png: bool = False, timeout: float = DEFAULT_SECONDS) -> bytes:
        """As `Task.picture`."""
        accept = {"Accept": "image/png" if png else "image/jpeg"}
        request = Request("GET", f"/result/{self.task_id}/image", headers=accept)
        return (await self._client._run(flows.answered(lambda left: request, Deadline(timeout), self.task_id))).body

    async def events(self, timeout: float = DEFAULT_SECONDS) -> AsyncIterator[TaskView]:
        """As `Task.events`."""
        following = flows.Following(self.task_id, Deadline(timeout))
        while True:
            problem: Broken | ServiceError | None = None
            try:
                async with aclosing(self._event_data(following)) as changes:
                    async for data in changes:
                        if (read := following.changed(data)) is None:
                            continue
                        self.view, self.raw = read
                        yield self.view
                        if self.view.status != "PENDING":
                            return
            except (Broken, ServiceError) as error:
                problem = error
            await asyncio.sleep(following.pause_after(problem))

    async def _event_data(self, following: flows.Following) -> AsyncGenerator[bytes, None]:
        request, deadline, events = following.request, following.deadline, Events()
        with broken_errors():
            async with self._client._stream(request, deadline) as answer:
                if answer.status_code >= 300:
                    raise refusal(Answer(answer.status_code, answer.headers, await answer.aread()), self.task_id)
                async for line in answer.aiter_lines():
                    for data in events.feed(line):
                        yield data
                    check(0, deadline)
