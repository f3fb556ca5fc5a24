"""What tasks leave in Redis: all of it is counted, bounded and cleared, and a Redis that is full still answers."""

import re
import time
import uuid
from collections.abc import Callable

import httpx2
import pytest
import redis

from gateway.errors import Overloaded
from gateway.queue.maintenance import Maintenance
from gateway.queue.records import TaskRequest
from gateway.queue.retention import RESULT_OVERHEAD
from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import (
    LARGE_RESULTS_BYTES_KEY,
    LARGE_RESULTS_KEY,
    LEDGER,
    OPEN_BYTES_KEY,
    PICTURES_BYTES_KEY,
    RESERVED_KEY,
    RESERVES_KEY,
    RESULTS_BYTES_KEY,
    RESULTS_KEY,
    result_key,
)
from gateway.settings import Settings
from gateway.task import Box, Detection, DetectionResult, ImageSize, ServedModel, TaskView
from tests.api.submit import submit
from tests.support.pictures import encoded

PICTURE = encoded(8, 8)
LONG_NAME = "\x01" * 4_000


def form(*names: str) -> tuple[bytes, dict[str, str]]:
    """A form of an image of each name, as it is, and its headers."""
    head = 'Content-Disposition: form-data; name="image"; filename="'
    parts = [f'--xx\r\n{head}{name}"\r\n\r\n'.encode() + PICTURE + b"\r\n" for name in names]
    return b"".join(parts) + b"--xx--\r\n", {"Content-Type": "multipart/form-data; boundary=xx"}


def keyed(client: httpx2.Client, *names: str) -> httpx2.Response:
    body, headers = form(*names)
    return client.post("/predict", content=body, headers=headers | {"Idempotency-Key": uuid.uuid4().hex})


def left(connection: "redis.Redis", *kinds: str) -> dict[str, int]:
    """Bytes of the keys of these kinds."""
    found = {kind: list(connection.scan_iter(f"yolo:{kind}:*")) for kind in kinds}
    return {kind: sum(connection.memory_usage(key) or 0 for key in keys) for kind, keys in found.items()}


def test_long_names_of_files_are_cut_and_kept_once(
    client: httpx2.Client, connection: "redis.Redis", work: Callable[[], None]
) -> None:
    answer = keyed(client, *[LONG_NAME] * 16)
    assert answer.status_code == 202
    assert {len(task["filename"]) for task in answer.json()["tasks"]} == {255}
    sizes = left(connection, "batch", "idempotency", "group")
    assert sizes["batch"] < 20_000 and sizes["idempotency"] < 500 and sizes["group"] < 500
    assert int(connection.get(OPEN_BYTES_KEY) or 0) > sum(sizes.values()), "they count when they are accepted"


def test_batch_and_idempotency_key_live_as_long_as_their_last_result(
    client: httpx2.Client, connection: "redis.Redis", queue: TaskQueue, settings: Settings, work: Callable[[], None]
) -> None:
    keyed(client, "a", "b")
    keys = [key for kind in ("batch", "idempotency", "group") for key in connection.scan_iter(f"yolo:{kind}:*")]
    assert len(keys) == 3
    first = queue.claim(0, "worker")
    assert first is not None
    view = TaskView(task_id=first.task_id, status="SUCCESS", state="succeeded")
    queue.finish(view, first.request, first.execution)
    assert all(connection.ttl(key) > settings.image_ttl for key in keys), "one of its tasks is open"
    work()
    assert all(settings.result_ttl - 5 < connection.ttl(key) <= settings.result_ttl for key in keys)


def test_delete_clears_batch_and_idempotency_key(
    client: httpx2.Client, connection: "redis.Redis", work: Callable[[], None]
) -> None:
    tasks = keyed(client, "a", "b").json()["tasks"]
    single = keyed(client, "a").json()
    assert client.delete(f"/result/{tasks[0]['task_id']}").status_code == 200  # canceled: its end is kept
    work()
    for task in tasks:
        assert left(connection, "batch")["batch"]
        assert client.delete(f"/result/{task['task_id']}").status_code == 204
    assert client.delete(f"/result/{single['task_id']}").status_code == 204
    assert set(connection.mget(OPEN_BYTES_KEY, RESERVED_KEY, RESULTS_BYTES_KEY)) == {b"0"}
    sums_and_rates = re.compile(rb"yolo:(rate:.*|client:.*|open_bytes|reserved_bytes|results_bytes)")
    assert [key for key in connection.scan_iter("yolo:*") if not sums_and_rates.fullmatch(key)] == []


def test_a_canceled_task_of_a_batch_counts_as_ended(
    client: httpx2.Client, connection: "redis.Redis", settings: Settings
) -> None:
    for task in keyed(client, "a", "b").json()["tasks"]:
        assert client.delete(f"/result/{task['task_id']}").status_code == 200
    (key,) = connection.scan_iter("yolo:batch:*")
    assert connection.ttl(key) <= settings.result_ttl


