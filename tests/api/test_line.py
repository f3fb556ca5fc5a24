"""A client waits for a few tasks of each other client, not for all of the greediest; its own tasks keep their order."""

import msgspec
import pytest
import redis

from gateway.errors import InternalError
from gateway.queue.common import failure
from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import LINE, QUEUE_KEY
from gateway.settings import Settings
from tests.api.clients import client_of
from tests.api.submit import order, submit
from tests.support.pictures import encoded

PICTURE = encoded(8, 8)


@pytest.fixture
def two(settings: Settings) -> Settings:
    """Two tasks of each client stand in line."""
    return msgspec.structs.replace(settings, max_tasks_in_line=2)


def queued(settings: Settings, what: str) -> dict[str, str]:
    """Tasks in the order of their names, such as `a1 b1`, whose letter is the client; those of H have high priority."""
    return {submit(settings, PICTURE, client=name[0], high=name[0] == "H"): name for name in what.split()}


@pytest.mark.parametrize(
    ("accepted", "claimed"),
    [
        ("a1 a2 a3 a4 a5", "a1 a2 a3 a4 a5"),
        ("a1 a2 a3 a4 b1 b2 c1", "a1 a2 b1 b2 a3 c1 a4"),  # one of those beyond after four in line
        ("a1 a2 a3 a4 a5 a6 b1", "a1 a2 b1 a3 a4 a5 a6"),
        ("a1 a2 a3 H1 H2 b1", "H1 H2 a1 a2 b1 a3"),
        ("a1 b1 a2 b2 a3 b3", "a1 b1 a2 b2 a3 b3"),
    ],
)
def test_what_a_client_has_beyond_its_place_in_line_waits(
    two: Settings, queue: TaskQueue, connection: "redis.Redis", accepted: str, claimed: str
) -> None:
    assert order(queue, queued(two, accepted)) == claimed
    assert connection.exists(QUEUE_KEY, *LINE) == 0


def test_tasks_of_one_client_keep_their_order_while_more_come(two: Settings, queue: TaskQueue) -> None:
    names, claimed = queued(two, "a1 a2 a3 a4 a5"), ""
    for number in range(6, 30):
        names |= queued(two, f"a{number} b{number}")
        claimed += order(queue, names, 1) + " "
    claimed += order(queue, names)
    for client in "ab":
        own = [name for name in claimed.split() if name[0] == client]
        assert own == [name for name in names.values() if name[0] == client]


def test_what_is_beyond_moves_on_however_many_come(two: Settings, queue: TaskQueue) -> None:
    names, claimed = queued(two, "a1 a2 a3 a4 a5 a6"), ""
    for number in range(40):
        names |= queued(two, f"b{number} c{number}")  # faster than they are worked off
        claimed += order(queue, names, 1) + " "
    assert claimed.count("a") == 6


def test_none_in_line_is_the_order_of_acceptance(settings: Settings, queue: TaskQueue) -> None:
    off = msgspec.structs.replace(settings, max_tasks_in_line=0)
    assert order(queue, queued(off, "a1 a2 a3 b1 a4 b2")) == "a1 a2 a3 b1 a4 b2"


def test_a_task_that_is_canceled_or_ended_frees_its_place(
    two: Settings, queue: TaskQueue, connection: "redis.Redis"
) -> None:
    names = queued(two, "a1 a2 b1")
    first, second, _ = names
    with client_of(two) as client:
        assert client.delete(f"/result/{first}").json()["state"] == "canceled"
    queue.finish(failure(second, InternalError("planted")))
    names |= queued(two, "a3")
    assert order(queue, names) == "b1 a3"
    assert connection.exists(*LINE) == 0


def test_a_given_back_task_is_the_next(two: Settings, queue: TaskQueue) -> None:
    names = queued(two, "a1 a2 a3 a4 b1")
    claims = [queue.claim(0, "worker") for _ in range(3)]
    assert claims[0] is not None
    queue.give_back(claims[0])
    assert order(queue, names) == "a1 a3 a4"


def test_the_position_is_the_one_in_line(two: Settings) -> None:
    names = queued(two, "a1 a2 a3 a4 b1")
    with client_of(two) as client:
        positions = {name: client.get(f"/result/{task_id}").json()["position"] for task_id, name in names.items()}
    assert positions == {"a1": 0, "a2": 1, "b1": 2, "a3": 3, "a4": 4}
