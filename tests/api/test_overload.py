"""The queue is bounded, and what is not taken on is told when to come back."""

import asyncio
import base64
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
import redis

from gateway.errors import Overloaded, RateLimited
from gateway.queue.maintenance import Maintenance
from gateway.queue.records import TaskRequest
from gateway.queue.task_queue import TaskQueue
from gateway.queue.throughput import retry_after
from gateway.redis_names import (
    OPEN_BYTES_KEY,
    OPEN_KEY,
    PICTURES_BYTES_KEY,
    PICTURES_KEY,
    RESERVED_KEY,
    RESERVES_KEY,
    batch_key,
    group_key,
    job_key,
    picture_key,
    result_key,
)
from gateway.settings import Settings
from gateway.task import TaskView
from gateway.web.admission import Admission
from tests.api.clients import client_of
from tests.api.conftest import NO_TRITON
from tests.api.submit import submit
from tests.support.pictures import encoded

QUEUE_KEY = "rq:queue:predict"
PICTURE = encoded(64, 48)
MOST_TASKS = 5
END_BYTES = TaskRequest(model="fake", accepted_at=0.0).end_bytes


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, triton_url=NO_TRITON, max_queued_tasks=MOST_TASKS, max_queued_bytes=300_000)


@pytest.fixture
def queue(settings: Settings, connection: "redis.Redis") -> TaskQueue:
    return TaskQueue(connection, settings)


@pytest.fixture
def small_redis(connection: "redis.Redis") -> Iterator[None]:
    """A Redis that is as good as full."""
    connection.config_set("maxmemory", connection.info("memory")["used_memory"] + 100_000)
    yield
    connection.config_set("maxmemory", 0)


def book(connection: "redis.Redis") -> tuple[int, int, int, int]:
    """Open tasks and the bytes that they may take, how many of them have bytes kept for their end, and these."""
    tasks, reserves = connection.hlen(OPEN_KEY), connection.hlen(RESERVES_KEY)
    return tasks, int(connection.get(OPEN_BYTES_KEY) or 0), reserves, int(connection.get(RESERVED_KEY) or 0)


EMPTY = 0, 0, 0, 0


def test_more_tasks_than_allowed_are_refused(client: httpx2.Client) -> None:
    statuses = [client.post("/predict", content=PICTURE).status_code for _ in range(MOST_TASKS + 2)]
    assert statuses == [202] * MOST_TASKS + [503] * 2
    refused = client.post("/predict", content=PICTURE)
    assert refused.json()["code"] == "overloaded"
    assert 1 <= int(refused.headers["retry-after"]) <= 120


def test_more_bytes_than_allowed_are_refused(settings: Settings, connection: "redis.Redis") -> None:
    submit(settings, bytes(180_000))
    tasks, held, *_ = book(connection)
    assert tasks == 1 and held > 180_000 + END_BYTES
    with pytest.raises(Overloaded, match=f"1 tasks with {held} bytes are waiting"):
        submit(settings, bytes(20_000))
    submit(settings, bytes(5_000))
    assert book(connection)[2:] == (2, 2 * END_BYTES)


def test_of_a_refused_image_nothing_is_kept(settings: Settings, connection: "redis.Redis") -> None:
    for size in (20_000, 600_000):  # over the shared connection, and over one of its own
        submit(settings, bytes(180_000))
        kept = set(connection.scan_iter())
        with pytest.raises(Overloaded):
            submit(settings, bytes(size))
        assert set(connection.scan_iter()) == kept
        connection.flushdb()


def test_an_idle_service_takes_a_request_beyond_the_bounds(settings: Settings) -> None:
    submit(settings, bytes(500_000))


def test_the_bounds_hold_for_many_at_once(settings: Settings, connection: "redis.Redis") -> None:
    def tried(_: int) -> bool:
        try:
            submit(settings, bytes(100))
        except Overloaded:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(tried, range(64))) == MOST_TASKS
    assert connection.llen(QUEUE_KEY) == MOST_TASKS


