"""Tasks of high priority begin first and in their order, leave the others a share, and need a key with that right."""

import time
from collections.abc import Iterator

import httpx2
import msgspec
import pytest
import redis

from gateway.errors import InternalError
from gateway.queue.common import failure
from gateway.queue.maintenance import Maintenance
from gateway.queue.state import reader
from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import HIGH_KEY, QUEUE_KEY
from gateway.security.api_keys import new_key
from gateway.settings import Settings
from tests.api.clients import client_of
from tests.api.submit import order, submit
from tests.support.pictures import encoded

PICTURE = encoded(8, 8)
PLAIN, PLAIN_LINE = new_key("plain")
FIRST, FIRST_LINE = new_key("first")
BOTH, BOTH_LINE = new_key("both")


def queued(settings: Settings, what: str) -> dict[str, str]:
    """Tasks in the order of their names, such as `n1 h1`; those with an h have high priority. Names by id."""
    return {submit(settings, PICTURE, high=name.startswith("h")): name for name in what.split()}


@pytest.mark.parametrize(
    ("accepted", "claimed"),
    [
        ("h1 h2 h3", "h1 h2 h3"),
        ("n1 h1 n2 h2", "h1 h2 n1 n2"),
        ("n1 n2 h1 h2 h3 h4 h5 h6", "h1 h2 h3 h4 n1 h5 h6 n2"),
        ("h1 h2 h3 h4 h5 h6 n1 n2", "h1 h2 h3 h4 n1 h5 h6 n2"),
        ("h1 h2 h3 h4 h5 h6 h7 h8 h9", "h1 h2 h3 h4 h5 h6 h7 h8 h9"),
        ("h1 h2 h3 h4 n1 h5 h6 h7 h8 n2 h9", "h1 h2 h3 h4 n1 h5 h6 h7 h8 n2 h9"),
    ],
)
def test_high_priority_is_first_in_first_out_and_leaves_a_share(
    settings: Settings, queue: TaskQueue, connection: "redis.Redis", accepted: str, claimed: str
) -> None:
    assert order(queue, queued(settings, accepted)) == claimed
    assert connection.exists(QUEUE_KEY, HIGH_KEY) == 0


def test_others_move_on_however_many_have_priority(settings: Settings, queue: TaskQueue) -> None:
    names = queued(settings, " ".join(f"n{i}" for i in range(5)))
    claimed = ""
    for i in range(50):
        names |= queued(settings, f"h{2 * i} h{2 * i + 1}")  # faster than they are worked off
        claimed += order(queue, names, 1) + " "
    assert claimed.count("n") == 5


def test_the_run_is_a_setting(settings: Settings, connection: "redis.Redis") -> None:
    queue = TaskQueue(connection, msgspec.structs.replace(settings, max_high_in_a_row=1))
    assert order(queue, queued(settings, "n1 n2 h1 h2 h3")) == "h1 n1 h2 n2 h3"


def test_a_long_queue_of_both_is_claimed_once_each(settings: Settings, queue: TaskQueue) -> None:
    names = queued(settings, " ".join(f"{'h' if i % 3 else 'n'}{i}" for i in range(300)))
    claimed = order(queue, names).split()
    assert sorted(claimed) == sorted(names.values())
    assert [name for name in claimed if name[0] == "h"] == [name for name in names.values() if name[0] == "h"]
    assert [name for name in claimed if name[0] == "n"] == [name for name in names.values() if name[0] == "n"]


def test_a_worker_that_waits_gets_a_task_of_high_priority(settings: Settings, queue: TaskQueue) -> None:
    names = queued(settings, "h1")
    claim = queue.claim(5, "worker")
    assert claim is not None and names[claim.task_id] == "h1"


def test_one_that_was_moved_between_is_begun_once(
    settings: Settings, queue: TaskQueue, connection: "redis.Redis"
) -> None:
    names = queued(settings, "h1 h2")
    connection.lmove(QUEUE_KEY, queue.rq.intermediate_queue_key)
    claims = [queue.claim(0.01, "worker") for _ in range(3)]
    assert [names[claim.task_id] for claim in claims if claim] == ["h1", "h2"]


