"""What one gateway accepts, another answers: two processes, one Redis."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.integration.test_make_run import local
from tests.support import tiny
from tests.support.gateway import running_gateway
from tests.support.pictures import encoded
from tests.support.stack import Stack, running_stack, running_triton

PICTURE = encoded(320, 240)
Pair = tuple[httpx2.Client, httpx2.Client]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny.write(folder, "tiny", tiny.finder())
    return folder


@pytest.fixture(scope="module")
def stack(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with (
        running_triton(repository, tmp_path_factory.mktemp("triton")) as server,
        running_stack(server, tmp_path_factory.mktemp("stack"), "tiny", workers=1) as stack,
    ):
        yield stack


@pytest.fixture(scope="module")
def pair(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Clients of gateway A and of gateway B."""
    settings = {"TRITON_URL": stack.triton_url, "MODEL": "tiny", "DRAIN_SECONDS": "0"}
    with ExitStack() as exits:
        other = exits.enter_context(running_gateway(stack.redis_url, tmp_path_factory.mktemp("b"), **settings))
        urls = stack.base_url, other.url
        a, b = (exits.enter_context(httpx2.Client(base_url=url, timeout=60)) for url in urls)
        yield a, b


@pytest.fixture(params=[(0, 1), (1, 0)], ids=["A accepts", "B accepts"])
def gateways(request: pytest.FixtureRequest, pair: Pair) -> Pair:
    """The one that accepts, and the one that answers."""
    accepting, answering = request.param
    return pair[accepting], pair[answering]


def test_the_other_answers_at_once_and_after_waiting(gateways: Pair) -> None:
    a, b = gateways
    for _ in range(20):
        task_id = a.post("/predict", content=PICTURE).json()["task_id"]
        body = b.get(f"/result/{task_id}", params={"wait": 30}).json()
        assert body["status"] == "SUCCESS" and len(body["result"]["detections"]) == 2
        assert a.get(f"/result/{task_id}").json() == body


def test_a_result_that_comes_while_the_other_waits_ends_the_wait(gateways: Pair, stack: Stack) -> None:
    a, b = gateways
    with ThreadPoolExecutor(16) as pool:
        ids = [a.post("/predict", content=PICTURE).json()["task_id"] for _ in range(16)]
        bodies = list(pool.map(lambda each: b.get(f"/result/{each}", params={"wait": 30}).json(), ids))
    assert {body["status"] for body in bodies} == {"SUCCESS"}


def test_events_come_from_the_other(gateways: Pair) -> None:
    a, b = gateways
    task_id = a.post("/predict", content=PICTURE).json()["task_id"]
    with b.stream("GET", f"/result/{task_id}/events") as answer:
        assert answer.status_code == 200
        text = "".join(answer.iter_text())
    assert "succeeded" in text and task_id in text


def test_a_batch_is_answered_by_the_other(gateways: Pair) -> None:
    a, b = gateways
    answer = a.post("/predict", files=[("image", (f"{number}.jpg", PICTURE)) for number in range(8)])
    deadline = time.monotonic() + 30
    while (batch := b.get(answer.headers["location"]).json())["pending"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (batch["total"], batch["succeeded"], batch["pending"]) == (8, 8, 0)


def test_a_picture_is_given_by_the_other(gateways: Pair) -> None:
    a, b = gateways
    task_id = a.post("/predict", params={"annotate": "1"}, content=PICTURE).json()["task_id"]
    assert b.get(f"/result/{task_id}", params={"wait": 30}).json()["status"] == "SUCCESS"
    picture = b.get(f"/result/{task_id}/image")
    assert picture.status_code == 200 and picture.headers["content-type"].startswith("image/")
    assert picture.content == a.get(f"/result/{task_id}/image").content


def test_one_idempotency_key_is_one_task_whoever_is_asked(pair: Pair) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            headers = {"Idempotency-Key": f"upload-{number}"}
            asked = [pool.submit(each.post, "/predict", headers=headers, content=PICTURE) for each in pair * 4]
            answers = [each.result() for each in asked]
            assert {answer.status_code for answer in answers} <= {200, 202}  # 200: it has ended by then
            assert len({answer.json()["task_id"] for answer in answers}) == 1
    conflict = [
        each.post("/predict", headers={"Idempotency-Key": "upload-0"}, content=encoded(64, 48)) for each in pair
    ]
    assert [answer.json()["code"] for answer in conflict] == ["idempotency_conflict"] * 2


def test_the_other_deletes(gateways: Pair) -> None:
    a, b = gateways
    task_id = a.post("/predict", params={"wait": 30}, content=PICTURE).json()["task_id"]
    assert b.delete(f"/result/{task_id}").status_code in (200, 204)
    assert [each.get(f"/result/{task_id}").status_code for each in gateways] == [404, 404]


def test_a_rate_is_of_both_together(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = {"TRITON_URL": stack.triton_url, "MODEL": "tiny", "RATE_LIMIT": "20/hour", "DRAIN_SECONDS": "0"}
    with ExitStack() as exits:
        urls = [
            exits.enter_context(running_gateway(stack.redis_url, tmp_path_factory.mktemp("limited"), **settings)).url
            for _ in range(2)
        ]
        codes = Counter(httpx2.post(f"{urls[n % 2]}/predict", content=PICTURE).status_code for n in range(40))
    assert codes[202] in (20, 21) and codes[202] + codes[429] == 40, codes


def test_make_run_starts_several_behind_one_address(repository: Path, tmp_path: Path) -> None:
    with local(tmp_path, repository, "tiny", GATEWAYS="2") as run:
        line = run.ready_line()
        assert f"http://127.0.0.1:{run.port} serves tiny" in line
        pages = next(each for each in run.said().splitlines() if each.startswith("Metrics: ")).partition(", ")[0]
        ports = [each for each in pages.split() if each.startswith("http")]
        assert len(ports) == 2

        def one(_: int) -> int:
            with httpx2.Client(base_url=f"http://127.0.0.1:{run.port}", timeout=60) as client:
                return client.post("/predict", params={"wait": 30}, content=PICTURE).status_code

        with ThreadPoolExecutor(32) as pool:
            deadline = time.monotonic() + 60
            while not all(accepted(page) for page in ports) and time.monotonic() < deadline:
                assert set(pool.map(one, range(64))) == {200}
        assert all(accepted(page) for page in ports), "each of them has accepted some"
        assert run.stopped_by(signal.SIGINT) == 0
        assert run.processes() == []


def accepted(page: str) -> float:
    """How many images that gateway has accepted; none while its page is not there yet."""
    try:
        lines = httpx2.get(page).text.splitlines()
    except httpx2.ConnectError:
        return 0
    return float(next(line for line in lines if line.startswith("yolo_gateway_accepted_images_total ")).split()[1])


@pytest.mark.parametrize("given", ["99", "1"], ids=["closed", "no socket"])
def test_a_door_that_is_none_is_one_line(given: str, redis_server: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway.web"],
        env=os.environ | {"LISTEN_FD": given, "REDIS_URL": redis_server, "METRICS_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"gateway: LISTEN_FD={given}: it is no socket that was passed on (")
    assert done.stderr.count("\n") == 1
