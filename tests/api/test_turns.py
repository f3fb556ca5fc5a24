"""Clients take turns: a task waits for one of each other client, not for all of the greediest."""

import pytest
import redis

from gateway.errors import InternalError
from gateway.queue.common import failure
from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import QUEUE_KEY, TURNS, waiting_key
from gateway.settings import Settings
from tests.api.clients import client_of
from tests.api.submit import order, submit
from tests.support.pictures import encoded

PICTURE = encoded(8, 8)


def queued(settings: Settings, what: str) -> dict[str, str]:
    """Tasks in the order of their names, such as `a1 b1`, whose letter is the client; those of H have high priority."""
    return {submit(settings, PICTURE, client=name[0], high=name[0] == "H"): name for name in what.split()}


def nothing_waits(connection: "redis.Redis") -> bool:
    return connection.exists(QUEUE_KEY, *TURNS, *map(waiting_key, "abcdH")) == 0


@pytest.mark.parametrize(
    ("accepted", "claimed"),
    [
        ("a1 a2 a3 a4 a5", "a1 a2 a3 a4 a5"),
        ("a1 a2 a3 a4 b1 b2 c1", "a1 b1 c1 a2 b2 a3 a4"),
        ("a1 a2 a3 a4 a5 a6 b1", "a1 b1 a2 a3 a4 a5 a6"),
        ("a1 a2 a3 H1 H2 b1", "H1 H2 a1 b1 a2 a3"),
        ("H1 H2 H3 H4 H5 H6 a1 a2 b1", "H1 H2 H3 H4 a1 H5 H6 b1 a2"),
        ("a1 b1 a2 b2 a3 b3", "a1 b1 a2 b2 a3 b3"),
    ],
)
def test_clients_take_turns(
    settings: Settings, queue: TaskQueue, connection: "redis.Redis", accepted: str, claimed: str
) -> None:
    assert order(queue, queued(settings, accepted)) == claimed
    assert nothing_waits(connection)


def test_whoever_comes_later_waits_for_one_of_each_other(settings: Settings, queue: TaskQueue) -> None:
    names = queued(settings, "a1 a2 a3 a4 b1 b2 b3")
    assert order(queue, names, 2) == "a1 b1"
    names |= queued(settings, "c1")
    assert order(queue, names) == "a2 b2 c1 a3 b3 a4"


def test_tasks_of_one_client_keep_their_order_while_more_come(settings: Settings, queue: TaskQueue) -> None:
    names, claimed = queued(settings, "a1 a2 a3 a4 a5"), ""
    for number in range(6, 30):
        names |= queued(settings, f"a{number} b{number}")
        claimed += order(queue, names, 1) + " "
    claimed += order(queue, names)
    for client in "ab":
        own = [name for name in claimed.split() if name[0] == client]
        assert own == [name for name in names.values() if name[0] == client]


def test_the_greediest_moves_on_however_many_come(settings: Settings, queue: TaskQueue) -> None:
    names, claimed = queued(settings, "a1 a2 a3 a4 a5 a6 a7 a8 a9"), ""
    for number in range(24):
        names |= queued(settings, f"b{number} c{number}")  # faster than they are worked off
        claimed += order(queue, names, 1) + " "
    assert claimed.count("a") == 8


def test_a_task_that_is_canceled_or_finished_leaves_its_place(
    settings: Settings, queue: TaskQueue, connection: "redis.Redis"
) -> None:
    names = queued(settings, "a1 a2 b1")
    first, second, third = names
    with client_of(settings) as client:
        assert client.delete(f"/result/{first}").json()["state"] == "canceled"
        assert client.delete(f"/result/{third}").json()["state"] == "canceled"
    queue.finish(failure(second, InternalError("planted")))
    names |= queued(settings, "b2 a3")
    assert order(queue, names) == "b2 a3"
    assert nothing_waits(connection)


def test_a_given_back_task_is_the_next(settings: Settings, queue: TaskQueue) -> None:
    names = queued(settings, "a1 a2 a3 a4 b1")
    claims = [queue.claim(0, "worker") for _ in range(3)]
    assert claims[0] is not None
    queue.give_back(claims[0])
    assert order(queue, names) == "a1 a3 a4"


def test_the_position_counts_turns(settings: Settings, queue: TaskQueue) -> None:
    names = queued(settings, "a1 a2 a3 a4 b1 c1 c2 H1")
    positions = {}
    with client_of(settings) as client:
        for task_id, name in names.items():
            positions[client.get(f"/result/{task_id}").json()["position"]] = name
    assert " ".join(positions[at] for at in range(8)) == order(queue, names) == "H1 a1 b1 c1 a2 c2 a3 a4"


def test_the_position_of_a_task_behind_one_that_was_given_back(settings: Settings, queue: TaskQueue) -> None:
    names = queued(settings, "a1 b1 a2")
    claim = queue.claim(0, "worker")
    assert claim is not None
    queue.give_back(claim)
    with client_of(settings) as client:
        assert [client.get(f"/result/{task_id}").json()["position"] for task_id in names] == [0, 1, 2]


def test_a_client_whose_tasks_expired_has_one_turn_as_before(
    settings: Settings, queue: TaskQueue, connection: "redis.Redis"
) -> None:
    names = queued(settings, "a1 b1 b2 b3")
    for number in range(2, 5):
        connection.delete(waiting_key("a"))  # as IMAGE_TTL after its last one, in a queue that is longer
        names |= queued(settings, f"a{number}")
    names |= queued(settings, "a5 a6 a7")
    assert connection.llen(TURNS[0]) == 2
    assert order(queue, names, 7) == "a1 a4 b1 a5 b2 a6 b3"


def test_tasks_whose_turn_was_lost_are_still_done(
    settings: Settings, queue: TaskQueue, connection: "redis.Redis"
) -> None:
    """Keys that expired, or that a worker of a version without turns left behind."""
    names = queued(settings, "a1 a2 b1 c1 b2")
    connection.delete(waiting_key("a"))
    connection.rpush(waiting_key("c"), "gone")
    assert sorted(order(queue, names).split()) == sorted(names.values())
    assert nothing_waits(connection)
    names = queued(settings, "a1 b1 H1 a2")
    connection.delete(*TURNS)
    assert sorted(order(queue, names).split()) == sorted(names.values())
