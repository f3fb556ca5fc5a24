"""Webhooks over a real Redis to real TLS receivers; names and addresses are the test's own."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
import redis.asyncio as aioredis
from standardwebhooks import Webhook, WebhookVerificationError

from gateway.errors import InternalError
from gateway.outbound.https import Outbound
from gateway.queue import submission
from gateway.queue.common import failure
from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import WEBHOOKS_KEY, webhook_key
from gateway.settings import Settings, SettingsError, check_callbacks, load
from gateway.webhooks.deliverer import Deliverer
from gateway.webhooks.queue import WebhookQueue
from gateway.webhooks.signing import Signer, secret_of
from tests.api.clients import client_of
from tests.api.deliver import NAME
from tests.api.receiving import BODY, SECRET, Empty, answers, body_of, delivering, headers_of, put, put_into, until
from tests.support.internet import PUBLIC_ADDRESS, Internet, Site, reachable, reply
from tests.support.pictures import encoded

OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def run_delivery(redis_url: str, site: Site, until_empty: Empty, **knobs: Any) -> Internet:
    """Deliver to `site` until nothing is left."""

    async def run() -> Internet:
        async with reachable(site, NAME) as (internet, outbound), delivering(redis_url, outbound, **knobs):
            await until_empty()
            return internet

    return asyncio.run(run())


def test_a_delivery_is_scheduled_with_its_transaction_or_not_at_all(connection: "redis.Redis") -> None:
    with connection.pipeline() as pipe:
        put_into(pipe, "t1")
    assert connection.keys() == []
    put(connection, "t1")
    assert connection.zcard(WEBHOOKS_KEY) == 1
    assert 0 < connection.ttl(webhook_key("t1")) <= 86_400


def test_a_delivery_is_signed_so_that_the_library_of_the_standard_accepts_it(
    redis_url: str, connection: "redis.Redis", until_empty: Empty
) -> None:
    site = Site(reply(204), NAME)
    put(connection, "t1")
    internet = run_delivery(redis_url, site, until_empty)
    (request,) = site.requests
    headers = headers_of(request)
    assert request.startswith(b"POST /ended?token=1 HTTP/1.1\r\n")
    assert (headers["webhook-id"], headers["content-type"], body_of(request)) == ("t1", "application/json", BODY)
    assert Webhook(SECRET).verify(BODY, headers)["status"] == "SUCCESS"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY.replace(b"SUCCESS", b"FAILURE"), headers)
    assert internet.connected == [(PUBLIC_ADDRESS, 443)]
    assert connection.keys() == []


def test_while_secrets_change_a_receiver_may_hold_either(
    redis_url: str, connection: "redis.Redis", until_empty: Empty
) -> None:
    site = Site(reply(200), NAME)
    put(connection, "t1")
    run_delivery(redis_url, site, until_empty, secrets=f"{OTHER_SECRET} {SECRET}")
    headers = headers_of(site.requests[0])
    for secret in (SECRET, OTHER_SECRET):
        Webhook(secret).verify(BODY, headers)


def test_the_signature_is_that_of_the_standards_own_example() -> None:
    headers = Signer(SECRET).headers("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', 1614265330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("status", [301, 400, 401, 404, 429, 500, 503])
def test_any_other_answer_than_2xx_is_tried_again(
    redis_url: str, connection: "redis.Redis", until_empty: Empty, status: int
) -> None:
    site = Site(answers(status, 200), NAME)
    put(connection, "t1")
    run_delivery(redis_url, site, until_empty)
    first, second = map(headers_of, site.requests)
    assert first["webhook-id"] == second["webhook-id"] == "t1"
    Webhook(SECRET).verify(BODY, second)


def test_a_receiver_that_is_gone_gets_no_second_delivery(
    redis_url: str, connection: "redis.Redis", until_empty: Empty
) -> None:
    site = Site(answers(410, 200), NAME)
    put(connection, "t1")
    run_delivery(redis_url, site, until_empty)
    assert len(site.requests) == 1
    assert connection.keys() == []


def test_after_the_last_pause_a_delivery_is_given_up(
    redis_url: str, connection: "redis.Redis", until_empty: Empty, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(reply(500), NAME)
    put(connection, "t1")
    run_delivery(redis_url, site, until_empty)
    assert len(site.requests) == 3
    assert connection.keys() == []
    assert "webhook t1 given up after 3 tries: the receiver answers with status 500" in caplog.text
    assert "token" not in caplog.text


def test_the_pauses_are_kept_give_or_take_a_fifth(
    redis_url: str, connection: "redis.Redis", until_empty: Empty
) -> None:
    at: list[float] = []

    async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
        at.append(time.monotonic())
        await reply(500)(request, writer)

    put(connection, "t1")
    run_delivery(redis_url, Site(answer, NAME), until_empty, pauses=(1.0, 2.0))
    first, second = at[1] - at[0], at[2] - at[1]
    poll = 0.7
    assert 0.8 <= first <= 1.2 + poll
    assert 1.6 <= second <= 2.4 + poll


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "64:ff9b::7f00:1", "169.254.169.254"])
def test_a_private_receiver_is_never_connected_to(
    redis_url: str, connection: "redis.Redis", until_empty: Empty, address: str
) -> None:
    async def run() -> None:
        internet = Internet({NAME: [[address]]})
        async with delivering(redis_url, Outbound([443], internet)):
            await until_empty()
        assert internet.connected == []

    put(connection, "t1")
    asyncio.run(run())


def test_a_receiver_that_turns_private_after_its_first_answer_is_not_connected_to_again(
    redis_url: str, connection: "redis.Redis", until_empty: Empty
) -> None:
    async def run() -> None:
        site = Site(reply(500), NAME)
        async with reachable(site, NAME) as (internet, outbound), delivering(redis_url, outbound):
            internet.names[NAME].append(["127.0.0.1"])
            await until_empty()
        assert internet.connected == [(PUBLIC_ADDRESS, 443)]

    put(connection, "t1")
    asyncio.run(run())


def test_a_slow_receiver_holds_up_no_other(redis_url: str, connection: "redis.Redis", until_empty: Empty) -> None:
    async def hang(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def run() -> None:
        slow, quick = Site(hang, "slow.example"), Site(reply(200), NAME)
        trusting = quick.trusting
        slow.authority.configure_trust(trusting)
        async with slow.open() as slow_port, reachable(quick, NAME) as (internet, _):
            internet.names["slow.example"] = [["93.184.215.99"]]
            internet.ports["93.184.215.99"] = slow_port
            started = time.monotonic()
            async with delivering(redis_url, Outbound([443], internet, trusting), timeout=3.0, pauses=(0.05,)):
                await until(lambda: (len(quick.requests), len(slow.requests)) == (20, 16))
                assert time.monotonic() - started < 3.0
                await until_empty()
        assert len(slow.requests) == 40
        assert len(quick.requests) == 20

    put(connection, *(f"slow{number}" for number in range(20)), url="https://slow.example/")
    put(connection, *(f"quick{number}" for number in range(20)))
    asyncio.run(run())


def test_a_tarpit_holds_up_no_other_and_the_rest_of_a_quick_host_follows_at_once(
    redis_url: str, connection: "redis.Redis"
) -> None:
    async def hang(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def run() -> None:
        slow, quick = Site(hang, "slow.example"), Site(reply(200), NAME)
        trusting = quick.trusting
        slow.authority.configure_trust(trusting)
        async with slow.open() as slow_port, reachable(quick, NAME) as (internet, _):
            internet.names["slow.example"] = [["93.184.215.99"]]
            internet.ports["93.184.215.99"] = slow_port
            started = time.monotonic()
            async with delivering(redis_url, Outbound([443], internet, trusting), timeout=4.0, pauses=()):
                await until(lambda: len(quick.requests) == 60)
                assert time.monotonic() - started < 4.0 and len(slow.requests) <= 16
                attempts = [
                    int(connection.hget(webhook_key(f"slow{number}"), "attempts") or 0) for number in range(600)
                ]
                assert sum(attempts) == 16  # who moved aside has used up no try

    put(connection, *(f"slow{number}" for number in range(600)), url="https://slow.example/")
    put(connection, *(f"quick{number}" for number in range(60)))
    asyncio.run(run())


def test_each_owner_has_a_secret_that_signs_for_no_other(
    redis_url: str, connection: "redis.Redis", until_empty: Empty
) -> None:
    site = Site(reply(204), NAME)
    with connection.pipeline() as pipe:
        put_into(pipe, "t1", owner="camera-1")
        pipe.execute()
    run_delivery(redis_url, site, until_empty)
    headers = headers_of(site.requests[0])
    own, other = secret_of(SECRET, "camera-1"), secret_of(SECRET, "camera-2")
    assert own.startswith("whsec_") and own != other
    assert Webhook(own).verify(BODY, headers) == Webhook(SECRET).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(other).verify(BODY, headers)
    forged = Webhook(other).sign("t1", datetime.now(UTC), BODY.decode())
    with pytest.raises(WebhookVerificationError):
        Webhook(own).verify(BODY, headers | {"webhook-signature": forged})


def test_a_deliverer_that_works_touches_its_file(redis_url: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with aioredis.Redis.from_url(redis_url) as connection:
            outbound, alive = Outbound([443], Internet()), tmp_path / "alive"
            deliverer = Deliverer(
                WebhookQueue(connection, 5), outbound, Signer(SECRET), timeout_seconds=5, pauses_seconds=[], alive=alive
            )
            running = asyncio.create_task(deliverer.run())
            await until(alive.exists)
            deliverer.stopping.set()
            await running

    asyncio.run(run())


def test_a_full_backlog_refuses_callbacks_alone(settings: Settings, connection: "redis.Redis") -> None:
    bounded = msgspec.structs.replace(settings, callbacks=True, webhook_secret=SECRET, max_webhooks=2)
    put(connection, "t1", "t2")
    with client_of(bounded) as client:
        refused = client.post("/predict", params={"callback_url": "https://93.184.215.14/"}, content=encoded(8, 8))
        assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (
            503,
            "overloaded",
            "60",
        )
        assert client.post("/predict", content=encoded(8, 8)).status_code == 202
        connection.zrem(WEBHOOKS_KEY, "t1")
        taken = client.post("/predict", params={"callback_url": "https://93.184.215.14/"}, content=encoded(8, 8))
        assert taken.status_code == 202


def test_one_client_cannot_fill_the_backlog(
    settings: Settings, connection: "redis.Redis", queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "_REMEMBERED_SECONDS", 0.0)
    bounded = msgspec.structs.replace(settings, callbacks=True, webhook_secret=SECRET, max_webhooks_per_client=2)
    asked: dict[str, Any] = {"params": {"callback_url": "https://93.184.215.14/"}, "content": encoded(8, 8)}
    with client_of(bounded) as greedy, client_of(bounded, "192.0.2.7") as other:
        first = greedy.post("/predict", **asked).json()["task_id"]
        assert greedy.post("/predict", **asked).status_code == 202
        claim = queue.claim(0, "worker")
        assert claim is not None and claim.task_id == first
        assert queue.finish(failure(first, InternalError("planted")), claim.request, claim.execution)
        assert connection.zscore(WEBHOOKS_KEY, first), "one has ended and waits for its receiver, one is queued"
        refused = greedy.post("/predict", **asked)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_open_tasks")
        assert "2 of your callbacks" in refused.json()["detail"] and refused.headers["retry-after"] == "60"
        assert greedy.post("/predict", content=encoded(8, 8)).status_code == 202
        assert other.post("/predict", **asked).status_code == 202
        connection.zrem(WEBHOOKS_KEY, first)  # delivered
        assert greedy.post("/predict", **asked).status_code == 202
        assert greedy.post("/predict", **asked).status_code == 429


def test_two_processes_share_the_deliveries(redis_url: str, connection: "redis.Redis", until_empty: Empty) -> None:
    async def run() -> None:
        site = Site(reply(200), NAME)
        async with reachable(site, NAME) as (_, outbound):
            async with delivering(redis_url, outbound), delivering(redis_url, outbound):
                await until_empty()
        assert sorted(headers_of(request)["webhook-id"] for request in site.requests) == sorted(task_ids)

    task_ids = [f"t{number}" for number in range(60)]
    put(connection, *task_ids)
    asyncio.run(run())


def test_a_lost_connection_to_redis_loses_no_delivery(
    redis_url: str, connection: "redis.Redis", until_empty: Empty
) -> None:
    async def run() -> None:
        site = Site(reply(200), NAME)
        async with reachable(site, NAME) as (_, outbound), delivering(redis_url, outbound):
            await asyncio.sleep(0.1)
            connection.client_kill_filter(_type="normal", skipme=True)
            put(connection, "t1")
            await until_empty()
        assert len(site.requests) == 1

    asyncio.run(run())


def test_a_delivery_whose_body_expired_is_forgotten(
    redis_url: str, connection: "redis.Redis", until_empty: Empty
) -> None:
    site = Site(reply(200), NAME)
    put(connection, "t1", "t2")
    connection.delete(webhook_key("t1"))
    run_delivery(redis_url, site, until_empty)
    assert [headers_of(request)["webhook-id"] for request in site.requests] == ["t2"]


def test_a_wrong_clock_of_the_host_does_not_date_deliveries(
    redis_url: str, connection: "redis.Redis", until_empty: Empty, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, real = Site(reply(204), NAME), time.time
    put(connection, "t1")
    monkeypatch.setattr(time, "time", lambda: real() + 7_200)
    run_delivery(redis_url, site, until_empty)
    assert abs(int(headers_of(site.requests[0])["webhook-timestamp"]) - real()) < 30
    Webhook(SECRET).verify(body_of(site.requests[0]), headers_of(site.requests[0]))


@pytest.mark.parametrize(
    "secret", ["hunter2", "whsec_", "whsec_c2hvcnQ=", SECRET[6:], SECRET[:-1], f"{SECRET} hunter2"]
)
def test_a_bad_secret_is_refused_and_not_printed(secret: str) -> None:
    with pytest.raises(SettingsError, match=r"^WEBHOOK_SECRET=\.\.\.: ") as caught:
        load({"WEBHOOK_SECRET": secret})
    assert secret == "whsec_" or secret not in str(caught.value)


def test_callbacks_need_a_secret_of_who_signs_them() -> None:
    with pytest.raises(SettingsError, match="WEBHOOK_SECRET"):
        check_callbacks(load({"CALLBACKS": "true"}))
    check_callbacks(load({"CALLBACKS": "true", "WEBHOOK_SECRET": SECRET}))
