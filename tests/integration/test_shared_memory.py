"""Images through system shared memory, between a worker's client and a real Triton."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from gateway.errors import InvalidImage, ModelUnavailable
from gateway.queue.records import TaskRequest
from gateway.settings import Settings
from gateway.triton.client import TritonClient
from gateway.triton.connection import memory_headers
from gateway.triton.shared_memory import FOLDER, Region, SharedMemory, prefix
from gateway.worker.pipeline import Pipeline
from local.triton import Keys
from tests.support.pictures import turned
from tests.support.stack import ROOT, Triton, running_triton

KEY = "fedcba9876543210"
SIZE = 3 * 640**2


@pytest.fixture(scope="module")
def server(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(tiny_repository, tmp_path_factory.mktemp("triton"), Keys(memory=KEY)) as server:
        yield server


@pytest.fixture
def admin(server: Triton) -> Iterator[InferenceServerClient]:
    """Leaves no region behind."""
    with InferenceServerClient(server.url) as client:
        yield client
        client.unregister_system_shared_memory(headers=memory_headers(KEY))
    for name in names(server):
        (FOLDER / name).unlink()


@pytest.fixture(params=["gRPC", "HTTP"])
def client(request: pytest.FixtureRequest, server: Triton, admin: InferenceServerClient) -> Iterator[TritonClient]:
    client = TritonClient(server.url, 10, KEY, server.http_address if request.param == "HTTP" else None)
    yield client
    client.close()
    assert known(admin) == set()
    assert names(server) == set()


def known(admin: InferenceServerClient) -> set[str]:
    """The names of the regions that Triton has mapped."""
    return set(admin.get_system_shared_memory_status(headers=memory_headers(KEY)).regions)


def names(server: Triton) -> set[str]:
    """The names of those that there are."""
    return {path.name for path in FOLDER.glob(f"{prefix(server.url)}*")}


def answer(client: TritonClient, value: int, height: int = 64, width: int = 96) -> float:
    """What the model says of a picture of one colour: its value."""
    rows = client.infer(client.spec("tiny"), np.full((height, width, 3), value, np.uint8)).rows
    return float(rows[-1, -1])


def test_each_image_gets_its_own_answer(server: Triton, client: TritonClient, admin: InferenceServerClient) -> None:
    shapes = [(640, 480), (32, 32), (640, 640), (64, 96)]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda value: answer(client, value, *shapes[value % 4]), range(200)))
    assert answers == list(range(200))
    assert 1 <= len(known(admin)) <= 4
    assert known(admin) == names(server)


@pytest.mark.parametrize("key", [None, "0123456789abcdef"], ids=["no key", "wrong key"])
def test_without_the_key_images_are_sent(
    server: Triton, admin: InferenceServerClient, key: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    client = TritonClient(server.url, 10, key)
    assert [answer(client, value) for value in (1, 2, 3)] == [1, 2, 3]
    assert known(admin) == set()
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == (1 if key else 0)
    assert all("sent to Triton as bytes" in warning and "restricted" in warning for warning in warnings)
    client.close()


def test_a_triton_that_has_forgotten_them_gets_new_ones(
    server: Triton, client: TritonClient, admin: InferenceServerClient
) -> None:
    assert answer(client, 1) == 1
    before = known(admin)
    admin.unregister_system_shared_memory(headers=memory_headers(KEY))  # as its restart does
    assert [answer(client, value) for value in (2, 3, 4)] == [2, 3, 4]
    assert len(known(admin)) == 1 and not known(admin) & before
    assert names(server) == known(admin)


def test_a_refused_request_is_told_as_it_is_without(client: TritonClient) -> None:
    spec = client.spec("tiny")
    with pytest.raises(ModelUnavailable, match="refused"):
        client.infer(spec, np.zeros((64, 96, 4), np.uint8))
    assert answer(client, 5) == 5


def wait_until_forgotten(memory: SharedMemory, admin: InferenceServerClient) -> None:
    """Triton answers a request a moment before it lets go of its image."""
    give_up_at = time.monotonic() + 5
    while known(admin) and time.monotonic() < give_up_at:
        memory.close()
        time.sleep(0.05)
    assert known(admin) == set()


def test_an_image_may_be_made_where_triton_reads_it(
    server: Triton, client: TritonClient, admin: InferenceServerClient
) -> None:
    spec, kept = client.spec("tiny"), []
    for value in range(20):
        with client.canvas(spec) as canvas:
            image = canvas((64, 96, 3))
            image[:] = value
            rows = client.infer(spec, image, "", canvas).rows
        assert canvas.region is not None and rows[-1, -1] == value
        kept.append((image, rows))
    assert len(names(server)) == 1, "one region for all"
    assert [rows[-1, -1] for _, rows in kept] == list(range(20)), "rows are no view of it"
    assert {int(image[0, 0, 0]) for image, _ in kept} == {19}


def test_an_image_that_cannot_be_decoded_costs_no_region(server: Triton, client: TritonClient) -> None:
    pipeline, asked = Pipeline(client, Settings()), TaskRequest(model="tiny", accepted_at=0.0)
    black = turned(1, ".png", picture=np.zeros((64, 64, 3), np.uint8))
    pipeline.detect(black, asked)
    before = names(server)
    with pytest.raises(InvalidImage):
        pipeline.detect(black[:60], asked)
    pipeline.detect(black, asked)
    assert names(server) == before and len(before) == 1


def test_a_canvas_has_room_for_every_letterbox(server: Triton, client: TritonClient) -> None:
    spec = client.spec("tiny")
    with client.canvas(spec) as canvas:
        image = canvas((672, 672, 3))
        assert canvas.region is None
        image[:] = 7
        assert client.infer(spec, image, "", canvas).rows[-1, -1] == 7


def test_a_region_that_is_still_looked_at_leaves_no_file(tmp_path: Path) -> None:
    region = Region(tmp_path / "region", 1000)
    view = region.view((10, 10, 3))
    view[:] = 5
    region.remove()
    assert list(tmp_path.iterdir()) == []
    assert int(view.sum()) == 1500


class GivenUp(Exception):
    """As after a timeout."""


def test_a_region_that_triton_still_reads_is_not_used_again(server: Triton, admin: InferenceServerClient) -> None:
    memory, ended = SharedMemory(admin, server.url, KEY), threading.Semaphore(0)
    with pytest.raises(GivenUp), memory.lent(SIZE) as region:
        assert region is not None
        name = region.name
        tensor = region.tensor((640, 640, 3))
        for _ in range(200):
            admin.async_infer("tiny", [tensor], lambda result, error: ended.release())
        assert ended.acquire(timeout=10), "the first has its answer, the others are in Triton"
        raise GivenUp

    with ExitStack() as stack:
        others = [stack.enter_context(memory.lent(SIZE)) for _ in range(3)]
        assert None not in others and name not in {other.name for other in others if other}
        assert name in known(admin), "there are requests that read it"
        assert name not in names(server)
        assert all(ended.acquire(timeout=10) for _ in range(199))

    with memory.lent(SIZE) as again:
        assert again in others, "those that were answered are used again"
    wait_until_forgotten(memory, admin)
    assert names(server) == set()


def test_regions_that_triton_holds_are_bounded(
    server: Triton, admin: InferenceServerClient, caplog: pytest.LogCaptureFixture
) -> None:
    memory, ended = SharedMemory(admin, server.url, KEY, most_dropped=1), threading.Semaphore(0)
    with pytest.raises(GivenUp), memory.lent(SIZE) as region:
        assert region is not None
        tensor = region.tensor((640, 640, 3))
        for _ in range(200):
            admin.async_infer("tiny", [tensor], lambda result, error: ended.release())
        assert ended.acquire(timeout=10)
        raise GivenUp
    with memory.lent(SIZE) as other:
        assert other is None
    assert "it still reads 1 images of requests that were given up" in caplog.text
    assert all(ended.acquire(timeout=20) for _ in range(199))
    wait_until_forgotten(memory, admin)


def test_an_image_beyond_the_models_size_has_room(client: TritonClient) -> None:
    assert answer(client, 7, 672, 672) == 7


def test_nobody_waits_for_another_who_asks_for_a_region(server: Triton, admin: InferenceServerClient) -> None:
    memory = SharedMemory(admin, server.url, KEY)
    memory._making.acquire()  # as while Triton does not answer
    with memory.lent(SIZE) as region:
        assert region is None
    memory._making.release()
    with memory.lent(SIZE) as region:
        assert region is not None
    memory.close()


KILLED = """
import os, signal, sys
from gateway.triton.client import TritonClient
import numpy
client = TritonClient(sys.argv[1], 10, sys.argv[2])
client.infer(client.spec("tiny"), numpy.zeros((64, 64, 3), numpy.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_worker_left_is_removed(
    server: Triton, admin: InferenceServerClient, client: TritonClient
) -> None:
    subprocess.run([sys.executable, "-c", KILLED, server.url, KEY], cwd=ROOT, check=False)
    left = known(admin)
    assert len(left) == 1 and names(server) == left
    assert answer(client, 6) == 6
    assert names(server) == known(admin) and not left & known(admin)
    client.close()
    assert names(server) == known(admin) == set()


def test_a_region_has_one_owner(tmp_path: Path) -> None:
    region = Region(tmp_path / "region", 1000)
    with pytest.raises(BlockingIOError):
        Region(tmp_path / "region")
    region.remove()
    assert not (tmp_path / "region").exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    for link, size in ((tmp_path / "region", 0), (tmp_path / ".region", 1000)):
        link.symlink_to(tmp_path / "file")
        with pytest.raises(OSError):
            Region(tmp_path / "region", size)
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_a_triton_elsewhere_is_told_of_once(
    server: Triton, admin: InferenceServerClient, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    memory = SharedMemory(admin, server.url, KEY, folder=tmp_path, pause_seconds=0)  # as in another container
    for _ in range(3):
        with memory.lent(SIZE) as region:
            assert region is None
    (warning,) = [record.message for record in caplog.records]
    assert "Unable to open shared memory region" in warning
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_of_other_stacks_is_removed(tmp_path: Path, server: Triton, admin: InferenceServerClient) -> None:
    dead, alive = tmp_path / "yolo_images_of_the_dead", tmp_path / "yolo_images_of_the_living"
    dead.write_bytes(bytes(1000))
    owned = Region(alive, 1000)
    with SharedMemory(admin, server.url, KEY, folder=tmp_path).lent(SIZE):
        assert list(tmp_path.iterdir()) == [alive]
    owned.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_let_be(tmp_path: Path, server: Triton, admin: InferenceServerClient) -> None:
    foreign = tmp_path / "yolo_images_of_another"
    foreign.write_bytes(bytes(1000))
    os.chown(foreign, 65534, 65534)
    with SharedMemory(admin, server.url, KEY, folder=tmp_path).lent(SIZE):
        assert list(tmp_path.iterdir()) == [foreign]


def test_room_is_left_for_what_triton_keeps_there(
    server: Triton, admin: InferenceServerClient, caplog: pytest.LogCaptureFixture
) -> None:
    with SharedMemory(admin, server.url, KEY).lent(1 << 50) as region:
        assert region is None
    assert "MB are free in /dev/shm" in caplog.text
    assert names(server) == set()


def test_where_there_is_no_room_nothing_is_left() -> None:
    path = FOLDER / "yolo_images_too_large"
    with pytest.raises(OSError):
        Region(path, 1 << 50)
    assert not path.exists()
