"""Several real Tritons behind one service: they share the work; one that dies, hangs or is late costs no task."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx2
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from gateway.triton.addresses import Addresses, Unresolved
from gateway.triton.client import TritonFailing, TritonUnavailable
from gateway.triton.connection import memory_headers
from gateway.triton.pool import TritonPool
from gateway.triton.shared_memory import FOLDER, prefix
from local.ports import free_ports
from local.triton import Keys
from tests.support import tiny
from tests.support.load import Load
from tests.support.pictures import encoded
from tests.support.stack import Triton, running_stack, running_triton

PICTURE = encoded(320, 320)
IMAGE = np.full((64, 96, 3), 7, np.uint8)
SECONDS = 60


def until(true: Callable[[], bool], seconds: float = SECONDS) -> float:
    """Seconds until it was true."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, "time is up"
        time.sleep(0.05)
    return time.monotonic() - begun


def ran(server: Triton, model: str = "tiny") -> int:
    """How many images this Triton has run of the model, by its own account."""
    with InferenceServerClient(server.url) as client:
        statistics = client.get_inference_statistics(client_timeout=5).model_stats
    return sum(each.inference_count for each in statistics if each.name == model)


def refused(server: Triton, model: str) -> int:
    """How often this Triton was asked for what it could not run."""
    with InferenceServerClient(server.url) as client:
        return sum(each.inference_stats.fail.count for each in client.get_inference_statistics().model_stats)


@contextmanager
def frozen(server: Triton) -> Iterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def shares(servers: list[Triton], images: int = 300) -> list[int]:
    """What each of them runs while all run so many."""
    before = [ran(each) for each in servers]

    def enough() -> bool:
        return sum(ran(each) for each in servers) - sum(before) >= images

    until(enough)
    return [ran(each) - old for each, old in zip(servers, before, strict=True)]


def are_even(counts: list[int]) -> bool:
    """Whether each is within 20 % of the mean."""
    mean = sum(counts) / len(counts)
    return all(abs(count - mean) <= 0.2 * mean for count in counts)


def even_shares(servers: list[Triton]) -> list[int]:
    """Their shares once they are even: each of a worker's processes finds in its own time who is there."""
    deadline = time.monotonic() + SECONDS
    while not are_even(counts := shares(servers)):
        assert time.monotonic() < deadline, counts
    return counts


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    tiny.write(tmp_path / "models", "tiny", tiny.finder())
    return tmp_path / "models"


