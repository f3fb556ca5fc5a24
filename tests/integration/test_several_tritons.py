"""Several Tritons behind one name, as of a headless Service: all take turns, one that comes later too."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from gateway.triton.client import TritonClient, TritonUnavailable
from local import triton, wheel
from local.errors import LocalError
from local.ports import free_ports
from local.processes import stopping
from tests.support import tiny
from tests.support.names import name_server
from tests.support.stack import triton_is_ready, wait_until

IMAGE = np.zeros((64, 64, 3), np.uint8)
SECONDS = 60


@contextmanager
def serving(
    repository: Path, folder: Path, address: str, port: int
) -> Iterator["tuple[subprocess.Popen[bytes], Callable[[], int]]"]:
    """A Triton at this address, with how many images it has run."""
    http_port, metrics_port = free_ports(2)
    log = folder / f"{address}.log"
    backends = wheel.compose_backends(folder / f"backends-{address}")
    command = triton.server_command(repository, http_port, port, metrics_port, backends, address)
    own = [part.replace(triton.shared_memory(port), triton.shared_memory(port) + address[-1]) for part in command]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*own, *triton.connection_age("2")],
            env=wheel.environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    with stopping(process), InferenceServerClient(f"{address}:{port}") as client:
        wait_until(lambda: triton_is_ready(client), process, log)
        yield process, lambda: sum(each.inference_count for each in client.get_inference_statistics().model_stats)


def infer_until(client: TritonClient, true: Callable[[], bool]) -> int:
    """How many inferences found no Triton meanwhile."""
    spec, failed, deadline = client.spec("tiny"), 0, time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        try:
            client.infer(spec, IMAGE)
        except TritonUnavailable:
            failed += 1
        time.sleep(0.02)
    return failed


def test_all_take_turns_and_one_that_comes_later_is_seen(tmp_path: Path) -> None:
    tiny.write(tmp_path / "models", "tiny", tiny.finder())
    (port,) = free_ports(1)
    addresses = ["127.0.0.2"]
    with name_server(addresses) as dns, serving(tmp_path / "models", tmp_path, "127.0.0.2", port) as (first, first_ran):
        client = TritonClient(f"dns://127.0.0.1:{dns}/triton.test:{port}", timeout=10)
        assert infer_until(client, lambda: first_ran() >= 20) == 0
        with serving(tmp_path / "models", tmp_path, "127.0.0.3", port) as (_, second_ran):
            before = second_ran()
            addresses.append("127.0.0.3")
            failed = infer_until(client, lambda: second_ran() - before >= 20)
            assert failed == 0, "connections end between inferences, not in them"
            begun, other = first_ran(), second_ran()
            assert infer_until(client, lambda: second_ran() - other >= 20) == 0
            assert first_ran() - begun >= 10, "they take turns"
            addresses.remove("127.0.0.2")
            first.kill()
            first.wait()
            other = second_ran()
            assert infer_until(client, lambda: second_ran() - other >= 40) <= 2
        client.close()
    triton.clear(port)


@pytest.mark.parametrize("given", ["a minute", "0", "1.5"])
def test_an_age_of_connections_without_meaning_is_refused(given: str) -> None:
    with pytest.raises(LocalError, match=f"TRITON_CONNECTION_SECONDS={given}: give whole seconds"):
        triton.connection_age(given)
