"""The parameters of a request, and the other ways to send an image."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx2
import pytest
import redis

from gateway.web.parameters import LONGEST_WAIT_SECONDS
from tests.support.fakes import FakeTriton
from tests.support.pictures import encoded

PICTURE = encoded(64, 48)


@contextmanager
def soon(action: Callable[[], None], seconds: float = 0.3) -> Iterator[None]:
    """Run `action` in a thread a moment after the block has begun."""
    timer = threading.Timer(seconds, action)
    timer.start()
    yield
    timer.join()


def result_of(client: httpx2.Client, answer: httpx2.Response, work: Callable[[], None]) -> dict[str, object]:
    assert answer.status_code == 202, answer.text
    work()
    body = client.get(answer.headers["location"]).json()
    assert body["status"] == "SUCCESS", body
    result: dict[str, object] = body["result"]
    return result


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton([[0, 0, 300, 300, 0.9, 0], [10, 10, 310, 310, 0.8, 1], [400, 0, 500, 100, 0.4, 2]])


@pytest.mark.parametrize(
    ("choices", "count"),
    [({}, 3), ({"conf": "0.5"}, 2), ({"max_det": "1"}, 1), ({"agnostic_nms": "true"}, 2), ({"conf": "1"}, 0)],
    ids=["none", "conf", "max_det", "agnostic", "nothing above"],
)
def test_choices_reach_the_worker(
    client: httpx2.Client, work: Callable[[], None], choices: dict[str, str], count: int
) -> None:
    in_query = client.post("/predict", params=choices, content=PICTURE)
    in_form = client.post("/predict", data=choices, files={"image": ("a.png", PICTURE)})
    for answer in (in_query, in_form):
        assert len(result_of(client, answer, work)["detections"]) == count  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("conf", "1.1", "a number from 0 to 1"),
        ("conf", "high", "a number from 0 to 1"),
        ("conf", "nan", "a number from 0 to 1"),
        ("conf", "null", "a number from 0 to 1"),
        ("conf", " 0.5", "a number from 0 to 1"),
        ("iou", "-0.1", "a number from 0 to 1"),
        ("max_det", "0", "a whole number from 1 to 1000"),
        ("max_det", "1.5", "a whole number from 1 to 1000"),
        ("max_det", "9" * 50, "a whole number from 1 to 1000"),
        ("agnostic_nms", "maybe", "true or false"),
        ("annotate", "2", "true or false"),
        ("priority", "urgent", "high or normal"),
        ("priority", "High", "high or normal"),
        ("priority", " high", "high or normal"),
        ("version", "latest", "a version of the model"),
        ("model", "m" * 201, "text of at most 200 characters"),
        ("wait", "-1", "a number from 0 to 60"),
        ("wait", "61", "a number from 0 to 60"),
    ],
)
def test_a_bad_choice_is_named_with_what_is_allowed(
    client: httpx2.Client, connection: "redis.Redis", name: str, value: str, allowed: str
) -> None:
    answer = client.post("/predict", params={name: value}, content=PICTURE)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    detail = answer.json()["detail"]
    assert detail.startswith(f"{name}={value[:100]}") and f": give {allowed}" in detail and len(detail) < 250
    assert connection.dbsize() == 0


def test_a_value_of_several_lines_is_told_on_one(client: httpx2.Client) -> None:
    answer = client.post("/predict", data={"conf": "a\nb"}, files={"image": ("a.png", PICTURE)})
    assert answer.json()["detail"] == "conf=a b: give a number from 0 to 1"


def test_an_empty_parameter_counts_as_not_given(client: httpx2.Client, work: Callable[[], None]) -> None:
    files = {"image": ("a.png", PICTURE)}
    answer = client.post("/predict?conf=&priority=&wait=", data={"conf": "0.5", "max_det": ""}, files=files)
    assert len(result_of(client, answer, work)["detections"]) == 2  # type: ignore[arg-type]


def test_an_encoded_body_is_told_to_be_one(client: httpx2.Client) -> None:
    answer = client.post("/predict", content=PICTURE, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415 and "Content-Encoding" in answer.json()["detail"]


def test_high_priority_begins_first(client: httpx2.Client) -> None:
    first = client.post("/predict", content=PICTURE)
    urgent = client.post("/predict", params={"priority": "high"}, content=PICTURE)
    assert client.get(urgent.headers["location"]).json()["position"] == 0
    assert client.get(first.headers["location"]).json()["position"] == 1


@pytest.mark.parametrize(
    ("params", "headers"),
    [({"wait": "20"}, {}), ({}, {"Prefer": "wait=20"}), ({}, {"Prefer": 'respond-async, wait="20"; n=1'})],
    ids=["query", "Prefer", "Prefer among others"],
)
def test_a_waited_for_task_is_answered_at_once(
    client: httpx2.Client, work: Callable[[], None], params: dict[str, str], headers: dict[str, str]
) -> None:
    with soon(work):
        answer = client.post("/predict", params=params, headers=headers, content=PICTURE)
    assert (answer.status_code, answer.json()["status"]) == (200, "SUCCESS")
    assert answer.headers["content-location"] == f"/result/{answer.json()['task_id']}"
    assert answer.headers.get("preference-applied") == ("wait=20" if headers else None)
    assert [entry.partition(";")[0] for entry in answer.headers["server-timing"].split(", ")] == [
        *["queue", "decode", "letterbox", "triton", "nms", "total"]
    ]


def test_a_wait_that_is_too_short_is_answered_with_202(client: httpx2.Client) -> None:
    begun = time.monotonic()
    answer = client.post("/predict", params={"wait": "0.3"}, content=PICTURE)
    assert (answer.status_code, answer.json()["status"]) == (202, "PENDING")
    assert 0.3 <= time.monotonic() - begun < LONGEST_WAIT_SECONDS / 10


def test_the_annotated_picture_is_there_when_asked_for(client: httpx2.Client, work: Callable[[], None]) -> None:
    asked = client.post("/predict", params={"annotate": "true"}, content=encoded(320, 240))
    plain = client.post("/predict", content=PICTURE)
    early = client.get(asked.headers["location"] + "/image")
    assert (early.status_code, early.json()["code"]) == (404, "no_picture")
    work()
    for accept, media_type, magic in [
        ("*/*", "image/jpeg", b"\xff\xd8"),
        ("image/png", "image/png", b"\x89PNG"),
        ("image/jpeg;q=0.5, image/png", "image/png", b"\x89PNG"),
        ("image/jpeg, image/png;q=0.9", "image/jpeg", b"\xff\xd8"),
    ]:
        picture = client.get(asked.headers["location"] + "/image", headers={"Accept": accept})
        assert (picture.headers["content-type"], picture.content[: len(magic)]) == (media_type, magic)
    assert client.get(plain.headers["location"] + "/image").json()["code"] == "no_picture"
    assert client.get(f"/result/{'0' * 32}/image").json()["code"] == "task_not_found"


def test_every_answer_has_a_request_id(client: httpx2.Client, work: Callable[[], None]) -> None:
    accepted = client.post("/predict", content=PICTURE[:100], headers={"X-Request-ID": "mine-42"})
    assert accepted.headers["x-request-id"] == "mine-42"
    work()
    failed = client.get(accepted.headers["location"])
    assert failed.json()["error"]["request_id"] == "mine-42", "the failure tells the request that it came from"
    made = failed.headers["x-request-id"]
    assert len(made) == 32 and made != client.get("/livez").headers["x-request-id"]
    refused = client.post("/predict", headers={"X-Request-ID": "bad id\t<script>"})
    assert refused.json()["request_id"] == refused.headers["x-request-id"] != "bad id\t<script>"


def test_a_bad_choice_in_the_body_is_told_though_the_query_has_a_good_one(client: httpx2.Client) -> None:
    files = {"image": ("a.png", PICTURE)}
    answer = client.post("/predict?conf=0.5", data={"conf": "high"}, files=files)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")


def test_the_query_counts_more_than_the_body(client: httpx2.Client, work: Callable[[], None]) -> None:
    answer = client.post("/predict?conf=0.85", data={"conf": "0.5"}, files={"image": ("a.png", PICTURE)})
    assert len(result_of(client, answer, work)["detections"]) == 1  # type: ignore[arg-type]


def test_another_parameter_is_not_given_twice(client: httpx2.Client) -> None:
    answer = client.post("/predict?conf=0.3&conf=0.4", content=PICTURE)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")


def test_a_field_that_is_too_long_is_told(client: httpx2.Client) -> None:
    answer = client.post("/predict", data={"classes": "person," * 800}, files={"image": ("a.png", PICTURE)})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert answer.json()["detail"] == "classes: give at most 4096 bytes"


def test_a_preference_in_a_header_of_its_own(client: httpx2.Client) -> None:
    headers = [("Prefer", "return=representation"), ("Prefer", "wait=0")]
    assert client.post("/predict", content=PICTURE, headers=headers).headers["preference-applied"] == "wait=0"


def test_a_preference_is_a_hint_of_which_the_granted_part_is_told(
    client: httpx2.Client, work: Callable[[], None]
) -> None:
    with soon(work):
        answer = client.post("/predict", content=PICTURE, headers={"Prefer": f"wait={'9' * 400}"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, f"wait={LONGEST_WAIT_SECONDS}")


def test_a_parameter_counts_more_than_a_preference(client: httpx2.Client) -> None:
    files = {"image": ("a.png", PICTURE)}
    for kind in ({"params": {"wait": "0"}}, {"data": {"wait": "0"}}):
        answer = client.post("/predict", files=files, headers={"Prefer": "wait=20"}, **kind)  # type: ignore[arg-type]
        assert answer.status_code == 202 and "preference-applied" not in answer.headers
