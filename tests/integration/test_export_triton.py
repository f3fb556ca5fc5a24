"""An export beside a running Triton: it judges the candidate, then takes the new version up."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from export import publish, triton, versions
from export.errors import ExportError
from export.options import Options
from export.sources.open import open_source
from export.sources.source import Source
from tests.support import export_models as models
from tests.support.stack import Triton, running_triton


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with version 1 of `small`, exported where no Triton is."""
    folder = tmp_path_factory.mktemp("export")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRITON_URL", "127.0.0.1:9")
        environment.setenv("YOLO_SHARED", str(folder))
        publish.publish(small(folder), options(folder), lambda line: None)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(repository, tmp_path_factory.mktemp("triton")) as running:
        yield running


@pytest.fixture(autouse=True)
def environment(server: Triton, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_URL", server.url)
    monkeypatch.setenv("YOLO_SHARED", str(repository))


def small(folder: Path) -> Source:
    """A model small enough for many exports beside a server under load."""
    return open_source(models.save(models.anchored(), folder / "small.pt", models.ORIGINAL))


def options(repository: Path, name: str = "small") -> Options:
    return Options(name=name, repository=repository, imgsz=320, instances=2, keep=2)


def served_versions(url: str, name: str) -> list[str]:
    with InferenceServerClient(url) as client:
        index = client.get_model_repository_index(as_json=True).get("models", [])
        return [entry["version"] for entry in index if entry["name"] == name and entry.get("state") == "READY"]


class Load:
    """Clients that infer all the time; `failures` holds what they were told."""

    def __init__(self, url: str, model: str) -> None:
        self.failures: list[str] = []
        self.versions: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(url, model)) for _ in range(3)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, url: str, model: str) -> None:
        tensor = InferInput("images", [1, 320, 320, 3], "UINT8")
        tensor.set_data_from_numpy(np.zeros((1, 320, 320, 3), np.uint8))
        with InferenceServerClient(url) as client:
            while not self._stop.wait(0.005):
                try:
                    self.versions.append(client.infer(model, [tensor]).get_response().model_version)
                except InferenceServerException as error:
                    self.failures.append(str(error))


def test_versions_are_swapped_under_load_without_a_failed_request(server: Triton, repository: Path) -> None:
    with Load(server.url, "small") as load:
        published = [publish.publish(small(repository), options(repository), lambda line: None) for _ in range(2)]
        end = time.monotonic() + 30
        while str(published[-1]) not in load.versions and time.monotonic() < end:
            time.sleep(0.01)
    assert load.failures == []
    assert {str(number) for number in published} <= set(load.versions)
    assert served_versions(server.url, "small") == [str(published[-1])]


def test_triton_has_judged_the_model_before_it_is_published(server: Triton, repository: Path) -> None:
    lines: list[str] = []
    number = publish.publish(small(repository), options(repository), lines.append)
    answers = json.loads((repository / "small" / str(number) / "verify.json").read_text())["answers"]
    assert answers["Triton"]["matched"] == answers["ONNX Runtime"]["matched"] > 0
    assert lines[-1].startswith("removed") and any(line.endswith("serves it") for line in lines)
    assert not any("candidate" in entry for entry in loaded(server.url))


def test_a_new_model_is_served_at_once(server: Triton, repository: Path, tmp_path: Path) -> None:
    publish.publish(small(tmp_path), options(repository, "fresh"), lambda line: None)
    assert served_versions(server.url, "fresh") == ["1"]


def test_a_number_is_not_used_again_when_the_folder_was_removed(
    server: Triton, repository: Path, tmp_path: Path
) -> None:
    first = publish.publish(small(tmp_path), options(repository, "removed"), lambda line: None)
    shutil.rmtree(repository / "removed")
    second = publish.publish(small(tmp_path), options(repository, "removed"), lambda line: None)
    assert (first, second) == (1, 2)
    assert served_versions(server.url, "removed") == ["2"]