def test_a_task_that_ends_makes_room(
    client: httpx2.Client, work: Callable[[], None], connection: "redis.Redis"
) -> None:
    for _ in range(MOST_TASKS):
        client.post("/predict", content=PICTURE)
    assert book(connection)[2:] == (MOST_TASKS, MOST_TASKS * END_BYTES)
    work()
    assert book(connection) == EMPTY
    assert client.post("/predict", content=PICTURE).status_code == 202


def test_a_canceled_task_makes_room(client: httpx2.Client, connection: "redis.Redis") -> None:
    place = client.post("/predict", content=PICTURE).headers["location"]
    assert client.delete(place).status_code == 200
    assert book(connection) == EMPTY


def test_a_redis_that_is_nearly_full_takes_no_more(
    client: httpx2.Client, small_redis: None, connection: "redis.Redis"
) -> None:
    refused = client.post("/predict", content=PICTURE)
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert connection.info("stats")["evicted_keys"] == 0


def test_an_accept_that_is_repeated_after_a_lost_answer_is_one_task(
    settings: Settings, connection: "redis.Redis"
) -> None:
    task_id = submit(settings, bytes(100))
    once = book(connection)
    submit(settings, bytes(100), task_id)
    assert connection.lrange(QUEUE_KEY, 0, -1) == [task_id.encode()]
    assert book(connection) == once


def test_a_task_whose_job_has_vanished_ends(
    client: httpx2.Client, settings: Settings, queue: TaskQueue, connection: "redis.Redis"
) -> None:
    kept = submit(settings, bytes(100))
    one = book(connection)
    vanished, failed = (submit(settings, bytes(100)) for _ in range(2))
    connection.delete(job_key(vanished))
    connection.hset(job_key(failed), "status", "failed")
    Maintenance(queue).close_vanished()
    assert connection.hkeys(OPEN_KEY) == [kept.encode()]
    assert book(connection) == one
    for task_id in (vanished, failed):
        assert client.get(f"/result/{task_id}").json()["error"]["code"] == "internal_error"


def test_a_batch_whose_jobs_have_vanished_goes_with_its_results(
    client: httpx2.Client, settings: Settings, queue: TaskQueue, connection: "redis.Redis"
) -> None:
    files = [("image", (f"{index}.png", PICTURE)) for index in range(2)]
    accepted, other = (client.post("/predict", files=files).json() for _ in range(2))
    connection.delete(*(job_key(task["task_id"]) for task in accepted["tasks"]))
    Maintenance(queue).close_vanished()
    batch = client.get(f"/batches/{accepted['batch_id']}").json()
    assert (batch["failed"], batch["pending"]) == (2, 0)
    assert client.get(f"/result/{accepted['tasks'][0]['task_id']}").json()["batch_id"] == accepted["batch_id"]
    for key in (batch_key(accepted["batch_id"]), group_key(accepted["batch_id"])):
        assert 0 < connection.ttl(key) <= settings.result_ttl
    assert connection.ttl(batch_key(other["batch_id"])) > settings.image_ttl, "another batch stays as it was"


@pytest.mark.parametrize(("tasks", "per_second", "seconds"), [(100, 10, 5), (1, 100, 1), (5_000, 1, 120), (100, 0, 60)])
def test_retry_after_is_the_time_in_which_half_the_queue_ends(tasks: int, per_second: float, seconds: int) -> None:
    assert retry_after(tasks, per_second) == seconds


def test_a_service_without_a_limit_on_memory_works(redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, triton_url=NO_TRITON)
    with client_of(settings) as client:
        assert client.post("/predict", content=PICTURE).status_code == 202


def test_a_full_queue_is_remembered_for_a_moment(client: httpx2.Client, connection: "redis.Redis") -> None:
    for _ in range(MOST_TASKS + 1):
        client.post("/predict", content=PICTURE)
    calls = connection.info("stats")["total_commands_processed"]
    refused = [client.post("/predict", content=PICTURE) for _ in range(5)]
    assert {answer.status_code for answer in refused} == {503}
    assert connection.info("stats")["total_commands_processed"] - calls < 5, "Redis was not asked each time"


def test_what_is_being_received_is_bounded() -> None:
    admission = Admission(most_bytes=1000, most_bytes_each=900)
    with admission.taking("b") as other:
        other.received(300)
        with pytest.raises(Overloaded, match="too much is being uploaded"), admission.taking("a") as one:
            one.received(600)
            one.received(200)
        with admission.taking("c") as third:
            third.received(700)
    with admission.taking("a") as one:
        one.received(1000)
    assert admission.held_bytes == 0


