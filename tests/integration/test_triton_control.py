"""Triton's interfaces that read and write files and memory are shut; model control opens to its key only."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from doctor import triton as doctor
from export.address import find
from export.triton import Refused, running
from gateway.triton.connection import RESTRICTED, control_headers
from local import triton as local_triton
from local.__main__ import new_triton_key
from tests.support.gateway import running_gateway
from tests.support.stack import Triton, running_triton

KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def server(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(tiny_repository, tmp_path_factory.mktemp("triton"), local_triton.Keys(KEY)) as server:
        yield server


@pytest.fixture
def client(server: Triton) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(server.url) as client:
        yield client


SHUT: dict[str, Callable[[InferenceServerClient], Any]] = {
    "shared memory": lambda client: client.register_system_shared_memory("a", "/yolo", 16),
    "its list": lambda client: client.get_system_shared_memory_status(),
    "CUDA memory": lambda client: client.get_cuda_shared_memory_status(),
    "trace": lambda client: client.update_trace_settings(settings={"trace_file": "/tmp/trace"}),
    "logging": lambda client: client.update_log_settings({"log_file": "/tmp/log"}),
    "index": lambda client: client.get_model_repository_index(),
    "load": lambda client: client.load_model("tiny"),
    "unload": lambda client: client.unload_model("tiny"),
    "wrong key": lambda client: client.unload_model("tiny", headers=control_headers("fedcba9876543210")),
}


@pytest.mark.parametrize("call", SHUT.values(), ids=SHUT)
def test_without_the_key_they_are_shut(
    client: InferenceServerClient, call: Callable[[InferenceServerClient], Any]
) -> None:
    with pytest.raises(InferenceServerException, match=RESTRICTED):
        call(client)
    assert client.is_model_ready("tiny")


@pytest.mark.parametrize("name", ["shared memory", "CUDA memory", "trace", "logging"])
def test_the_key_opens_model_control_only(client: InferenceServerClient, name: str) -> None:
    index = client.get_model_repository_index(headers=control_headers(KEY))
    assert [model.name for model in index.models] == ["tiny"]
    client.load_model("tiny", headers=control_headers(KEY))
    with pytest.raises(InferenceServerException, match=RESTRICTED):
        SHUT[name](client)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/health/ready", 200),
        ("POST", "/v2/repository/index", 403),
        ("POST", "/v2/repository/models/tiny/unload", 403),
        ("GET", "/v2/systemsharedmemory/status", 403),
        ("GET", "/v2/trace/setting", 403),
        ("POST", "/v2/logging", 403),
    ],
)
def test_http_is_for_health_and_questions(server: Triton, method: str, path: str, status: int) -> None:
    request = urllib.request.Request(server.http_url + path, method=method, data=b"{}" if method == "POST" else None)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            told = answer.status
    except urllib.error.HTTPError as error:
        error.close()
        told = error.code
    assert told == status


@pytest.mark.parametrize(("key", "status"), [(KEY, 200), ("", 503)], ids=["key", "no key"])
def test_the_gateway_lists_models_with_the_key(
    server: Triton, redis_url: str, tmp_path: Path, key: str, status: int
) -> None:
    settings = {"TRITON_URL": server.url, "TRITON_KEY": key, "MODEL": "tiny", "DRAIN_SECONDS": "0"}
    with running_gateway(redis_url, tmp_path, **settings) as gateway:
        try:
            with urllib.request.urlopen(f"{gateway.url}/models", timeout=10) as answer:
                assert (answer.status, b'"name":"tiny"' in answer.read()) == (status, True)
        except urllib.error.HTTPError as error:
            assert (error.code, KEY in error.read().decode()) == (status, False)
            error.close()


def test_the_exporter_and_the_doctor_use_it(server: Triton, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_URL", server.url)
    for key, refused in (("", "give it with TRITON_KEY"), (KEY, None)):
        monkeypatch.setenv("TRITON_KEY", key)
        with running() as found:
            assert found is not None
            with pytest.raises(Refused, match=refused) if refused else nullcontext():
                found.load_version("tiny", 1, "cpu")
        examiner = doctor.Triton(server.url, key)
        if refused:
            with pytest.raises(doctor.Refused, match=refused):
                examiner.models()
        else:
            assert [model.name for model in examiner.models()] == ["tiny"]
        examiner.close()


def test_make_run_leaves_the_key_for_its_user_only(server: Triton, tmp_path: Path) -> None:
    first, second = new_triton_key(tmp_path), new_triton_key(tmp_path)
    assert first != second and len(second) == 32
    assert (tmp_path / "triton.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "stack.json").write_text(json.dumps({"triton": {"grpc": server.url}}))
    assert find("", "", {"RUN_DIR": str(tmp_path)}).key == second
    assert find("", "", {"RUN_DIR": str(tmp_path), "TRITON_URL": server.url}).key == ""
    assert find("", "", {"RUN_DIR": str(tmp_path), "TRITON_KEY": KEY}).key == KEY


def test_both_sides_use_the_same_header() -> None:
    assert list(control_headers(KEY)) == [f"triton-grpc-protocol-{local_triton.CONTROL}"]
    assert control_headers("") == control_headers(None) == {}