def large_view(task_id: str, detections: int = 1_000) -> TaskView:
    found = Detection("traffic light", 79, 0.1234, Box(16383.12, 16383.12, 16383.12, 16383.12))
    result = DetectionResult(ServedModel("yolov5n", "1"), ImageSize(16384, 16384), [found] * detections, {})
    return TaskView(task_id=task_id, status="SUCCESS", state="succeeded", result=result)


@pytest.mark.parametrize("callback_url", ["", "https://example.org/hook"])
def test_room_for_the_largest_end_is_kept(
    settings: Settings, connection: "redis.Redis", queue: TaskQueue, callback_url: str
) -> None:
    request = TaskRequest(model="fake", accepted_at=time.time(), max_detections=1_000, callback_url=callback_url)
    task_id = submit(settings, PICTURE, max_detections=1_000, callback_url=callback_url)
    assert int(connection.get(RESERVED_KEY) or 0) == request.end_bytes
    queue.finish(large_view(task_id), request)
    kept = left(connection, "result", "webhook")
    assert request.end_bytes / 2 < sum(kept.values()) < request.end_bytes
    assert int(connection.get(RESERVED_KEY) or 0) == 0


def test_what_is_accepted_can_end_however_much_that_takes(
    settings: Settings, connection: "redis.Redis", queue: TaskQueue
) -> None:
    most = connection.info("memory")["used_memory"] + 4_000_000
    connection.config_set("maxmemory", most)
    try:
        accepted = []
        with pytest.raises(Overloaded, match=f"of {most} bytes are used and [0-9]+ are kept for the results"):
            while True:
                accepted.append(submit(settings, PICTURE, max_detections=1_000))
        assert 5 < len(accepted) < 25
        for task_id in accepted:
            assert queue.finish(large_view(task_id))
        assert connection.info("memory")["used_memory"] < most
    finally:
        connection.config_set("maxmemory", 0)


def results_held(connection: "redis.Redis") -> int:
    return sum(int(each or 0) for each in connection.mget(RESULTS_BYTES_KEY, LARGE_RESULTS_BYTES_KEY))


@pytest.mark.parametrize("detections", [1_000, 50], ids=["large", "small"])
def test_results_are_bounded_and_the_oldest_make_room(
    connection: "redis.Redis", redis_url: str, detections: int
) -> None:
    settings = Settings(redis_url=redis_url, max_results_bytes=1_000_000)
    queue, ids = TaskQueue(connection, settings), []
    for _ in range(12_000 // detections):
        ids.append(submit(settings, PICTURE))
        assert queue.finish(large_view(ids[-1], detections))
    kept = [task_id for task_id in ids if connection.exists(result_key(task_id))]
    assert kept == ids[-len(kept) :] and len(ids) / 2 < len(kept) < len(ids)
    counted = sum(int(connection.strlen(result_key(task_id))) + RESULT_OVERHEAD for task_id in kept)
    assert results_held(connection) == counted <= 1_000_000
    assert connection.zcard(RESULTS_KEY) + connection.zcard(LARGE_RESULTS_KEY) == len(kept)


def test_large_results_do_not_push_out_small_ones(connection: "redis.Redis", redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, max_results_bytes=1_000_000)
    queue, small = TaskQueue(connection, settings), [submit(settings, PICTURE) for _ in range(40)]
    for task_id in small:
        queue.finish(large_view(task_id, 50))
    for _ in range(30):
        queue.finish(large_view(submit(settings, PICTURE)))
    assert connection.exists(*map(result_key, small)) == len(small)
    assert results_held(connection) <= 1_000_000


def test_a_deleted_or_expired_result_does_not_count(
    client: httpx2.Client, connection: "redis.Redis", queue: TaskQueue, settings: Settings
) -> None:
    deleted, expired, last = (submit(settings, PICTURE) for _ in range(3))
    for task_id in (deleted, expired):
        queue.finish(large_view(task_id))
    assert client.delete(f"/result/{deleted}").status_code == 204
    (member,) = connection.zrange(LARGE_RESULTS_KEY, 0, -1)
    assert isinstance(member, bytes)
    connection.zadd(LARGE_RESULTS_KEY, {member: time.time() - 1})
    connection.delete(result_key(expired))
    queue.finish(large_view(last, 1))
    assert results_held(connection) == int(connection.strlen(result_key(last))) + RESULT_OVERHEAD


def test_a_deleted_picture_does_not_count(
    client: httpx2.Client, connection: "redis.Redis", work: Callable[[], None]
) -> None:
    place = client.post("/predict", content=PICTURE, params={"annotate": "1"}).headers["location"]
    work()
    assert int(connection.get(PICTURES_BYTES_KEY) or 0) > 0
    client.delete(place)
    assert int(connection.get(PICTURES_BYTES_KEY) or 0) == 0


def test_reserves_that_an_older_worker_left_are_freed(
    settings: Settings, connection: "redis.Redis", queue: TaskQueue
) -> None:
    ended, still_open = (submit(settings, PICTURE) for _ in range(2))
    connection.hdel(LEDGER[0], ended)
    Maintenance(queue).drop_stale_reserves()
    assert connection.hkeys(RESERVES_KEY) == [still_open.encode()]
    assert connection.get(RESERVED_KEY) == connection.hget(RESERVES_KEY, still_open)
