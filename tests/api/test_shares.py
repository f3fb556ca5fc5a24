"""One key, or one address without keys, has a share of the queue and not all of it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import msgspec
import pytest
import redis

from gateway.errors import InternalError
from gateway.queue.common import failure
from gateway.redis_names import client_key, job_key
from gateway.security.api_keys import new_key
from gateway.settings import Settings
from gateway.worker.loop import TaskWorker
from tests.api.clients import client_of
from tests.support.pictures import encoded

PICTURE = encoded(64, 48)
GREEDY, GREEDY_LINE = new_key("greedy")
HONEST, HONEST_LINE = new_key("honest")
SHARE = 3
REMEMBERED_SECONDS = 0.6


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, api_keys=f"{GREEDY_LINE} {HONEST_LINE}", max_queued_tasks_per_client=SHARE)


def send(client: httpx2.Client, key: str = GREEDY, *more: bytes, **headers: str) -> httpx2.Response:
    headers = {"X-API-Key": key, **headers}
    if more:
        return client.post("/predict", files=[("image", ("a", each)) for each in (PICTURE, *more)], headers=headers)
    return client.post("/predict", content=PICTURE, headers=headers)


@pytest.fixture
def full(client: httpx2.Client) -> Iterator[list[str]]:
    """The places of the tasks of a client that has its share."""
    yield [send(client).headers["location"] for _ in range(SHARE)]


def test_one_key_gets_its_share_and_others_are_served(client: httpx2.Client, full: list[str]) -> None:
    refused = send(client)
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_open_tasks")
    assert f"{SHARE} of your tasks" in refused.json()["detail"] and 1 <= int(refused.headers["retry-after"]) <= 120
    assert send(client, HONEST).status_code == 202


def test_the_share_holds_for_many_at_once(client: httpx2.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        statuses = [answer.status_code for answer in pool.map(lambda _: send(client), range(24))]
    assert statuses.count(202) == SHARE and statuses.count(429) == 24 - SHARE


def canceled(client: httpx2.Client, place: str, worker: TaskWorker, connection: "redis.Redis") -> None:
    assert client.delete(place, headers={"X-API-Key": GREEDY}).status_code == 200


def worked_off(client: httpx2.Client, place: str, worker: TaskWorker, connection: "redis.Redis") -> None:
    worker.run(burst=True)


def vanished(client: httpx2.Client, place: str, worker: TaskWorker, connection: "redis.Redis") -> None:
    connection.delete(job_key(place.rpartition("/")[2]))
    worker._maintenance.close_vanished()


def ended_by_another(client: httpx2.Client, place: str, worker: TaskWorker, connection: "redis.Redis") -> None:
    assert worker._tasks.finish(failure(place.rpartition("/")[2], InternalError("planted")))


@pytest.mark.parametrize("end", [canceled, worked_off, vanished, ended_by_another])
def test_a_task_that_ends_in_any_way_makes_room(
    client: httpx2.Client, full: list[str], worker: TaskWorker, connection: "redis.Redis", end: Callable[..., None]
) -> None:
    assert send(client).status_code == 429
    end(client, full[0], worker, connection)
    time.sleep(REMEMBERED_SECONDS)
    assert send(client).status_code == 202


def test_bytes_have_a_share_too(settings: Settings, connection: "redis.Redis") -> None:
    bounded = msgspec.structs.replace(settings, max_queued_tasks_per_client=100, max_queued_bytes_per_client=200_000)
    with client_of(bounded) as client:
        statuses = [send(client).status_code for _ in range(5)]
        assert statuses == [202, 202, 202, 429, 429], "each keeps room for its result, 50 kB"
        assert send(client, HONEST).status_code == 202


def test_a_client_with_nothing_open_may_send_a_large_batch(client: httpx2.Client) -> None:
    assert send(client, GREEDY, *[PICTURE] * SHARE).status_code == 202
    assert send(client).status_code == 429


def test_a_known_idempotency_key_is_answered(client: httpx2.Client) -> None:
    first = send(client, **{"Idempotency-Key": "once"})
    for _ in range(SHARE):
        send(client)
    assert send(client).status_code == 429
    assert send(client, **{"Idempotency-Key": "once"}).json()["task_id"] == first.json()["task_id"]


def test_a_refused_client_costs_redis_nothing_for_a_moment(
    client: httpx2.Client, full: list[str], connection: "redis.Redis"
) -> None:
    assert send(client).status_code == 429
    calls = connection.info("stats")["total_commands_processed"]
    assert [send(client).status_code for _ in range(5)] == [429] * 5
    assert connection.info("stats")["total_commands_processed"] - calls < 5


def test_a_refused_client_with_new_idempotency_keys_is_not_counted_again(
    client: httpx2.Client, full: list[str], connection: "redis.Redis"
) -> None:
    def counted() -> int:
        return int(connection.info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"])

    assert send(client).status_code == 429
    before = counted()
    keyed = [send(client, **{"Idempotency-Key": f"{number}"}) for number in range(5)]
    assert [each.status_code for each in keyed] == [429] * 5 and counted() == before


def test_without_keys_an_address_has_the_share(settings: Settings) -> None:
    without = msgspec.structs.replace(settings, api_keys=None)
    with client_of(without) as client, client_of(without, "198.51.100.7") as other:
        assert [send(client).status_code for _ in range(SHARE + 1)] == [202] * SHARE + [429]
        assert send(other).status_code == 202


def test_camera_software_is_told_in_its_words(settings: Settings) -> None:
    with client_of(msgspec.structs.replace(settings, api_keys=None, vision_wait=0.1)) as client:
        for _ in range(SHARE):
            send(client)
        answer = client.post("/v1/vision/detection", files={"image": ("a.png", PICTURE)})
    assert answer.status_code == 503 and "of your tasks" in answer.json()["error"]


def test_what_is_noted_of_a_client_stays_small(
    client: httpx2.Client, work: Callable[[], None], connection: "redis.Redis"
) -> None:
    for _ in range(4 * SHARE):
        work()
        assert send(client, HONEST).status_code == 202  # so that something is always open
        assert send(client).status_code == 202
    assert connection.hlen(client_key("key:greedy")) <= SHARE + 1
