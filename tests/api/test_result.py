import threading
import time
from collections.abc import Callable

import httpx2
import msgspec
import pytest
import redis
from starlette.testclient import TestClient

from gateway.queue.task_queue import TaskQueue
from gateway.redis_names import image_key, result_key
from gateway.settings import Settings
from gateway.task import TaskView
from gateway.triton.spec import ModelSpec
from gateway.web.app import create_app
from tests.api.clients import URL
from tests.support.fakes import FakeTriton
from tests.support.pictures import encoded


@pytest.fixture
def task_id(client: httpx2.Client) -> str:
    answer = client.post("/predict", content=encoded(64, 48))
    return str(answer.json()["task_id"])


@pytest.mark.parametrize("unknown", ["0" * 32, "nonsense", "%2e%2e", "a" * 500, "two%0d%0alines"])
def test_an_unknown_task(client: httpx2.Client, unknown: str) -> None:
    answer = client.get(f"/result/{unknown}")
    assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")
    assert len(answer.json()["detail"].splitlines()) == 1


def test_wait_returns_when_the_task_ends(client: httpx2.Client, task_id: str, work: Callable[[], None]) -> None:
    answers: list[httpx2.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(client.get(f"/result/{task_id}?wait=20")))
    begun = time.monotonic()
    waiting.start()
    time.sleep(0.3)
    work()
    waiting.join()
    assert answers[0].json()["status"] == "SUCCESS"
    assert time.monotonic() - begun < 5


