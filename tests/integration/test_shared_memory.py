"""Images through system shared memory, between a worker's client and a real Triton."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from gateway.errors import ModelUnavailable
from gateway.modelspec import memory_headers
from gateway.sharedmemory import FOLDER, Region, SharedMemory, prefix
from gateway.triton import TritonClient
from local.triton import Keys
from tests.integration.stack import ROOT, Triton, running_triton

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


@pytest.fixture
def client(server: Triton, admin: InferenceServerClient) -> Iterator[TritonClient]:
    client = TritonClient(server.url, 10, KEY)
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


def test_a_region_that_triton_still_reads_is_not_used_again(server: Triton, admin: InferenceServerClient) -> None:
    memory = SharedMemory(admin, server.url, KEY)
    region = memory.take(SIZE)
    assert region is not None
    tensor, ended = region.tensor(np.zeros((640, 640, 3), np.uint8)), threading.Semaphore(0)
    for _ in range(200):
        admin.async_infer("tiny", [tensor], lambda result, error: ended.release())
    memory.drop(region)  # as after a timeout

    others = [memory.take(SIZE) for _ in range(3)]
    assert None not in others and region not in others
    assert region.name in names(server) & known(admin), "there are requests that read it"

    assert all(ended.acquire(timeout=10) for _ in range(200))
    others += [memory.take(SIZE) for _ in range(3)]
    assert None not in others and region not in others
    assert region.name not in names(server) | known(admin)
    for other in others:
        assert other is not None
        memory.put_back(other, SIZE)
    assert memory.take(SIZE) is others[-1], "those that were answered are used again"
    memory.put_back(others[-1], SIZE)  # type: ignore[arg-type]
    memory.close()
    assert names(server) == known(admin) == set()


def test_triton_holds_no_more_than_some_of_them(
    server: Triton, admin: InferenceServerClient, caplog: pytest.LogCaptureFixture
) -> None:
    memory = SharedMemory(admin, server.url, KEY)
    away = SharedMemory(admin, server.url, "0123456789abcdef")  # is told nothing of what Triton holds
    for _ in range(16):
        region = memory.take(SIZE)
        assert region is not None
        away.drop(region)
    assert away.take(SIZE) is None
    assert "still holds 16 regions" in caplog.text
    for region in away._dropped:
        memory.drop(region)
    memory.close()


KILLED = """
import os, signal, sys
from gateway.triton import TritonClient
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
    assert names(server) == known(admin) | left
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
    (tmp_path / "region").symlink_to(tmp_path / "file")
    for size in (0, 1000):
        with pytest.raises(OSError):
            Region(tmp_path / "region", size)
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_a_triton_elsewhere_is_told_of_once(
    server: Triton, admin: InferenceServerClient, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    memory = SharedMemory(admin, server.url, KEY, folder=tmp_path, pause_seconds=0)  # as in another container
    assert [memory.take(SIZE) for _ in range(3)] == [None] * 3
    (warning,) = [record.message for record in caplog.records]
    assert "Unable to open shared memory region" in warning
    assert len(list(tmp_path.iterdir())) == 1


def test_where_there_is_no_room_nothing_is_left() -> None:
    path = FOLDER / "yolo_images_too_large"
    with pytest.raises(OSError):
        Region(path, 1 << 50)
    assert not path.exists()
