"""A Redis that is too old, or that drops keys, is named in one line."""

import pytest

from gateway.queue.redis_server import evicting, forgetful, read_only, too_old


@pytest.mark.parametrize("version", ["5.0.7", "6.0.16", "3.2.100", "2.8.24"])
def test_an_older_redis_is_named(version: str) -> None:
    assert too_old({"redis_version": version}) == f"is Redis {version}; this service needs 6.2 or newer"


@pytest.mark.parametrize("version", ["6.2.0", "7.4.1", "8.0.0", "10.1.2", "255.255.255", "unstable", ""])
def test_a_newer_redis_and_one_that_does_not_say_are_taken(version: str) -> None:
    assert too_old({"redis_version": version}) is None
    assert too_old({}) is None


def test_an_evicting_redis_is_named() -> None:
    line = evicting({"maxmemory": 1_000_000, "maxmemory_policy": "volatile-lru"})
    assert line and line.endswith("set its maxmemory-policy to noeviction (it is volatile-lru)")
    assert evicting({"maxmemory": 1_000_000, "maxmemory_policy": "noeviction"}) is None
    assert evicting({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}) is None  # without a limit nothing is dropped
    assert evicting({}) is None


def test_a_replica_is_named() -> None:
    line = read_only({"role": "slave"})
    assert line and line.startswith("is a read-only replica")
    assert read_only({"role": "master"}) is None and read_only({}) is None


def test_a_redis_without_a_file_is_named() -> None:
    line = forgetful({"aof_enabled": 0})
    assert line and line.endswith("set its appendonly to yes")
    assert forgetful({"aof_enabled": 1}) is None and forgetful({}) is None
