"""The client against lost, cut, late and foreign answers: one task for one image, one deadline for all tries."""

import asyncio
import time

import pytest
import redis
from yolo_gateway import AsyncClient, Client, InvalidInput, NotReached, StrangeAnswer, Unfinished, errors

from gateway.redis_names import result_key
from tests.client.hostile import Hostile, Pictures
from tests.support.pictures import encoded

PICTURE = encoded(64, 48)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def tasks(connection: "redis.Redis") -> int:
    return len(connection.keys(result_key("*")))


@pytest.mark.parametrize(
    "harm",
    [["lost"], ["cut"], [503], [429], [408], [500], [502, 504], ["lost", "cut", 503, "lost"]],
    ids=str,
)
def test_what_is_tried_again_is_one_task(hostile: Hostile, connection: "redis.Redis", harm: list[str | int]) -> None:
    hostile.harm = list(harm)
    with Client(hostile.url, timeout=30) as client:
        assert len(client.predict(PICTURE)) == 1
    assert tasks(connection) == 1
    keys = {headers["idempotency-key"] for method, _, headers in hostile.seen if method == "POST"}
    assert len(keys) == 1 and len(hostile.seen) >= len(harm) + 1


def test_asyncio_does_the_same(hostile: Hostile, connection: "redis.Redis") -> None:
    hostile.harm = ["lost", "cut", 503]

    async def main() -> int:
        async with AsyncClient(hostile.url, timeout=30) as client:
            return len(await client.predict(PICTURE))

    assert asyncio.run(main()) == 1 and tasks(connection) == 1


def test_each_image_has_a_key_of_its_own(hostile: Hostile) -> None:
    with Client(hostile.url) as client:
        client.predict(PICTURE)
        client.predict(PICTURE, idempotency_key="mine")
        client.predict(PICTURE, traceparent=TRACE)
    first, mine, last = (headers for _, _, headers in hostile.seen)
    assert first["idempotency-key"] != last["idempotency-key"] and mine["idempotency-key"] == "mine"
    assert last["traceparent"] == TRACE and "traceparent" not in first


@pytest.mark.parametrize("harm", ["hang", "drip"])
def test_a_service_that_is_slow_is_given_up_in_time(hostile: Hostile, harm: str) -> None:
    hostile.harm = [harm] * 9
    begun = time.monotonic()
    with Client(hostile.url) as client, pytest.raises(NotReached, match=r"no answer within 1\.5 s"):
        client.predict(PICTURE, timeout=1.5)
    assert time.monotonic() - begun < 3


def test_a_wait_that_loses_the_service_carries_the_task(hostile: Hostile) -> None:
    with Client(hostile.url) as client:
        task = client.submit(PICTURE)
        hostile.harm = ["lost"] * 99
        with pytest.raises(Unfinished) as told:
            task.wait(timeout=1)
        assert told.value.task_id == task.task_id
        hostile.harm = []
        assert task.wait().detections


def test_retry_after_is_obeyed(hostile: Hostile) -> None:
    hostile.harm, hostile.headers = [429], {"retry-after": "1"}
    begun = time.monotonic()
    with Client(hostile.url) as client:
        client.predict(PICTURE)
    assert time.monotonic() - begun >= 1


def test_a_retry_after_beyond_the_deadline_is_told_at_once(hostile: Hostile) -> None:
    hostile.harm, hostile.headers = [503], {"retry-after": "60"}
    begun = time.monotonic()
    with Client(hostile.url, timeout=5) as client, pytest.raises(errors.ServiceError) as told:
        client.predict(PICTURE)
    assert time.monotonic() - begun < 4 and told.value.retry_after == 60


def test_many_images_outlast_a_retry_after_beyond_the_timeout(hostile: Hostile, connection: "redis.Redis") -> None:
    hostile.harm, hostile.headers = [503, 429] * 3, {"retry-after": "1"}
    with Client(hostile.url, timeout=1) as client:
        assert all(item.result for item in client.predict_many([PICTURE] * 3, concurrency=3))
    assert tasks(connection) == 3


