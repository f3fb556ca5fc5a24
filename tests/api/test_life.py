"""The life of a task: idempotency, cancelling, forgetting, following."""

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import httpx2
import pytest
import redis

from gateway.queue.submission import Acceptance, Submission
from gateway.queue.task_queue import TaskQueue
from gateway.settings import Settings
from tests.support.pictures import encoded

PICTURE = encoded(64, 48)
KEY = {"Idempotency-Key": "order-66"}


def test_the_same_key_and_body_give_the_same_task(client: httpx2.Client, work: Callable[[], None]) -> None:
    first = client.post("/predict", content=PICTURE, headers=KEY)
    again = client.post("/predict", content=PICTURE, headers=KEY)
    assert (again.status_code, again.json()["task_id"]) == (202, first.json()["task_id"])
    work()
    ended = client.post("/predict", content=PICTURE, headers=KEY)
    assert (ended.status_code, ended.json()["task_id"]) == (200, first.json()["task_id"])
    assert ended.json()["status"] == "SUCCESS"


def test_the_first_answer_to_a_key_is_202_however_fast_the_worker_is(
    client: httpx2.Client, work: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Submission.accept

    async def accept_and_work(*arguments: Any, **options: Any) -> Acceptance:
        accepted = await original(*arguments, **options)
        await asyncio.to_thread(work)
        return accepted

    monkeypatch.setattr(Submission, "accept", accept_and_work)
    first = client.post("/predict", content=PICTURE, headers=KEY)
    assert (first.status_code, first.json()["status"]) == (202, "PENDING")
    assert client.post("/predict", content=PICTURE, headers=KEY).status_code == 200


def test_the_key_of_a_forgotten_task_is_free_again(client: httpx2.Client, work: Callable[[], None]) -> None:
    first = client.post("/predict", content=PICTURE, headers=KEY)
    work()
    assert client.delete(first.headers["location"]).status_code == 204
    again = client.post("/predict", content=PICTURE, headers=KEY)
    assert again.status_code == 202 and again.json()["task_id"] != first.json()["task_id"]
    work()
    assert client.get(again.headers["location"]).json()["status"] == "SUCCESS"


@pytest.mark.parametrize("other", ["image", "choice"])
def test_the_same_key_with_another_request_is_refused(client: httpx2.Client, other: str) -> None:
    client.post("/predict", content=PICTURE, headers=KEY)
    image = encoded(65, 48) if other == "image" else PICTURE
    params = {"conf": "0.9"} if other == "choice" else {}
    answer = client.post("/predict", content=image, headers=KEY, params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_conflict")


def test_a_key_sent_many_times_at_once_is_one_task(client: httpx2.Client, connection: "redis.Redis") -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/predict", content=PICTURE, headers=KEY), range(16)))
    assert len({answer.json()["task_id"] for answer in answers}) == 1
    assert connection.llen("rq:queue:predict") == 1


def test_a_key_of_a_batch_gives_the_same_batch(client: httpx2.Client) -> None:
    files = [("image", ("a.png", PICTURE)), ("image", ("b.png", encoded(8, 8)))]
    first, again = (client.post("/predict", files=files, headers=KEY) for _ in range(2))
    assert first.json() == again.json()


def test_a_queued_task_can_be_canceled(
    client: httpx2.Client, work: Callable[[], None], connection: "redis.Redis"
) -> None:
    place = client.post("/predict", content=PICTURE).headers["location"]
    canceled = client.delete(place)
    assert (canceled.status_code, canceled.json()["status"]) == (200, "FAILURE")
    assert canceled.json()["created_at"] < canceled.json()["ended_at"]
    assert canceled.json()["error"]["request_id"]
    assert not connection.keys("yolo:rate:*"), "it tells nothing about how fast tasks are worked off"
    work()
    body = client.get(place).json()
    assert (body["state"], body["error"]["code"]) == ("canceled", "canceled")
    assert connection.llen("rq:queue:predict") == 0
    assert client.delete(place).status_code == 204
    assert client.get(place).status_code == 404


def test_an_ended_task_can_be_forgotten(client: httpx2.Client, work: Callable[[], None]) -> None:
    place = client.post("/predict", content=PICTURE, params={"annotate": "1"}).headers["location"]
    work()
    assert client.get(place + "/image").status_code == 200
    assert client.delete(place).status_code == 204
    for path in (place, place + "/image", place + "/events"):
        assert client.get(path).status_code == 404
    assert client.delete(place).status_code == 404


def test_a_running_task_cannot_be_deleted(client: httpx2.Client, settings: Settings, connection: "redis.Redis") -> None:
    place = client.post("/predict", content=PICTURE).headers["location"]
    assert TaskQueue(connection, settings).claim(0, "worker") is not None
    answer = client.delete(place)
    assert (answer.status_code, answer.json()["code"]) == (409, "task_running")


@pytest.mark.parametrize("task_id", ["0" * 32, "a b", "%C3%BC%3F", "%00", "..%2e", "a" * 5_000])
def test_ids_that_were_never_given_out_are_not_found(client: httpx2.Client, task_id: str) -> None:
    for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/image")]:
        answer = client.request(method, f"/result/{task_id}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")


def test_canceling_wakes_who_waits(client: httpx2.Client) -> None:
    place = client.post("/predict", content=PICTURE).headers["location"]
    timer = threading.Timer(0.3, lambda: client.delete(place))
    timer.start()
    answer = client.get(place, params={"wait": "20"})
    timer.join()
    assert answer.json()["state"] == "canceled"


def states(client: httpx2.Client, place: str) -> list[str]:
    """The states that the event stream of a task tells, until it ends."""
    told = []
    with client.stream("GET", place + "/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                told.append(json.loads(line.removeprefix("data: "))["state"])
    return told


def test_events_tell_each_change_of_state(client: httpx2.Client, work: Callable[[], None]) -> None:
    place = client.post("/predict", content=PICTURE).headers["location"]
    timer = threading.Timer(0.4, work)
    timer.start()
    told = states(client, place)
    timer.join()
    assert told[0] == "queued" and told[-1] == "succeeded"
    assert told in (["queued", "started", "succeeded"], ["queued", "succeeded"])


def test_events_tell_the_place_in_the_queue_as_it_changes(client: httpx2.Client) -> None:
    places = [client.post("/predict", content=PICTURE).headers["location"] for _ in range(3)]
    timers = [
        threading.Timer(seconds, client.delete, [place]) for seconds, place in zip((0.5, 4), places[::2], strict=True)
    ]
    for timer in timers:
        timer.start()
    with client.stream("GET", places[2] + "/events") as stream:
        told = [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line.startswith("data: ")]
    for timer in timers:
        timer.join()
    assert [(each["state"], each.get("position")) for each in told] == [
        ("queued", 2),
        ("queued", 1),
        ("canceled", None),
    ]


def test_events_of_an_ended_task_end_at_once(client: httpx2.Client, work: Callable[[], None]) -> None:
    place = client.post("/predict", content=PICTURE).headers["location"]
    work()
    assert states(client, place) == ["succeeded"]


def test_events_of_an_unknown_task(client: httpx2.Client) -> None:
    assert client.get(f"/result/{'0' * 32}/events").json()["code"] == "task_not_found"


def test_times_and_expiry_are_told(client: httpx2.Client, work: Callable[[], None], settings: Settings) -> None:
    place = client.post("/predict", content=PICTURE).headers["location"]
    assert client.get(place).json()["created_at"].endswith("Z")
    work()
    body = client.get(place).json()
    created, started, ended, expires = (
        datetime.fromisoformat(body[name]) for name in ("created_at", "started_at", "ended_at", "expires_at")
    )
    assert created <= started <= ended
    assert (expires - ended).total_seconds() == pytest.approx(settings.result_ttl, abs=0.01)


def test_the_estimate_comes_from_the_measured_rate(client: httpx2.Client, work: Callable[[], None]) -> None:
    place = client.post("/predict", content=PICTURE).headers["location"]
    assert "ready_in_seconds" not in client.get(place).json(), "nothing was measured yet"
    work()
    places = [client.post("/predict", content=PICTURE).headers["location"] for _ in range(3)]
    estimates = [client.get(place).json()["ready_in_seconds"] for place in places]
    assert 0 < estimates[0] < estimates[1] < estimates[2] <= 60 * 3


@pytest.mark.parametrize(
    ("form", "media_type", "inside"),
    [
        ("coco", "application/json", '"annotations"'),
        ("yolo", "text/plain; charset=utf-8", "0 "),
        ("csv", "text/csv; charset=utf-8; header=present", "person"),
        ("json", "application/json", '"status":"SUCCESS"'),
    ],
)
def test_a_result_comes_in_the_asked_for_form(
    client: httpx2.Client, work: Callable[[], None], form: str, media_type: str, inside: str
) -> None:
    place = client.post("/predict", content=encoded(640, 480)).headers["location"]
    assert client.get(place, params={"format": form}).json()["status"] == "PENDING"
    work()
    answer = client.get(place, params={"format": form})
    assert answer.headers["content-type"] == media_type
    assert inside in answer.text


def test_an_unknown_form_is_refused(client: httpx2.Client) -> None:
    answer = client.get(f"/result/{'0' * 32}", params={"format": "xml"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