def test_the_largest_and_slowest_upload_makes_room() -> None:
    async def never() -> None:
        await asyncio.sleep(60)

    async def stalled(admission: Admission, client: str, size: int) -> str:
        with admission.taking(client) as upload:
            upload.received(size)
            try:
                await upload.read(never())
            except Overloaded:
                return "ended"
        return "whole"

    async def run() -> None:
        admission = Admission(most_bytes=1000, most_bytes_each=900)
        greedy = [asyncio.create_task(stalled(admission, "greedy", size)) for size in (300, 400)]
        other = asyncio.create_task(stalled(admission, "other", 250))
        await asyncio.sleep(0.1)
        with admission.taking("honest") as upload:
            upload.received(200)
            assert admission.held_bytes == 300 + 250 + 200
            await asyncio.sleep(0.1)
            assert [each.done() for each in (*greedy, other)] == [False, True, False]
        with admission.taking("honest") as upload:
            upload.received(100)
        for each in (greedy[0], other):
            each.cancel()

    asyncio.run(run())


def test_an_upload_that_is_being_accepted_is_not_ended() -> None:
    admission = Admission(most_bytes=1000, most_bytes_each=900)
    with admission.taking("a") as accepted, admission.taking("b") as upload:
        accepted.received(900)
        with pytest.raises(Overloaded):
            upload.received(200)


def test_a_client_has_its_share() -> None:
    admission = Admission(most_bytes=1000, most_bytes_each=300)
    with admission.taking("a") as single, admission.taking("a") as more, admission.taking("b") as other:
        single.received(400)
        with pytest.raises(RateLimited, match="more than 300 bytes, its share"):
            more.received(10)
        other.received(200)


@pytest.mark.parametrize("kind", ["raw", "form", "json"])
def test_a_body_beyond_what_may_be_received_is_refused(redis_url: str, kind: str) -> None:
    settings = Settings(redis_url=redis_url, triton_url=NO_TRITON, max_uploading_bytes=1000)
    picture = b"\xff\xd8" + bytes(2000)
    with client_of(settings) as client:
        if kind == "form":
            answer = client.post("/predict", files={"image": ("a.jpg", picture)})
        elif kind == "json":
            answer = client.post("/predict", json={"image": base64.b64encode(picture).decode()})
        else:
            answer = client.post("/predict", content=picture)
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
        assert answer.headers["retry-after"] == "1"


def keep(settings: Settings, connection: "redis.Redis", size: int) -> str:
    """A task that has ended with a picture of that size."""
    task_id = submit(settings, bytes(100))
    view = TaskView(task_id=task_id, status="SUCCESS", state="succeeded")
    assert TaskQueue(connection, settings).finish(
        view, pictures={"image/jpeg": bytes(size - 10), "image/png": bytes(10)}
    )
    return task_id


def test_pictures_are_bounded_and_the_oldest_make_room(connection: "redis.Redis", redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, max_pictures_bytes=1000)
    ids = []
    for size in (400, 400, 300):
        ids.append(keep(settings, connection, size))
        connection.zadd(PICTURES_KEY, {f"{ids[-1]}:{size}": time.time() - 100 + len(ids)})
    assert [connection.exists(picture_key(task_id)) for task_id in ids] == [0, 1, 1]
    assert connection.get(PICTURES_BYTES_KEY) == b"700"
    too_large = keep(settings, connection, 1001)
    assert connection.exists(picture_key(too_large), result_key(too_large)) == 1, "only the result is kept"
    assert sorted(connection.hkeys(picture_key(ids[2]))) == [b"image/jpeg", b"image/png"]


def test_pictures_that_have_expired_do_not_count(connection: "redis.Redis", redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, max_pictures_bytes=1000)
    old = keep(settings, connection, 400)
    connection.zadd(PICTURES_KEY, {f"{old}:400": time.time() - 4000})
    keep(settings, connection, 100)
    assert connection.get(PICTURES_BYTES_KEY) == b"100"
    assert connection.zcard(PICTURES_KEY) == 1
