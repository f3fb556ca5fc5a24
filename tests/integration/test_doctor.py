"""`make doctor` against a real Triton that serves one healthy model and one for each thing that can be wrong."""

import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO

import onnx
import pytest
from onnx import TensorProto, helper
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from doctor.__main__ import main
from tests.support import tiny
from tests.support.stack import Triton, running_triton

ROWS = 'output [ { name: "detections" data_type: TYPE_FP32 dims: [ 1000, 6 ] label_filename: "labels.txt" } ]'
GROUP = "instance_group [ { kind: KIND_CPU count: 1 } ]"
ONE_THREAD = 'parameters { key: "intra_op_thread_count" value: { string_value: "1" } }'


def config(name: str, **changes: str) -> str:
    """A healthy model's config.pbtxt on one core, with some of its blocks changed."""
    blocks = {
        "most": "max_batch_size: 4",
        "input": 'input [ { name: "images" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] } ]',
        "output": ROWS,
        "batching": "dynamic_batching { }",
        "group": GROUP,
        "threads": ONE_THREAD,
    }
    return "\n".join([f'name: "{name}"', 'backend: "onnxruntime"', *(blocks | changes).values()])


def reshaping_graph(name: str, *shape: int) -> onnx.ModelProto:
    """As `tiny.mean`, with a shape in its nodes that does not fit every input which the graph declares."""
    model = tiny.mean()
    model.graph.node[0].input[0] = "parts"
    model.graph.node.insert(0, helper.make_node("Reshape", ["images", name], ["parts"]))
    model.graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(shape)], shape))
    return model


def same_graph(kind: int, *shape: int | str) -> onnx.ModelProto:
    """Answers its input."""
    value = helper.make_tensor_value_info
    content = helper.make_graph(
        [helper.make_node("Identity", ["in"], ["out"])],
        "same",
        [value("in", kind, shape)],
        [value("out", kind, shape)],
    )
    return helper.make_model(content, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def raw_graph() -> onnx.ModelProto:
    """float32 (batch, 3, 640, 640) → float32 (batch, 25200, 85), as yolov5's own export writes it."""
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "flat"], ["column"]),
        helper.make_node("Shape", ["images"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "rows"], ["shape"], axis=0),
        helper.make_node("Expand", ["column", "shape"], ["output0"]),
    ]
    constants = {"axes": [1, 2, 3], "flat": [-1, 1, 1], "rows": [25200, 85]}
    content = helper.make_graph(
        nodes,
        "raw",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 640, 640])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 25200, 85])],
        [helper.make_tensor(name, TensorProto.INT64, [len(values)], values) for name, values in constants.items()],
    )
    return helper.make_model(content, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def alone(kind: str, dims: str) -> dict[str, str]:
    """Blocks of a model that Triton never batches."""
    return {"most": "max_batch_size: 0", "batching": "", **passed_on(kind, dims)}


def passed_on(kind: str, dims: str) -> dict[str, str]:
    return {
        "input": f'input [ {{ name: "in" data_type: {kind} dims: [ {dims} ] }} ]',
        "output": f'output [ {{ name: "out" data_type: {kind} dims: [ {dims} ] }} ]',
    }


RAW = {
    "input": 'input [ { name: "images" data_type: TYPE_FP32 dims: [ 3, 640, 640 ] } ]',
    "output": 'output [ { name: "output0" data_type: TYPE_FP32 dims: [ 25200, 85 ] } ]',
}
MODELS: dict[str, tuple[onnx.ModelProto, dict[str, str]]] = {
    "healthy": (tiny.mean(), {}),
    "fixed_batch": (reshaping_graph("one", 1, 640, 640, 3), {}),
    "never_batched": (same_graph(TensorProto.UINT8, 1, 3, 64, 64), alone("TYPE_UINT8", "1, 3, 64, 64")),
    "without_batch": (same_graph(TensorProto.UINT8, 64, 64, 3), alone("TYPE_UINT8", "64, 64, 3")),
    "no_batching": (tiny.mean(), {"batching": ""}),
    "long_delay": (tiny.mean(), {"batching": "dynamic_batching { max_queue_delay_microseconds: 200000 }"}),
    "float32": (raw_graph(), RAW),
    "threads": (tiny.mean(), {"threads": ONE_THREAD.replace('"1"', '"64"')}),
    "unlabelled": (tiny.mean(), {"output": ROWS.replace('label_filename: "labels.txt"', "")}),
    "refusing": (reshaping_graph("sevenths", -1, 7, 7, 3), {}),
    "words": (same_graph(TensorProto.STRING, 1), alone("TYPE_STRING", "1")),
    "numbers": (same_graph(TensorProto.FLOAT, "batch", "count"), passed_on("TYPE_FP32", "-1")),
}
PLANTED = {
    "fixed_batch": {"batch dimension": "fixed: [-1, -1, -1, 3] admits two images, yet the model refuses them"},
    "never_batched": {
        "batch dimension": "fixed at 1: the input is [1, 3, 64, 64]",
        "batching": "off: max_batch_size: 0",
    },
    "without_batch": {
        "batch dimension": "none: the input is [64, 64, 3]",
        "batching": "off: max_batch_size: 0",
    },
    "no_batching": {"batching": "off: max_batch_size: 4, but no dynamic_batching"},
    "long_delay": {"batching": "a lone request waits 200 ms for others"},
    "float32": {"bytes in": "4.9 MB an image: FP32", "bytes out": "8.6 MB an image: [-1, 25200, 85]"},
    "threads": {"instances": "1 instance x 64 threads"},
    "unlabelled": {"labels": "none: no output has a label_filename"},
    "refusing": {"answers": "no: "},
}

Rows = dict[str, tuple[str, str]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    repository = tmp_path_factory.mktemp("planted")
    for name, (graph, changes) in MODELS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config(name, **changes))
        (repository / name / "labels.txt").write_text("circle\nsquare\n")
        onnx.save(graph, repository / name / "1" / "model.onnx")
    # Without a model file: nobody loads it before a test does.
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "config.pbtxt").write_text(config("broken"))
    (repository / "broken" / "labels.txt").write_text("circle\n")
    with running_triton(repository, tmp_path_factory.mktemp("triton")) as triton:
        yield triton


