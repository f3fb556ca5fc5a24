"""A Triton whose queue policy refuses requests is busy, not away."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gateway.triton.client import TritonBusy, TritonClient, TritonUnavailable
from tests.support import tiny
from tests.support.stack import Triton, running_triton

POLICIES = {
    "short_queue": "max_queue_size: 1",
    "short_wait": "timeout_action: REJECT default_timeout_microseconds: 1000",
}
WORDS = {"short_queue": "Exceeds maximum queue size", "short_wait": "Request timeout expired"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    repository = tmp_path_factory.mktemp("busy")
    for name, policy in POLICIES.items():
        config = tiny.write(repository, name) / "config.pbtxt"
        block = f"dynamic_batching {{ default_queue_policy {{ {policy} }} }}"
        config.write_text(config.read_text().replace("dynamic_batching { }", block).replace("count: 2", "count: 1"))
    with running_triton(repository, tmp_path_factory.mktemp("triton")) as running:
        yield running


@pytest.mark.parametrize("model", POLICIES)
def test_what_the_queue_policy_refuses_is_told_apart_from_an_outage(server: Triton, model: str) -> None:
    client = TritonClient(server.url, timeout=30)
    spec, image = client.spec(model), np.zeros((1280, 1280, 3), np.uint8)

    def asked(_: int) -> str:
        try:
            client.infer(spec, image)
        except TritonUnavailable as error:
            assert isinstance(error, TritonBusy), error
            return str(error)
        return "answered"

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(asked, range(96)))
    assert "answered" in answers
    assert {answer.rpartition(WORDS[model])[1] for answer in answers if answer != "answered"} == {WORDS[model]}