def test_it_passes_what_was_moved_between(settings: Settings, queue: TaskQueue, connection: "redis.Redis") -> None:
    names = queued(settings, "n1 n2 h1")
    connection.lmove(QUEUE_KEY, queue.rq.intermediate_queue_key)
    claims = [queue.claim(0.01, "worker") for _ in range(4)]
    assert [names[claim.task_id] for claim in claims if claim] == ["h1", "n1", "n2"]


def test_one_that_was_lost_before_it_began_keeps_its_priority(
    settings: Settings, queue: TaskQueue, connection: "redis.Redis"
) -> None:
    names = queued(settings, "h1 n1")
    (first, *_) = names
    connection.lmove(QUEUE_KEY, queue.rq.intermediate_queue_key)
    maintenance = Maintenance(queue)
    maintenance.rescue_lost(10)
    connection.hset("yolo:between", first, str(time.time() - 11))
    maintenance.rescue_lost(10)
    assert order(queue, names) == "h1 n1"


def test_what_an_older_worker_has_taken_is_passed_over(
    settings: Settings, queue: TaskQueue, connection: "redis.Redis"
) -> None:
    names = queued(settings, "h1 h2 n1")
    connection.lpop(QUEUE_KEY)
    assert order(queue, names) == "h2 n1"
    assert connection.exists(HIGH_KEY) == 0


def test_a_given_back_task_is_begun_again(settings: Settings, queue: TaskQueue) -> None:
    names = queued(settings, "h1 n1")
    claim = queue.claim(0, "worker")
    assert claim is not None
    queue.give_back(claim)
    assert order(queue, names) == "h1 n1"


def test_one_that_has_ended_is_not_begun(settings: Settings, queue: TaskQueue) -> None:
    names = queued(settings, "h1 h2 n1")
    queue.finish(failure(next(iter(names)), InternalError("planted")))
    assert order(queue, names) == "h2 n1"


def test_one_can_be_canceled(client: httpx2.Client, connection: "redis.Redis") -> None:
    place = client.post("/predict", params={"priority": "high"}, content=PICTURE).headers["location"]
    assert client.delete(place).json()["state"] == "canceled"
    assert connection.exists(QUEUE_KEY, HIGH_KEY) == 0


def test_the_position_counts_what_begins_before(settings: Settings, client: httpx2.Client) -> None:
    names = queued(settings, "h1 n1 h2 n2 h3 n3 h4 h5")
    positions = {name: client.get(f"/result/{task_id}").json()["position"] for task_id, name in names.items()}
    assert positions == {"h1": 0, "h2": 1, "h3": 2, "h4": 3, "h5": 4, "n1": 5, "n2": 6, "n3": 7}


def test_the_metrics_count_both(settings: Settings, connection: "redis.Redis") -> None:
    queued(settings, "h1 n1 h2")
    state = reader(connection, settings.worker_ttl)()
    assert state is not None and (state.tasks["queued"], state.high_priority) == (3, 2)


@pytest.fixture
def keyed(settings: Settings) -> Iterator[httpx2.Client]:
    lines = f"{PLAIN_LINE} {FIRST_LINE}:high {BOTH_LINE}:600/minute:high"
    with client_of(msgspec.structs.replace(settings, api_keys=lines)) as client:
        yield client


@pytest.mark.parametrize(("key", "code"), [(PLAIN, 403), (FIRST, 202), (BOTH, 202)])
def test_priority_is_a_right_of_a_key(keyed: httpx2.Client, connection: "redis.Redis", key: str, code: int) -> None:
    headers = {"X-API-Key": key}
    answer = keyed.post("/predict", params={"priority": "high"}, content=PICTURE, headers=headers)
    assert answer.status_code == code
    assert connection.llen(QUEUE_KEY) == (code == 202)
    if code == 403:
        assert answer.json()["code"] == "priority_not_allowed" and ":high" in answer.json()["detail"]
    assert keyed.post("/predict", params={"priority": "normal"}, content=PICTURE, headers=headers).status_code == 202


def test_without_keys_everybody_may_ask_for_it(client: httpx2.Client) -> None:
    assert client.post("/predict", params={"priority": "high"}, content=PICTURE).status_code == 202