def doctor(server: Triton, *options: str) -> tuple[int, str]:
    """Exit status and output of the command, on wide lines."""
    with redirect_stdout(StringIO()) as said, pytest.MonkeyPatch.context() as environment:
        environment.setenv("COLUMNS", "110")
        status = main(["--url", server.url, "--metrics-url", server.metrics_url, *options])
    return status, said.getvalue()


@pytest.fixture(scope="module")
def everything(server: Triton) -> tuple[int, str]:
    """The first look at all models: none of them has answered anybody before."""
    return doctor(server)


def rows(report: str, model: str) -> Rows:
    """What was found of a model: title → (mark, all the rest of the paragraph)."""
    section = next(part for part in report.split("\n\n") if part.startswith((f"{model},", f"{model}\n", f"{model} (")))
    found: Rows = {}
    for line in section.splitlines()[1:]:
        if mark := line[2:9].strip():
            title = line[9:26].strip()
            found[title] = (mark, line[26:])
        else:
            found[title] = (found[title][0], f"{found[title][1]} {line.strip()}")
    return found


def wrong(found: Rows) -> set[str]:
    return {title for title, (mark, _) in found.items() if mark == "WRONG"}


@pytest.mark.parametrize("model", PLANTED)
def test_what_was_planted_is_found_and_nothing_else(everything: tuple[int, str], model: str) -> None:
    status, report = everything
    found = rows(report, model)
    assert status == 1
    assert wrong(found) == set(PLANTED[model])
    for title, text in PLANTED[model].items():
        assert text in found[title][1]
        assert " why  " in found[title][1] and " change  " in found[title][1]


def test_a_healthy_model_is_told_so(everything: tuple[int, str]) -> None:
    found = rows(everything[1], "healthy")
    assert not wrong(found)
    assert found["batch dimension"] == ("ok", "free: two images in one request were answered")
    assert found["bytes in"][1] == "1.2 MB an image: UINT8, height, width, channels"
    assert found["bytes out"][1] == "24 kB an image: [-1, 1000, 6]"
    assert found["labels"] == ("ok", "2 in labels.txt")
    assert re.search(r"first request took \d+ ms, later ones \d+ ms", found["cold start"][1])


def test_batches_are_seen_to_form(everything: tuple[int, str]) -> None:
    mark, text = rows(everything[1], "healthy")["batches form"]
    found = re.match(r"([\d.]+) images an execution \((\d+) in (\d+)\)", text)
    assert found is not None
    together, images, executions = found.groups()
    assert mark == "ok"
    assert float(together) == pytest.approx(int(images) / int(executions), abs=0.06)
    assert int(images) > int(executions)


@pytest.mark.parametrize("model", ["words", "numbers"])
def test_a_model_that_takes_no_images_is_not_called_wrong(everything: tuple[int, str], model: str) -> None:
    assert not wrong(rows(everything[1], model))


def test_one_model_can_be_picked_and_then_nothing_is_wrong(server: Triton, everything: tuple[int, str]) -> None:
    status, report = doctor(server, "--model", "healthy")
    assert status == 0
    assert "fixed_batch" not in report
    assert rows(report, "healthy")["cold start"] == ("-", "not timed: it has answered before; no model_warmup")
    assert report.splitlines()[-1].startswith("Nothing is wrong")


def test_a_model_that_did_not_load_is_told_with_the_reason(server: Triton) -> None:
    with InferenceServerClient(server.url) as client:
        with pytest.raises(InferenceServerException):
            client.load_model("broken")
    status, report = doctor(server, "--model", "broken")
    assert status == 1
    mark, text = rows(report, "broken")["not loaded"]
    assert mark == "WRONG" and "model.onnx" in text


def test_an_unknown_model_is_told_in_one_line(server: Triton, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = doctor(server, "--model", "nobody")
    assert (status, report) == (2, "")
    said = capsys.readouterr().err
    assert said.startswith("doctor: Triton has no model nobody: it has ") and said.count("\n") == 1


def test_the_http_port_is_no_grpc_endpoint(server: Triton, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", server.http_url.removeprefix("http://")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("doctor: no Triton answers at ") and said.count("\n") == 1


def test_a_missing_metrics_page_is_told(server: Triton) -> None:
    report = doctor(server, "--model", "words", "--metrics-url", "http://127.0.0.1:9/metrics")[1]
    assert "do not answer at http://127.0.0.1:9/metrics" in report
