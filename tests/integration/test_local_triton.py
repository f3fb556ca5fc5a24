"""Triton from its wheel with the onnxruntime backend of local/."""

import re
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import json_format  # type: ignore[import-untyped]
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from export.declared import parse
from gateway.triton.loading import not_loaded
from local import triton
from tests.support import tiny
from tests.support.stack import Triton, running_triton


@pytest.fixture(scope="module")
def server(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running_triton(tiny_repository, tmp_path_factory.mktemp("triton")) as server:
        yield server


@pytest.fixture
def client(server: Triton) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(server.url) as client:
        yield client


def infer(client: grpc.InferenceServerClient, images: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> float:
    tensor = grpc.InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    rows = client.infer("tiny", [tensor]).as_numpy("detections")
    assert rows.shape == (len(images), 1000, 6)
    return float(rows[-1, -1, -1])


def grey(
    value: int, height: int = 64, width: int = 96, batch: int = 1
) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    return np.full((batch, height, width, 3), value, np.uint8)


def test_backend_answers_each_image_by_itself(client: grpc.InferenceServerClient) -> None:
    images = np.concatenate([grey(10), grey(20)])
    assert infer(client, images) == 20
    assert infer(client, grey(30, 32, 32)) == 30


def test_requests_sent_together_share_executions(server: Triton, client: grpc.InferenceServerClient) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda value: infer(client, grey(value, 640, 640)), range(64)))
    assert answers == list(range(64))
    metrics = urllib.request.urlopen(server.metrics_url, timeout=5).read().decode()
    count, executions = (
        int(re.findall(rf'{name}{{model="tiny",version="1"}} (\d+)', metrics)[0])
        for name in ("nv_inference_count", "nv_inference_exec_count")
    )
    assert count > executions


def test_labels_come_with_the_output(client: grpc.InferenceServerClient) -> None:
    tensor = grpc.InferInput("images", [1, 32, 32, 3], "UINT8")
    tensor.set_data_from_numpy(grey(1, 32, 32))
    wanted = grpc.InferRequestedOutput("detections", class_count=6000)
    entries = client.infer("tiny", [tensor], outputs=[wanted]).as_numpy("detections").ravel()
    labels = {index: label for _, index, label in (e.decode().split(":") for e in entries if e.count(b":") == 2)}
    assert labels == {"0": "person", "1": "bicycle"}


def test_one_bad_request_fails_alone(client: grpc.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException):
        infer(client, np.zeros((1, 0, 32, 3), np.uint8)[:, :, :, :2])
    assert infer(client, grey(5)) == 5


def test_config_names_the_model_file(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "models", "tiny")
    (folder / "1" / "model.onnx").rename(folder / "1" / "other.onnx")
    with (folder / "config.pbtxt").open("a") as config:
        config.write('default_model_filename: "other.onnx"\n')
    with running_triton(tmp_path / "models", tmp_path) as server, grpc.InferenceServerClient(server.url) as client:
        assert infer(client, grey(7)) == 7


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("1/model.onnx", "not a model", "model.onnx"),
        ("config.pbtxt", tiny.CONFIG.format(name="tiny").replace("KIND_CPU", "KIND_GPU"), "GPU"),
    ],
    ids=["broken file", "GPU config"],
)
def test_a_model_that_does_not_load_leaves_the_others_served(
    tmp_path: Path, file: str, content: str, reason: str
) -> None:
    tiny.write(tmp_path / "models", "well")
    (tiny.write(tmp_path / "models", "tiny") / file).write_text(content)
    with running_triton(tmp_path / "models", tmp_path) as server, grpc.InferenceServerClient(server.url) as client:
        assert client.is_server_ready() and client.is_model_ready("well") and not client.is_model_ready("tiny")
        failed = not_loaded(client.get_model_repository_index().models)
    assert list(failed) == ["tiny"]
    assert reason in failed["tiny"] and "\n" not in failed["tiny"] and "Exception" not in failed["tiny"]


def test_a_config_that_cannot_be_read_leaves_the_others_served(tmp_path: Path) -> None:
    tiny.write(tmp_path / "models", "well")
    (tiny.write(tmp_path / "models", "tiny") / "config.pbtxt").write_text("max_batch_size: many")
    with running_triton(tmp_path / "models", tmp_path) as server, grpc.InferenceServerClient(server.url) as client:
        assert client.is_model_ready("well")
    assert "Poll failed for model directory 'tiny'" in triton.failure(tmp_path / "triton.log", "tiny")


CONFIG = tiny.CONFIG.format(name="broken")


def load(client: grpc.InferenceServerClient, config: str, model: onnx.ModelProto) -> None:
    files = {"file:1/model.onnx": model.SerializeToString(), "file:labels.txt": b"person\nbicycle\n"}
    client.load_model("broken", config=json_format.MessageToJson(parse(config)), files=files)


def test_without_batches_dims_are_the_whole_shape(client: grpc.InferenceServerClient) -> None:
    dims = [("max_batch_size: 4", "max_batch_size: 0"), ("dynamic_batching { }", "")]
    dims += [("[ -1, -1, 3 ]", "[ 1, 64, 96, 3 ]"), ("[ 1000, 6 ]", "[ -1, 1000, 6 ]")]
    config = CONFIG
    for old, new in dims:
        config = config.replace(old, new)
    load(client, config, tiny.mean())
    tensor = grpc.InferInput("images", [1, 64, 96, 3], "UINT8")
    tensor.set_data_from_numpy(grey(9))
    assert client.infer("broken", [tensor]).as_numpy("detections").shape == (1, 1000, 6)


def free_output() -> onnx.ModelProto:
    """As the exporter wrote it once: only the batch had a name, the rest was unknown."""
    model = tiny.mean()
    del model.graph.output[0].type.tensor_type.shape.dim[1:]
    for _ in range(2):
        model.graph.output[0].type.tensor_type.shape.dim.add().dim_param = "unknown"
    return model


@pytest.mark.parametrize(
    ("config", "model", "words"),
    [
        (
            CONFIG,
            free_output(),
            "the model expects 3 dimensions (shape [-1,-1,-1]) but the model configuration specifies 3 dimensions",
        ),
        (CONFIG.replace("1000, 6", "100, 6"), tiny.mean(), "making complete shape [-1,100,6])"),
        (
            CONFIG.replace("TYPE_UINT8", "TYPE_FP32"),
            tiny.mean(),
            "configuration expects datatype TYPE_FP32 for input 'images', model provides TYPE_UINT8",
        ),
        (CONFIG.replace('"detections"', '"rows"'), tiny.mean(), "unexpected inference output 'rows', allowed outputs"),
        (
            CONFIG.replace(
                'backend: "onnx', 'parameters { key: "execution_mode" value: { string_value: "2" } } backend: "onnx'
            ),
            tiny.mean(),
            "Expected values for  execution_mode are 0 or 1 but got 2 .",
        ),
    ],
    ids=["free in the graph", "another shape", "another datatype", "another name", "a parameter"],
)
def test_what_the_real_backend_refuses_is_refused_in_its_words(
    client: grpc.InferenceServerClient, config: str, model: onnx.ModelProto, words: str
) -> None:
    with pytest.raises(InferenceServerException) as refusal:
        load(client, config, model)
    assert refusal.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert words in str(refusal.value.message())
    assert infer(client, grey(6)) == 6