def test_another_repository_is_told_and_does_no_harm(server: Triton, repository: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    publish.publish(small(repository), options(tmp_path, "elsewhere"), lines.append)
    assert lines[-1].endswith("serves elsewhere from another repository")
    assert (tmp_path / "elsewhere" / "1" / "model.onnx").is_file()


def test_what_the_named_triton_refuses_is_not_published(repository: Path, tmp_path: Path) -> None:
    for_gpu = Options(name="g", repository=tmp_path / "repository", imgsz=320, device="gpu", batch=1)
    with pytest.raises(ExportError, match=r"refuses the model.*KIND_GPU") as told:
        publish.publish(small(repository), for_gpu, lambda line: None)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "repository").exists()
    assert candidates(os.environ["TRITON_URL"]) == []


def test_a_version_that_is_refused_at_its_last_load_leaves_the_old_one_in_use(
    server: Triton, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = served_versions(server.url, "small")
    use = versions.use

    def damaged(model: Path, number: int) -> None:
        (model / str(number) / "model.onnx").write_text("cut by a full volume")
        use(model, number)

    monkeypatch.setattr(versions, "use", damaged)
    with pytest.raises(ExportError, match=r"does not load version \d+: .*; the one before stays in use, `make export-"):
        publish.publish(small(repository), options(repository), lambda line: None)
    current = versions.in_use(repository / "small")
    assert current is not None and served_versions(server.url, "small") == before == [str(current.version)]
    with pytest.raises(ExportError, match="does not load version 1"):
        publish.publish(small(repository), options(repository, "first"), lambda line: None)
    assert not (repository / "first" / "config.pbtxt").exists()  # or the next start would try it again


def test_the_candidate_of_a_killed_export_is_taken_away_by_the_next(
    server: Triton, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with triton.running() as found, subprocess.Popen(["true"]) as dead:
        assert found is not None
        dead.wait()
        monkeypatch.setattr("os.getpid", lambda: dead.pid)
        monkeypatch.setattr(found, "_unload", lambda name: None)
        version = next(path.parent for path in (repository / "small").glob("*/model.onnx"))
        config = (version / "config.pbtxt").read_text().replace(f"{version.name}/labels.txt", "1/labels.txt")
        staged = repository / "aside"
        shutil.copytree(version, staged)
        with found.candidate("small", staged, versions.selecting(config, 1), "cpu"):
            pass
    monkeypatch.undo()
    assert len(candidates(server.url)) == 1
    monkeypatch.setenv("TRITON_URL", server.url)
    monkeypatch.setenv("YOLO_SHARED", str(repository))
    publish.publish(small(repository), options(repository), lambda line: None)
    assert candidates(server.url) == []


def test_nothing_is_left_of_a_candidate_whose_load_took_too_long(
    server: Triton, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = served_versions(server.url, "small")
    monkeypatch.setitem(triton.LOAD_S, "cpu", 0.002)
    with pytest.raises(ExportError, match="Deadline Exceeded"):
        publish.publish(small(repository), options(repository), lambda line: None)
    loads = re.findall(r"loading: (small\.candidate-\S+):1", server.log.read_text())
    end = time.monotonic() + 30
    while f"successfully unloaded '{loads[-1]}'" not in server.log.read_text() and time.monotonic() < end:
        time.sleep(0.1)
    assert candidates(server.url) == [] and served_versions(server.url, "small") == before


def test_a_triton_that_loads_nothing_on_request_does_not_stop_an_export(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "repository"
    shutil.copytree(repository / "small", place / "small")
    lines: list[str] = []
    with running_triton(place, tmp_path, without=("--model-control-mode", "--load-model")) as polling:
        monkeypatch.setenv("TRITON_URL", polling.url)
        version = publish.publish(small(tmp_path), options(place), lines.append)
    assert (place / "small" / str(version) / "model.onnx").is_file()
    assert sum("--model-control-mode=explicit" in line for line in lines) == 2


def candidates(url: str) -> list[str]:
    """Candidates that are served; the repository's index shows none of them."""
    with InferenceServerClient(url) as client:
        return [each.name for each in client.get_inference_statistics().model_stats if ".candidate-" in each.name]


def loaded(url: str) -> list[str]:
    with InferenceServerClient(url) as client:
        index = client.get_model_repository_index(as_json=True).get("models", [])
        return [entry["name"] for entry in index if entry.get("state") == "READY"]
