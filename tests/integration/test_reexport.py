"""Exports beside the whole service under load: a new version may take images of any other size, and nobody fails."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from export import publish
from export.options import Options
from export.sources.open import open_source
from export.sources.source import Source
from tests.support import export_models as models
from tests.support.load import Load
from tests.support.pictures import encoded
from tests.support.stack import Stack, running_stack, running_triton

NAME = "small"
PICTURE = encoded(640, 480, ".jpg")
# Sides, square or not, and a batch or none: each differs from the one before it in what the worker must send.
SHAPES: list[dict[str, Any]] = [
    {"imgsz": 256},
    {"imgsz": 320},
    {"imgsz": 320, "square": True},
    {"imgsz": 256, "square": True},
    {"imgsz": (256, 320)},
    {"imgsz": 320, "batch": 1},
]


def options(repository: Path, **changes: Any) -> Options:
    return Options(name=NAME, repository=repository, instances=1, keep=2, **changes)


def small(folder: Path) -> Source:
    return open_source(models.save(models.anchored(), folder / "small.pt", models.ORIGINAL))


def one_image(folder: Path) -> Source:
    """A file whose batch of one cannot be freed."""
    table = models.FixedBatch(models.OriginalTable(models.anchored()), 5 + len(models.NAMES))
    return open_source(models.save_onnx(table, folder / "one.onnx", size=320))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reexport")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRITON_URL", "127.0.0.1:9")
        environment.setenv("YOLO_SHARED", str(folder))
        publish.publish(small(folder), options(folder, imgsz=320), lambda line: None)
    return folder


@pytest.fixture(scope="module")
def stack(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with (
        running_triton(repository, tmp_path_factory.mktemp("triton")) as server,
        running_stack(server, tmp_path_factory.mktemp("stack"), NAME) as service,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("TRITON_URL", server.url)
        environment.setenv("YOLO_SHARED", str(repository))
        yield service


def test_no_task_fails_whatever_the_new_version_takes(stack: Stack, repository: Path, tmp_path: Path) -> None:
    with Load(stack.base_url, PICTURE) as load:
        load.wait_for(1)
        for shape in SHAPES:
            load.wait_for(publish.publish(small(repository), options(repository, **shape), lambda line: None))
        load.wait_for(publish.publish(one_image(tmp_path), options(repository), lambda line: None))
        last = publish.publish(small(repository), options(repository, imgsz=320), lambda line: None)
        load.wait_for(last)
    assert load.failed == []
    assert sorted(load.versions) == [str(version) for version in range(1, last + 1)]
    assert min(load.versions.values()) >= 10