def test_wait_answers_pending_when_the_time_is_up(client: httpx2.Client, task_id: str) -> None:
    begun = time.monotonic()
    body = client.get(f"/result/{task_id}?wait=0.4").json()
    assert (body["status"], body["position"]) == ("PENDING", 0)
    assert 0.4 <= time.monotonic() - begun < 8


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("wait=61", "wait=61: give a number from 0 to 60"),
        ("wait=soon", "wait=soon: give a number from 0 to 60"),
        ("wait=1&wait=2", "wait=1,2: give a number from 0 to 60"),
        ("format=xml", "format=xml: give coco or csv or json or yolo"),
        ("format=csv&format=coco", "format=csv,coco: give coco or csv or json or yolo"),
    ],
)
def test_a_bad_parameter_is_named_with_what_is_allowed(
    client: httpx2.Client, task_id: str, query: str, detail: str
) -> None:
    answer = client.get(f"/result/{task_id}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert answer.json()["detail"] == detail


def test_wait_on_an_ended_task_answers_at_once(client: httpx2.Client, task_id: str, work: Callable[[], None]) -> None:
    work()
    begun = time.monotonic()
    assert client.get(f"/result/{task_id}?wait=20").json()["status"] == "SUCCESS"
    assert time.monotonic() - begun < 2


def test_wait_does_not_poll_redis(client: httpx2.Client, task_id: str, connection: "redis.Redis") -> None:
    def commands() -> int:
        return int(connection.info("stats")["total_commands_processed"])

    def commands_of_wait(seconds: float) -> int:
        before = commands()
        client.get(f"/result/{task_id}?wait={seconds}")
        return commands() - before

    commands_of_wait(0.1)
    # One look at the readiness, every 5 s, may fall into that time.
    assert commands_of_wait(2) < commands_of_wait(0.1) + 20


def test_wait_survives_a_lost_subscription(
    client: httpx2.Client, task_id: str, work: Callable[[], None], connection: "redis.Redis"
) -> None:
    answers: list[httpx2.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(client.get(f"/result/{task_id}?wait=20")))
    waiting.start()
    time.sleep(0.3)
    connection.client_kill_filter(_type="pubsub")
    work()
    waiting.join(timeout=10)
    assert answers and answers[0].json()["status"] == "SUCCESS"


def test_an_end_that_was_told_while_nobody_listened_is_found(
    client: httpx2.Client, task_id: str, connection: "redis.Redis"
) -> None:
    view = TaskView(task_id=task_id, status="SUCCESS", state="succeeded")
    answers: list[httpx2.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(client.get(f"/result/{task_id}?wait=20")))
    waiting.start()
    time.sleep(0.3)
    with connection.pipeline() as pipe:  # cut the subscription and store the end, as if published in between
        pipe.set(result_key(task_id), msgspec.json.encode(view))
        pipe.client_kill_filter(_type="pubsub")
        pipe.execute()
    begun = time.monotonic()
    waiting.join(timeout=30)
    assert answers and answers[0].json()["status"] == "SUCCESS"
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("wait", ["-1", "soon", "nan"])
def test_wait_must_be_seconds(client: httpx2.Client, task_id: str, wait: str) -> None:
    answer = client.get(f"/result/{task_id}?wait={wait}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")


def test_an_expired_image_is_a_failure_with_a_reason(
    client: httpx2.Client, task_id: str, work: Callable[[], None], connection: "redis.Redis"
) -> None:
    connection.delete(image_key(task_id))
    work()
    assert client.get(f"/result/{task_id}").json()["error"]["code"] == "image_expired"


def test_a_result_expires(client: httpx2.Client, task_id: str, settings: Settings, connection: "redis.Redis") -> None:
    queue = TaskQueue(connection, Settings(redis_url=settings.redis_url, result_ttl=1))
    claim = queue.claim(0, "worker")
    assert claim is not None
    ended = TaskView(task_id=task_id, status="SUCCESS", state="succeeded")
    queue.finish(ended, claim.request, claim.execution)
    assert client.get(f"/result/{task_id}").json()["status"] == "SUCCESS"
    time.sleep(1.1)
    assert client.get(f"/result/{task_id}").status_code == 404


def test_an_ended_task_leaves_only_its_result(
    client: httpx2.Client, task_id: str, work: Callable[[], None], connection: "redis.Redis"
) -> None:
    work()
    mine = [key for key in connection.keys() if task_id.encode() in key]
    assert mine == [result_key(task_id).encode()]
    assert connection.ttl(mine[0]) > 0


class Defect(FakeTriton):
    def spec(self, model: str, version: str = "") -> ModelSpec:
        self.seen.append(())
        raise RuntimeError("planted")


class TestDefect:
    """A defect of the worker is tried again, and then told."""

    @pytest.fixture
    def triton(self) -> FakeTriton:
        return Defect()

    def test_a_defect_ends_in_a_failure_after_the_retries(
        self, client: httpx2.Client, task_id: str, work: Callable[[], None], triton: FakeTriton, settings: Settings
    ) -> None:
        work()
        body = client.get(f"/result/{task_id}").json()
        assert (body["status"], body["error"]["code"]) == ("FAILURE", "internal_error")
        assert len(triton.seen) == 1 + settings.task_retries


class TestOutage:
    """Triton away for a moment is waited out."""

    @pytest.fixture
    def triton(self) -> FakeTriton:
        return FakeTriton(outages=3)

    def test_an_outage_is_waited_out(self, client: httpx2.Client, task_id: str, work: Callable[[], None]) -> None:
        work()
        assert client.get(f"/result/{task_id}").json()["status"] == "SUCCESS"


class TestLongOutage:
    @pytest.fixture
    def settings(self, redis_url: str) -> Settings:
        return Settings(redis_url=redis_url, triton_patience=0.2)

    @pytest.fixture
    def triton(self) -> FakeTriton:
        return FakeTriton(outages=1_000)

    def test_an_outage_beyond_patience_is_a_failure(
        self, client: httpx2.Client, task_id: str, work: Callable[[], None]
    ) -> None:
        work()
        assert client.get(f"/result/{task_id}").json()["error"]["code"] == "model_unavailable"


class TestAFailingTriton:
    @pytest.fixture
    def triton(self) -> FakeTriton:
        return FakeTriton(outages=2, failing=True)

    def test_gets_some_more_tries(self, client: httpx2.Client, task_id: str, work: Callable[[], None]) -> None:
        work()
        assert client.get(f"/result/{task_id}").json()["status"] == "SUCCESS"


def test_without_redis_nothing_is_accepted_and_the_client_is_told() -> None:
    app = create_app(Settings(redis_url="redis://127.0.0.1:1/0"))
    with TestClient(app, URL, raise_server_exceptions=False) as client:
        for answer in (client.post("/predict", content=encoded(64, 48)), client.get(f"/result/{'0' * 32}")):
            assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
            assert int(answer.headers["retry-after"]) > 0
