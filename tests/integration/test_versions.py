"""Versions gone back and forth alongside the whole service under load: no failed request, no wrong label."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from export import publish, switch
from export.errors import ExportError
from export.options import Options
from export.options import parse as parse_options
from export.sources.open import open_source
from gateway.errors import ModelUnavailable
from gateway.triton.client import TritonClient, TritonFailing
from tests.support import export_models as models
from tests.support.load import Load
from tests.support.pictures import encoded
from tests.support.stack import Stack, running_stack, running_triton

NAME = "shapes"
PICTURE = encoded(640, 480, ".jpg")
SIZES = {1: 320, 2: 256, 3: 320}  # pixels, by version


def export(repository: Path, place: Path, version: int) -> int:
    """Version 1 has the classes v1-a, v1-b and v1-c; each version counts them from another one on."""
    network = models.anchored()
    letters = "abc"[version % 3 :] + "abc"[: version % 3]
    network.names = {index: f"v{version}-{letter}" for index, letter in enumerate(letters)}
    source = open_source(models.save(network, place / f"{version}.pt", models.ORIGINAL))
    options = Options(name=NAME, repository=repository, instances=1, keep=5, imgsz=SIZES[version])
    return publish.publish(source, options, lambda line: None)


def command(repository: Path, *given: str) -> str:
    lines: list[str] = []
    switch.run(parse_options(["--repository", str(repository), "--name", NAME, *given]), lines.append)
    return "\n".join(lines)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("versions")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRITON_URL", "127.0.0.1:9")
        environment.setenv("YOLO_SHARED", str(folder))
        for version in SIZES:
            assert export(folder, folder, version) == version
    return folder


@pytest.fixture(scope="module")
def stack(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with (
        running_triton(repository, tmp_path_factory.mktemp("triton")) as server,
        running_stack(server, tmp_path_factory.mktemp("stack"), NAME) as service,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("TRITON_URL", server.url)
        yield service


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=stack.base_url, timeout=90) as client:
        yield client


def predict(client: httpx2.Client, **choices: str) -> httpx2.Response:
    return client.post("/predict", params={"wait": "60", "conf": "0.01", **choices}, content=PICTURE)


def wrong(body: Any) -> bool:
    """Whether a label is not of the version that answered, or not the one that its id has there."""
    version = body["result"]["model"]["version"]
    found = {(each["class_id"], each["label"]) for each in body["result"]["detections"]}
    letters = "abc"[int(version) % 3 :] + "abc"[: int(version) % 3]
    return not found or not found <= {(index, f"v{version}-{letter}") for index, letter in enumerate(letters)}


def test_versions_go_back_and_forth_under_load(stack: Stack, repository: Path) -> None:
    with Load(stack.base_url, PICTURE, wrong, conf="0.01") as load:
        load.wait_for(3)
        for given, version in (("--rollback", 2), ("--rollback", 1), ("--use=3", 3), ("--use=1", 1), ("--use=2", 2)):
            said = command(repository, given)
            assert f"uses version {version}" in said and "serves it" in said
            load.wait_for(version)
        for version in (1, 3, 1, 2, 3) * 2:  # faster than anybody can look
            command(repository, f"--use={version}")
        load.wait_for(3)
    assert load.failed == [] and load.wrong == []
    assert set(load.versions) == {"1", "2", "3"}


def test_classes_by_name_are_those_of_the_version_in_use(http: httpx2.Client, repository: Path) -> None:
    command(repository, "--use=2")
    for version in (2, 3, 1, 2):  # what was asked a moment ago is not taken for the new version's
        command(repository, f"--use={version}")
        shown = http.get(f"/models/{NAME}").json()
        assert shown["labels"][0].startswith(f"v{version}-") and shown["input"]["imgsz"] == SIZES[version]
        body = predict(http, classes=f"v{version}-b").json()
        assert {each["label"] for each in body["result"]["detections"]} == {f"v{version}-b"}, body


def test_a_version_that_is_gone_is_no_outage(http: httpx2.Client, repository: Path) -> None:
    command(repository, "--use=3")
    assert predict(http, version="3").json()["result"]["model"]["version"] == "3"
    command(repository, "--use=1")
    begun = time.monotonic()
    answer = predict(http, version="3")
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"].startswith("version=3: of shapes Triton serves the versions 1")
    assert time.monotonic() - begun < 5
    assert predict(http, version="1").json()["result"]["model"]["version"] == "1"


def test_a_model_out_of_service_says_so_and_comes_back(http: httpx2.Client, repository: Path) -> None:
    command(repository, "--use=1")
    said = command(repository, f"--unload={NAME}")
    assert "has unloaded it" in said
    assert http.get(f"/models/{NAME}").status_code == 404
    begun = time.monotonic()
    answer = predict(http, model=NAME, version="2")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert time.monotonic() - begun < 5
    assert any("out of service" in line for line in switch.listing(repository))
    command(repository, "--use=1")
    assert predict(http).json()["result"]["model"]["version"] == "1"
    assert http.get(f"/models/{NAME}").json()["labels"][0].startswith("v1-")


def test_tasks_of_a_model_taken_out_of_service_hold_no_worker_up(stack: Stack, repository: Path) -> None:
    command(repository, "--use=1")
    client = TritonClient(stack.triton_url, timeout=10)
    image = np.zeros((320, 320, 3), np.uint8)
    try:
        spec = client.spec(NAME)
        command(repository, f"--unload={NAME}")
        with pytest.raises(TritonFailing):  # another may be about to take its place
            client.infer(spec, image)
        time.sleep(2.1)
        for _ in range(2):
            with pytest.raises(ModelUnavailable, match="no longer serves shapes: it was taken out of service"):
                client.spec(NAME)
        command(repository, "--use=1")
        assert client.infer(client.spec(NAME), image).spec.version == "1"
        command(repository, f"--unload={NAME}")
        with pytest.raises(TritonFailing):
            client.infer(spec, image)
    finally:
        client.close()
        command(repository, "--use=1")


def test_a_version_that_does_not_load_leaves_the_one_in_use(http: httpx2.Client, repository: Path) -> None:
    command(repository, "--use=1")
    graph = repository / NAME / "2" / "model.onnx"
    content = graph.read_bytes()
    graph.write_bytes(content[:100])
    try:
        with pytest.raises(ExportError, match=r"Triton does not load version 2: .*; all is as it was"):
            command(repository, "--use=2")
    finally:
        graph.write_bytes(content)
    assert predict(http).json()["result"]["model"]["version"] == "1"
    lines = list(switch.listing(repository))
    assert re.search(r"^shapes +1 .* since \S+Z, served", lines[1])


def test_the_served_version_is_not_deleted_and_another_is(repository: Path, stack: Stack) -> None:
    command(repository, "--use=1")
    with pytest.raises(ExportError, match=r"version 1 of .* is in use"):
        command(repository, "--delete=1")
    command(repository, "--delete=2")
    assert not (repository / NAME / "2").exists()


def test_a_model_whose_folder_was_deleted_is_listed_and_unloaded(
    http: httpx2.Client, repository: Path, tmp_path: Path
) -> None:
    (repository / NAME).rename(tmp_path / NAME)
    lines = list(switch.listing(repository))
    assert any(f"UNLOAD={NAME}" in line for line in lines)
    (version,) = [each for each in http.get(f"/models/{NAME}").json()["versions"] if each["state"] == "READY"]
    assert "its folder is gone" in version["reason"]
    assert "has unloaded it" in command(repository, f"--unload={NAME}")
    (tmp_path / NAME).rename(repository / NAME)
    command(repository, "--use=1")