def test_no_task_fails_when_one_dies_one_hangs_and_one_comes_late(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (late_port,) = free_ports(1)
    with ExitStack() as exits:

        def serve(port: int = 0) -> Triton:
            folder = tmp_path_factory.mktemp("triton")
            return exits.enter_context(running_triton(repository, folder, grpc_port=port))

        first, second = serve(), serve()
        urls = f"{first.url},{second.url},127.0.0.1:{late_port}"
        folder = tmp_path_factory.mktemp("stack")
        stack = exits.enter_context(running_stack(first, folder, "tiny", settings={"TRITON_URL": urls}))
        with Load(stack.base_url, PICTURE) as load:
            load.wait_for(1, 50)
            two = even_shares([first, second])
            third = serve(late_port)
            three = even_shares([first, second, third])

            with frozen(third):
                done = load.versions["1"]
                hung = until(lambda: load.versions["1"] >= done + 200)
                assert hung < 25, "nobody waits for the time of a call, 30 s, to be over"
            back = ran(third)
            until(lambda: ran(third) >= back + 50)

            os.kill(first.pid, signal.SIGKILL)
            load.wait_for(1, 200)
            left = even_shares([second, third])
        print(f"shares {two} {three} {left}, {load.versions['1']} answers, 200 of them in {hung:.1f} s with one frozen")
        assert load.failed == []
        log = (folder / "worker.1.log").read_text()
        assert re.search(rf"Triton at 127.0.0.1:{late_port} is left out until it answers: .*", log)
        assert "Traceback" not in log


def pool_of(*urls: str, key: str | None = None) -> TritonPool:
    return TritonPool(Addresses(",".join(urls)), 10, key)


def test_a_model_that_one_of_them_lacks_is_not_asked_of_it(
    repository: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tiny.write(tmp_path / "other", "tiny", tiny.finder())
    tiny.write(tmp_path / "other", "helmets", tiny.finder())
    with (
        running_triton(repository, tmp_path_factory.mktemp("a")) as plain,
        running_triton(tmp_path / "other", tmp_path_factory.mktemp("b")) as rich,
        running_stack(
            plain, tmp_path_factory.mktemp("stack"), "tiny", settings={"TRITON_URL": f"{plain.url},{rich.url}"}
        ) as stack,
        httpx2.Client(base_url=stack.base_url, timeout=60) as http,
    ):
        with Load(stack.base_url, PICTURE, model="helmets") as load:
            load.wait_for(1, 100)
        assert load.failed == []
        assert ran(rich, "helmets") >= 100 and ran(plain, "helmets") == 0 and refused(plain, "helmets") == 0
        listed = {each["name"]: each["versions"] for each in http.get("/models").json()["models"]}
        assert listed["tiny"] == [{"version": "1", "state": "READY", "reason": ""}]
        assert listed["helmets"] == [{"version": "1", "state": "READY", "reason": "served by 1 of 2 Tritons"}]
        answer = http.post("/predict?model=nothing", content=PICTURE)
        assert answer.status_code == 422 and "Triton serves helmets, tiny" in answer.json()["detail"]

        with closing(pool_of(plain.url, rich.url)) as pool, pytest.raises(TritonFailing, match="serves no nothing"):
            pool.spec("nothing")


def test_labels_that_differ_are_never_mixed(repository: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tiny.write(tmp_path / "other", "tiny", tiny.finder())
    (folder / "labels.txt").write_text("bicycle\nperson\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with running_triton(repository, tmp_path / "a") as one, running_triton(tmp_path / "other", tmp_path / "b") as other:
        for urls, first in (((one.url, other.url), "person"), ((other.url, one.url), "bicycle")):
            with closing(pool_of(*urls)) as pool:
                found = {pool.infer(pool.spec("tiny"), IMAGE).spec.labels[0] for _ in range(20)}
            assert found == {first}, "the first of TRITON_URL counts"
        with closing(pool_of(one.url, other.url)) as pool, InferenceServerClient(other.url) as admin:
            before = ran(other)
            assert answers(pool) and answers(pool)
            (folder / "labels.txt").write_text("person\nbicycle\n")
            admin.load_model("tiny")
            until(lambda: answers(pool) and ran(other) > before + 5)
        problems = [record.message for record in caplog.records if "serve other labels" in record.message]
        assert len(problems) == 3 and f"{one.url} counts" in problems[0]


def test_while_the_one_that_counts_is_away_the_other_labels_are_no_answer(
    repository: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tiny.write(tmp_path / "other", "tiny", tiny.finder())
    (folder / "labels.txt").write_text("bicycle\nperson\n")
    with (
        running_triton(repository, tmp_path_factory.mktemp("a")) as one,
        running_triton(tmp_path / "other", tmp_path_factory.mktemp("b")) as other,
        ExitStack() as exits,
    ):
        pool = exits.enter_context(closing(pool_of(one.url, other.url)))
        spec = pool.spec("tiny")
        os.kill(one.pid, signal.SIGKILL)
        for _ in range(3):
            with pytest.raises(TritonUnavailable):
                pool.infer(spec, IMAGE)


def test_a_name_is_resolved_again_while_it_runs(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    found: list[str] = []

    def resolve(name: str, port: int) -> list[str]:
        if not found:
            raise Unresolved(f"TRITON_URL=dns:///{name}:{port}: the name has no address")
        return list(found)

    with (
        running_triton(repository, tmp_path_factory.mktemp("a")) as one,
        running_triton(repository, tmp_path_factory.mktemp("b")) as other,
        closing(TritonPool(Addresses("dns:///tritons.test:8001", resolve), 10)) as pool,
    ):
        with pytest.raises(TritonUnavailable, match=r"tritons\.test:8001: the name has no address"):
            pool.spec("tiny")
        found.append(one.url)
        until(lambda: answers(pool))
        found.append(other.url)
        until(lambda: answers(pool) and ran(other) > 0)
        found.remove(one.url)
        time.sleep(6)
        before = ran(one)
        assert all(answers(pool) for _ in range(20)) and ran(one) == before
        found.clear()  # a name server that fails takes nothing away
        time.sleep(6)
        assert answers(pool)
    until(lambda: not any(each.name.startswith("triton-") for each in threading.enumerate()))


def test_a_name_serves_the_whole_service(
    repository: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running_triton(repository, tmp_path_factory.mktemp("a")) as server:
        url = f"dns:///localhost:{server.url.rpartition(':')[2]}"  # at ::1 nobody answers, where it has that too
        with (
            running_stack(server, tmp_path, "tiny", workers=1, settings={"TRITON_URL": url}) as stack,
            httpx2.Client(base_url=stack.base_url, timeout=60) as http,
        ):
            codes = [http.post("/predict", params={"wait": 30}, content=PICTURE).status_code for _ in range(5)]
            assert codes == [200] * 5


def answers(pool: TritonPool) -> bool:
    try:
        return pool.infer(pool.spec("tiny"), IMAGE).rows.shape == (1000, 6)
    except TritonUnavailable:
        return False


def test_memory_is_shared_with_those_only_that_have_mapped_it(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key = "fedcba9876543210"
    with (
        running_triton(tiny_repository, tmp_path_factory.mktemp("a"), Keys(memory=key)) as near,
        running_triton(tiny_repository, tmp_path_factory.mktemp("b")) as far,
        InferenceServerClient(near.url) as admin,
        closing(pool_of(near.url, far.url, key=key)) as pool,
    ):
        for value in range(20):
            rows = pool.infer(pool.spec("tiny"), np.full((64, 96, 3), value, np.uint8)).rows
            assert float(rows[-1, -1]) == value
        assert ran(near) > 5 and ran(far) > 5
        assert len(admin.get_system_shared_memory_status(headers=memory_headers(key)).regions) == 1
        assert not list(FOLDER.glob(f"{prefix(far.url)}*"))
