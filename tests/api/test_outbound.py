"""What a request makes the gateway ask of other hosts: an image by URL, a callback."""

import time
from collections.abc import Callable, Iterator

import httpx2
import msgspec
import pytest
import redis
from anyio.from_thread import start_blocking_portal
from standardwebhooks import Webhook
from starlette.testclient import TestClient

from gateway.outbound.https import Outbound
from gateway.redis_names import WEBHOOKS_KEY, webhook_key
from gateway.settings import Settings
from gateway.web.app import create_app
from tests.api.clients import URL
from tests.api.receiving import SECRET, answers, body_of, delivering, headers_of
from tests.support.internet import Site, reachable, reply
from tests.support.pictures import encoded

NAME = "pictures.example"
PICTURE = encoded(64, 48)


@pytest.fixture
def outbound() -> Iterator[Outbound]:
    """The way to a site that gives a picture, in a public place of the test's own internet."""
    site = Site(reply(200, PICTURE), NAME)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(reachable(site, NAME)) as (_, outbound),
    ):
        yield outbound


@pytest.fixture
def open_client(settings: Settings, outbound: Outbound) -> Iterator[httpx2.Client]:
    """A gateway with both switches on."""
    switched_on = msgspec.structs.replace(settings, fetch_urls=True, callbacks=True, webhook_secret=SECRET)
    with TestClient(create_app(switched_on, outbound), URL, raise_server_exceptions=False) as client:
        yield client


def test_both_are_off_unless_switched_on(client: httpx2.Client) -> None:
    by_url = client.post("/predict", json={"url": f"https://{NAME}/a.png"})
    with_callback = client.post("/predict", params={"callback_url": f"https://{NAME}/done"}, content=PICTURE)
    for answer in (by_url, with_callback):
        assert (answer.status_code, answer.json()["code"]) == (403, "switched_off")


@pytest.mark.parametrize("form", ["json", "multipart"])
def test_an_image_is_fetched_by_url(open_client: httpx2.Client, work: Callable[[], None], form: str) -> None:
    url = {"url": f"https://{NAME}/a.png"}
    if form == "json":
        accepted = open_client.post("/predict", json=url)
    else:
        accepted = open_client.post("/predict", files={"url": (None, url["url"])})
    assert accepted.status_code == 202, accepted.text
    work()
    assert open_client.get(accepted.headers["location"]).json()["result"]["image"] == {"width": 64, "height": 48}


@pytest.mark.parametrize("url", ["http://pictures.example/a.png", "https://127.0.0.1/a.png", "https://localhost/a.png"])
def test_an_address_that_is_not_public_is_refused(open_client: httpx2.Client, url: str) -> None:
    by_url = open_client.post("/predict", json={"url": url})
    with_callback = open_client.post("/predict", params={"callback_url": url}, content=PICTURE)
    for answer in (by_url, with_callback):
        assert answer.status_code == 422 and answer.json()["code"] in {"url_not_allowed", "fetch_failed"}


@pytest.mark.parametrize("end", ["success", "failure", "canceled"])
def test_every_end_of_a_task_calls_back(
    open_client: httpx2.Client, work: Callable[[], None], connection: "redis.Redis", end: str
) -> None:
    image = PICTURE[:100] if end == "failure" else PICTURE
    accepted = open_client.post("/predict", params={"callback_url": f"https://{NAME}/done"}, content=image)
    task_id = accepted.json()["task_id"]
    assert connection.zcard(WEBHOOKS_KEY) == 0
    if end == "canceled":
        open_client.delete(accepted.headers["location"])
    else:
        work()
    assert connection.zrange(WEBHOOKS_KEY, 0, -1) == [task_id.encode()]
    told = connection.hgetall(webhook_key(task_id))
    assert told[b"url"] == f"https://{NAME}/done".encode()
    assert msgspec.json.decode(told[b"body"]) == open_client.get(accepted.headers["location"]).json()


def test_the_end_of_a_task_comes_to_its_receiver_signed_and_is_tried_again(
    settings: Settings, redis_url: str, work: Callable[[], None], connection: "redis.Redis"
) -> None:
    site = Site(answers(503, 204), NAME)
    switched_on = msgspec.structs.replace(settings, callbacks=True, webhook_secret=SECRET)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(reachable(site, NAME)) as (_, outbound),
        portal.wrap_async_context_manager(delivering(redis_url, outbound)),
        TestClient(create_app(switched_on, outbound), URL) as client,
    ):
        accepted = client.post("/predict", data={"callback_url": f"https://{NAME}/done"}, files={"image": PICTURE})
        work()
        deadline = time.monotonic() + 20
        while len(site.requests) < 2 or connection.exists(WEBHOOKS_KEY):
            assert time.monotonic() < deadline, "it was not delivered"
            time.sleep(0.02)
        task = client.get(accepted.headers["location"]).json()
    first, second = (headers_of(request) for request in site.requests)
    assert first["webhook-id"] == second["webhook-id"] == task["task_id"]
    assert task["status"] == "SUCCESS" and Webhook(SECRET).verify(body_of(site.requests[1]), second) == task
