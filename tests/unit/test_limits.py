"""What the connections of one process share."""

import pytest

from gateway.errors import Overloaded, RateLimited
from gateway.security.rate_limit import client_of
from gateway.server.limits import Limits
from gateway.settings import Settings
from gateway.telemetry.metrics import GatewayMetrics


class Answer:
    dropped = False

    def drop(self) -> None:
        self.dropped = True


def limits(**settings: object) -> Limits:
    return Limits(Settings(**settings), GatewayMetrics(), client_of)  # type: ignore[arg-type]


def test_connections_come_back() -> None:
    shared = limits(max_connections=3, max_connections_per_address=2)
    for _ in range(3):
        assert [shared.enter("10.0.0.1") for _ in range(2)] == [None, None]
        assert isinstance(shared.enter("10.0.0.1"), RateLimited)
        assert isinstance(shared.enter("10.0.0.2"), Overloaded)
        for address in ("10.0.0.1",) * 3 + ("10.0.0.2",):
            shared.leave(address)


def test_an_ipv6_network_is_one_address() -> None:
    shared = limits(max_connections_per_address=1)
    assert shared.enter("2001:db8::1") is None
    assert isinstance(shared.enter("2001:db8::2"), RateLimited)
    assert shared.enter("2001:db8:0:1::1") is None


@pytest.mark.parametrize("proxies", ["10.0.0.1", "10.0.0.0/8", "*"])
def test_a_trusted_proxy_has_connections_for_all_its_clients(proxies: str) -> None:
    shared = limits(max_connections_per_address=1, max_connections=5, trusted_proxies=proxies)
    assert [shared.enter("10.0.0.1") for _ in range(5)] == [None] * 5
    assert isinstance(shared.enter("10.0.0.1"), Overloaded)


def test_the_oldest_answer_of_the_client_that_has_most_is_dropped() -> None:
    shared = limits(max_untaken_bytes=100, max_untaken_bytes_per_client=50)
    honest, old, new, last = Answer(), Answer(), Answer(), Answer()
    shared.hold(honest, "a", 30)
    shared.hold(old, "b", 20)
    shared.hold(new, "b", 40)
    assert not old.dropped
    shared.check_untaken("a")
    with pytest.raises(RateLimited, match="more than 50 bytes"):
        shared.check_untaken("b")
    shared.hold(last, "c", 25)
    assert [each.dropped for each in (honest, old, new, last)] == [False, True, False, False]
    shared.free(new)
    shared.check_untaken("b")


def test_an_answer_larger_than_all_that_may_wait_is_dropped() -> None:
    shared, answer = limits(max_untaken_bytes=100), Answer()
    shared.hold(answer, "a", 101)
    assert answer.dropped
