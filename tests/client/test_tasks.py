"""Tasks: submitted, waited for, followed, canceled; many images; threads, forks and asyncio."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from yolo_gateway import AsyncClient, Client, Item, Unfinished, errors

from gateway.redis_names import OPEN_KEY
from gateway.settings import Settings
from tests.api.serving import working
from tests.support.fakes import FakeTriton
from tests.support.pictures import encoded

PICTURE = encoded(64, 48)


def test_submit_wait_and_read_again(service: str) -> None:
    with Client(service) as client:
        task = client.submit(PICTURE, annotate=True)
        assert task.state == "queued"
        found = task.wait(timeout=20)
        assert task.state == "succeeded" and found.task_id == task.task_id
        again = client.task(task.task_id)
        assert again.wait().detections == found.detections
        assert task.picture()[:3] == b"\xff\xd8\xff" and task.picture(png=True)[:4] == b"\x89PNG"
        task.forget()
        with pytest.raises(errors.TaskNotFound):
            client.task(task.task_id)


def test_a_wait_is_bounded_and_can_go_on(idle: str, settings: Settings, triton: FakeTriton) -> None:
    with Client(idle) as client:
        begun = time.monotonic()
        with pytest.raises(Unfinished) as told:
            client.predict(PICTURE, timeout=1.5)
        assert 1 < time.monotonic() - begun < 8
        with working(settings, triton):
            assert client.task(told.value.task_id).wait(timeout=20).detections


def test_cancel_and_what_follows(idle: str) -> None:
    with Client(idle) as client:
        task = client.submit(PICTURE)
        assert task.cancel() and task.cancel()  # the second finds it canceled
        with pytest.raises(errors.Canceled) as told:
            task.wait()
        assert told.value.task_id == task.task_id


def test_cancel_leaves_what_has_finished(service: str) -> None:
    with Client(service) as client:
        task = client.submit(PICTURE)
        task.wait()
        assert not task.cancel()
        assert client.task(task.task_id).state == "succeeded"


def test_events_end_with_the_task(idle: str, settings: Settings, triton: FakeTriton) -> None:
    with Client(idle) as client:
        task = client.submit(PICTURE)
        states: list[str] = []
        for view in task.events(timeout=30):
            if not states:
                worker = working(settings, triton)
                worker.__enter__()
            states.append(view.state)
        worker.__exit__(None, None, None)
    assert states[0] == "queued" and states[-1] == "succeeded"
    assert task.wait().detections


def test_events_are_bounded(idle: str) -> None:
    with Client(idle) as client, pytest.raises(Unfinished):
        list(client.submit(PICTURE).events(timeout=1))


@pytest.mark.parametrize("ordered", [False, True])
def test_many_images_and_one_that_is_none(service: str, ordered: bool) -> None:
    images = [PICTURE if number != 7 else b"no image" for number in range(40)]
    with Client(service) as client:
        items = list(client.predict_many(images, concurrency=4, ordered=ordered))
    assert sorted(item.index for item in items) == list(range(40))
    assert not ordered or [item.index for item in items] == list(range(40))
    (bad,) = (item for item in items if item.error)
    assert bad.index == 7 and isinstance(bad.error, errors.UnsupportedImage)
    assert all(item.result and item.result.detections for item in items if not item.error)


def test_no_more_is_read_than_is_under_way(service: str) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield PICTURE

    with Client(service) as client:
        following = client.predict_many(endless(), concurrency=3)
        for number in range(1, 10):
            next(following)
            assert read <= number + 3
        following.close()  # type: ignore[attr-defined]


def test_back_pressure_loses_nothing(settings: Settings, triton: FakeTriton) -> None:
    from msgspec.structs import replace

    from tests.api.serving import serving

    narrow = replace(settings, max_queued_tasks=2, max_queued_tasks_per_client=2)
    with serving(narrow) as url, working(narrow, triton), Client(url) as client:
        items = list(client.predict_many([PICTURE] * 30, concurrency=8))
    assert len(items) == 30 and not [item.error for item in items if item.error]


def test_threads_share_a_client(service: str) -> None:
    with Client(service) as client, ThreadPoolExecutor(8) as pool:
        assert all(len(found) == 1 for found in pool.map(client.predict, [PICTURE] * 40))


def test_a_forked_process_has_connections_of_its_own(service: str) -> None:
    with Client(service) as client:
        client.predict(PICTURE)
        child = os.fork()
        if not child:
            os._exit(0 if len(client.predict(PICTURE)) == 1 else 1)
        assert len(client.predict(PICTURE)) == 1
        assert os.waitpid(child, 0)[1] == 0


def test_asyncio_goes_on_meanwhile(service: str) -> None:
    async def main() -> tuple[list[Item], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        async with AsyncClient(service) as client:
            found = await client.predict(PICTURE)
            assert found.detections[0].label == "person"
            task = await client.submit(PICTURE)
            assert [view.state async for view in task.events()][-1] == "succeeded"
            assert (await task.wait()).detections and not await task.cancel()
            await task.forget()
            with pytest.raises(errors.TaskNotFound):
                await client.task(task.task_id)
            items = [item async for item in client.predict_many([PICTURE] * 20, concurrency=4, ordered=True)]
        ticking.cancel()
        return items, ticks

    items, ticks = asyncio.run(main())
    assert [item.index for item in items] == list(range(20)) and all(item.result for item in items)
    assert ticks > 5


def test_an_abandoned_generator_leaves_nothing_behind(service: str, connection: "redis.Redis") -> None:
    with Client(service) as client:
        for _ in client.predict_many([PICTURE] * 50, concurrency=4):
            break
    deadline = time.monotonic() + 20
    while connection.hlen(OPEN_KEY) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert connection.hlen(OPEN_KEY) == 0
    assert not [each for each in threading.enumerate() if each.name.startswith("predict")]