def test_many_images_are_not_patient_for_ever(hostile: Hostile) -> None:
    hostile.harm, hostile.headers = [503] * 9, {"retry-after": "30"}
    with Client(hostile.url) as client:
        (item,) = client.predict_many([PICTURE], timeout=5, patience=10)
    assert isinstance(item.error, errors.ServiceError) and len(hostile.seen) == 1


@pytest.mark.parametrize("harm", [["hang"] * 9, [503] * 99], ids=["hang", "503"])
def test_who_leaves_many_images_is_free_in_seconds(hostile: Hostile, harm: list[str | int]) -> None:
    hostile.harm, hostile.headers = ["pass", *harm], {"retry-after": "50"}
    with Client(hostile.url, timeout=6) as client:
        following = client.predict_many([PICTURE] * 20, concurrency=4)
        assert next(following).result
        begun = time.monotonic()
        following.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begun < 8 and len(hostile.seen) < 10


def test_a_lost_upload_is_found_by_its_key(hostile: Hostile, connection: "redis.Redis") -> None:
    hostile.harm = ["lost"] * 99
    with Client(hostile.url) as client:
        with pytest.raises(NotReached) as told:
            client.submit(PICTURE, timeout=1)
        hostile.harm = []
        assert client.predict(PICTURE, idempotency_key=told.value.idempotency_key).detections
    assert tasks(connection) == 1


def test_an_image_at_a_url_is_fetched_without_the_key_and_only_once(service: str) -> None:
    with Pictures(PICTURE) as host, Client(service, "top-secret") as client:
        found = client.predict(host.url + "/bus.jpg?signature=abc")
        assert found.annotated().size == (64, 48)
        with pytest.raises(InvalidInput, match=r"/gone\.jpg cannot be fetched: HTTP 404") as told:
            client.predict(host.url + "/gone.jpg?signature=abc")
    assert "abc" not in str(told.value) and len(host.seen) == 2
    assert not [headers for headers in host.seen if "authorization" in headers]


def test_a_redirect_is_not_followed_and_the_key_stays_here(hostile: Hostile) -> None:
    with Pictures(PICTURE) as other:
        hostile.harm, hostile.headers = [307], {"location": other.url + "/predict"}
        with Client(hostile.url, "top-secret") as client:
            with pytest.raises(errors.ServiceError, match=f"redirect to '{other.url}/predict'.*as the server"):
                client.predict(PICTURE)
    assert not other.seen


@pytest.mark.parametrize("harm", ["garbage", 302])
def test_another_answer_is_not_taken_for_the_services(hostile: Hostile, harm: str | int) -> None:
    hostile.harm, hostile.headers = [harm], {"location": "http://127.0.0.1:1/"}
    with Client(hostile.url) as client, pytest.raises((StrangeAnswer, errors.ServiceError)) as told:
        client.predict(PICTURE)
    assert len(hostile.seen) == 1 and "\n" not in str(told.value)


def test_nobody_answers() -> None:
    begun = time.monotonic()
    with Client("http://127.0.0.1:1", timeout=1) as client:
        assert not client.ready()
        with pytest.raises(NotReached, match=r"no answer within 1 s: .*refused"):
            client.predict(PICTURE)
    assert time.monotonic() - begun < 3


def test_cancel_after_a_lost_answer_forgets_nothing(hostile: Hostile) -> None:
    with Client(hostile.url) as client:
        task = client.submit(PICTURE)
        task.wait()
        hostile.harm = ["lost", "pass"]
        assert not task.cancel()
        assert client.task(task.task_id).state == "succeeded"


def test_events_go_on_after_a_broken_connection(hostile: Hostile) -> None:
    with Client(hostile.url) as client:
        task = client.submit(PICTURE)
        hostile.harm = ["lost", "cut", 503]
        assert [view.state for view in task.events(timeout=20)][-1] == "succeeded"
