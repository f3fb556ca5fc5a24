"""Which workers count as alive."""

from datetime import UTC, datetime, timedelta

import pytest

from gateway.queue.workers import is_fresh


def beat(seconds_ago: float) -> bytes:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()


@pytest.mark.parametrize(
    ("age", "worker_ttl", "alive"),
    [(1, 15, True), (14, 15, True), (16, 15, False), (40, 120, True), (121, 120, False)],
    ids=["just now", "late", "silent", "between the beats of a long life", "silent for that"],
)
def test_a_worker_is_alive_until_its_time_to_live_is_over(age: float, worker_ttl: float, alive: bool) -> None:
    assert is_fresh(beat(age), worker_ttl) is alive


def test_a_worker_that_never_beat_is_not_alive() -> None:
    assert not is_fresh(None, 15)
