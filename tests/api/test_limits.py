"""Rates: how many requests a key or an address may send."""

import re
import time

import httpx2
import msgspec
import pytest
import redis

from gateway.security.api_keys import new_key
from gateway.security.rate_limit import client_of as counted_as
from gateway.settings import Settings, SettingsError, load
from tests.api.clients import client_of

SLOW, SLOW_LINE = new_key("slow")
FAST, FAST_LINE = new_key("fast")


def spent(client: httpx2.Client, requests: int, **headers: str) -> list[int]:
    return [client.get("/batches/none", headers=headers).status_code for _ in range(requests)]


def numbers(header: str) -> dict[str, int]:
    assert header.startswith('"requests";')
    return {name: int(value) for name, value in re.findall(r";(\w)=(\d+)", header)}


def test_an_address_is_told_when_it_has_sent_too_many(settings: Settings) -> None:
    limited = msgspec.structs.replace(settings, rate_limit="3/minute")
    with client_of(limited, "192.0.2.1") as client, client_of(limited, "192.0.2.2") as other:
        assert spent(client, 4) == [404, 404, 404, 429]
        refused = client.post("/predict", content=b"not read")
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert spent(other, 1) == [404]


def test_headers_tell_what_is_left(settings: Settings) -> None:
    with client_of(msgspec.structs.replace(settings, rate_limit="3/minute")) as client:
        answers = [client.get("/batches/none") for _ in range(4)]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"requests";q=3;w=60'}
    assert [numbers(answer.headers["ratelimit"])["r"] for answer in answers] == [2, 1, 0, 0]
    assert 0 < numbers(answers[0].headers["ratelimit"])["t"] <= 20


def test_requests_are_let_through_again_after_the_told_time(settings: Settings) -> None:
    with client_of(msgspec.structs.replace(settings, rate_limit="1/second")) as client:
        assert spent(client, 2) == [404, 429]
        time.sleep(int(client.get("/batches/none").headers["retry-after"]))
        assert spent(client, 1) == [404]


def test_a_key_has_its_own_rate(settings: Settings) -> None:
    keys = msgspec.structs.replace(settings, api_keys=f"{SLOW_LINE}:1/minute {FAST_LINE}", rate_limit="3/minute")
    with client_of(keys, "192.0.2.1") as client:
        assert spent(client, 2, **{"X-API-Key": SLOW}) == [404, 429]
        assert spent(client, 4, **{"X-API-Key": FAST}) == [404, 404, 404, 429]
        assert "ratelimit" not in client.get("/models").headers  # 401: without a key nothing is counted


def test_without_a_rate_nothing_is_counted(client: httpx2.Client, connection: "redis.Redis") -> None:
    assert "ratelimit" not in client.get("/batches/none").headers
    assert not connection.keys("yolo:limit:*")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/status", "/openapi.json"])
def test_health_is_never_limited(settings: Settings, path: str) -> None:
    with client_of(msgspec.structs.replace(settings, rate_limit="1/day")) as client:
        assert 429 not in {client.get(path).status_code for _ in range(3)}


def test_a_request_costs_one_command(settings: Settings, connection: "redis.Redis") -> None:
    with client_of(msgspec.structs.replace(settings, rate_limit="100/minute")) as client:
        spent(client, 1)
        connection.config_resetstat()
        spent(client, 5)
        assert connection.info("commandstats")["cmdstat_evalsha"]["calls"] == 5
    assert 0 < connection.ttl("yolo:limit:v1:gcra:address:127.0.0.1") <= 60


def test_without_redis_a_limited_client_is_told() -> None:
    with client_of(Settings(redis_url="redis://127.0.0.1:1/0", rate_limit="5/minute")) as client:
        answer = client.get("/models")
    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unix socket", "unix socket"),
    ],
    ids=["IPv4", "IPv6", "mapped", "no address"],
)
def test_an_ipv6_client_is_its_network(address: str, client: str) -> None:
    assert counted_as(address) == client


@pytest.mark.parametrize("rate", ["0/minute", "600", "600/fortnight", "often", "-1/day"])
def test_a_bad_rate_is_named(rate: str) -> None:
    with pytest.raises(SettingsError, match=f"^RATE_LIMIT={rate}: "):
        load({"RATE_LIMIT": rate})
