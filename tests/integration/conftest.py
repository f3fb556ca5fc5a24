"""The real servers, each started once for a test run."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.triton import Keys
from tests.support import tiny
from tests.support.shared import SHARED
from tests.support.stack import ROOT, Stack, Triton, exported, running_stack, running_triton


@pytest.fixture(scope="session")
def model_repository() -> Path:
    """A model repository with yolov5n; skips the test where there are no weights."""
    for weights in (ROOT / "weights" / "yolov5n.pt", SHARED / "weights" / "yolov5n.pt"):
        if weights.is_file():
            return exported(weights, "yolov5n")
    pytest.skip("no yolov5n.pt: neither weights/ nor YOLO_SHARED/weights has it")


@pytest.fixture(scope="session")
def triton(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    keys = Keys(memory=secrets.token_hex(16))
    with running_triton(model_repository, tmp_path_factory.mktemp("triton"), keys) as server:
        yield server


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The service; the one that STACK_URL names (docker-compose.test.yml), or else one started for the tests."""
    if "STACK_URL" in os.environ:
        names = ("STACK_URL", "STACK_TRITON_METRICS_URL", "STACK_REDIS_URL", "STACK_TRITON_URL")
        yield Stack(*(os.environ[name] for name in names))
        return
    triton: Triton = request.getfixturevalue("triton")
    with running_stack(triton, tmp_path_factory.mktemp("stack"), "yolov5n") as service:
        yield service


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with one tiny model, `tiny`, which needs no weights."""
    repository = tmp_path_factory.mktemp("tiny")
    tiny.write(repository, "tiny")
    return repository
