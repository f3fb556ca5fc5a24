"""What doctor says of models and trials that no Triton on this machine can be made to have."""

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2, service_pb2

from doctor import published, report
from doctor.__main__ import main, not_loaded, parser
from doctor.checks import examine
from doctor.findings import Finding, amount
from doctor.host import is_here
from doctor.model import Batching, Counts, Host, Load, Model, Tensor, Trial
from doctor.triton import Listed, described
from export import facts, switch
from tests.support import tiny

ROOT = Path(__file__).parents[2]
IMAGES = Tensor(name="images", datatype="UINT8", shape=(-1, 640, 640, 3))
DETECTIONS = Tensor(name="detections", datatype="FP32", shape=(-1, 1000, 6), label_file="labels.txt")
ON_CPU = Model(
    name="yolov5n",
    engine="onnxruntime",
    max_batch_size=4,
    inputs=(IMAGES,),
    outputs=(DETECTIONS,),
    batching=Batching(),
    instances={"KIND_CPU": 2},
    threads=1,
)
ON_GPU = replace(ON_CPU, instances={"KIND_GPU": 2}, threads=None, warm_up=True, batching=Batching(delay_us=1000))
BUSY = Load(
    sent=100, at_once=16, seconds=2, counts=Counts(images=100, executions=30, requests=100, queue_ms=5000), failed=0
)
WELL = Trial(version="1", first_ms=50, later_ms=40, pair_tried=True, bytes_out=24_000, labels=80, load=BUSY)
HERE = Host(cores=2, gpus=0)


def found(title: str, model: Model = ON_CPU, trial: Trial = WELL, host: Host = HERE) -> Finding:
    return next(finding for finding in examine(model, trial, host) if finding.title == title)


@pytest.mark.parametrize("model", [ON_CPU, ON_GPU], ids=["cpu", "gpu"])
def test_of_a_well_served_model_everything_is_ok(model: Model) -> None:
    assert {finding.level for finding in examine(model, WELL, HERE)} == {"ok"}


def test_of_a_model_that_takes_one_image_at_a_time_the_batch_is_a_note() -> None:
    alone = replace(
        ON_CPU,
        max_batch_size=0,
        batching=None,
        inputs=(replace(IMAGES, shape=(1, 640, 640, 3)),),
        outputs=(replace(DETECTIONS, shape=(1, 1000, 6)),),
    )
    trial = replace(WELL, pair_tried=False, load=None)
    batch, *others = [finding for finding in examine(alone, trial, HERE) if finding.level != "ok"]
    assert (batch.level, batch.title, others) == ("note", "batch dimension", [])
    assert "--dynamic" in batch.change and "max_batch_size" not in batch.change


@pytest.mark.parametrize(
    ("instances", "threads", "cores", "level"),
    [
        (2, 1, 2, "ok"),
        (1, 8, 2, "wrong"),
        (1, 4, 2, "wrong"),
        (4, 1, 2, "wrong"),
        (3, 1, 2, "note"),
        (1, 2, 2, "note"),
        (1, 1, 4, "note"),
        (3, 1, 4, "ok"),
        (2, 1, None, "info"),
        (2, None, 2, "note"),
        (2, 0, 2, "note"),
    ],
    ids=lambda value: str(value),
)
def test_instances_times_threads_fit_the_cores(
    instances: int, threads: int | None, cores: int | None, level: str
) -> None:
    model = replace(ON_CPU, instances={"KIND_CPU": instances}, threads=threads)
    assert found("instances", model, host=Host(cores=cores)).level == level


@pytest.mark.parametrize(
    ("together", "queue_ms", "level"), [(3.3, 90, "ok"), (1.0, 90, "wrong"), (1.0, 3, "info")], ids=str
)
def test_batches_must_form_only_where_requests_wait(together: float, queue_ms: float, level: str) -> None:
    counts = Counts(images=330, executions=round(330 / together), requests=330, queue_ms=330 * queue_ms)
    trial = replace(WELL, load=replace(BUSY, sent=330, counts=counts))
    assert found("batches form", trial=trial).level == level


def test_requests_of_others_are_told_apart() -> None:
    trial = replace(WELL, load=replace(BUSY, counts=Counts(images=120, executions=30, requests=120)))
    assert "20 requests of others among them" in found("batches form", trial=trial).what


def test_requests_that_fail_under_load_are_wrong() -> None:
    finding = found("batches form", trial=replace(WELL, load=replace(BUSY, failed=7)))
    assert finding.level == "wrong" and finding.what.startswith("7 of 100 requests failed")


@pytest.mark.parametrize(
    ("model", "first_ms", "level"),
    [
        (ON_CPU, 60, "ok"),
        (ON_CPU, 300, "note"),
        (ON_GPU, 4000, "wrong"),
        (replace(ON_GPU, warm_up=False), None, "note"),
        (ON_GPU, None, "ok"),
        (ON_CPU, None, "info"),
    ],
    ids=["quick", "slow", "slow in spite of warm-up", "gpu unwarmed", "gpu warmed", "cpu untimed"],
)
def test_cold_starts(model: Model, first_ms: float | None, level: str) -> None:
    assert found("cold start", model, replace(WELL, first_ms=first_ms)).level == level


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({"max_batch_size": 1}, "note", "max_batch_size: 1"),
        ({"batching": None}, "wrong", "no dynamic_batching"),
        ({"batching": Batching(delay_us=30_000)}, "note", "waits 30 ms"),
        ({"batching": Batching(delay_us=100_000)}, "wrong", "waits 100 ms"),
        ({"batching": Batching(preferred=(2,))}, "note", "preferred_batch_size is [2]"),
        ({"batching": Batching(delay_us=1, preferred=(1,))}, "ok", "on: up to 4 images, no request waits for others"),
        ({"batching": Batching(preferred=(2, 4))}, "ok", "on: up to 4 images"),
        ({"batching": None, "scheduler": "ensemble_scheduling"}, "info", "an ensemble"),
        ({"batching": None, "scheduler": "sequence_batching"}, "info", "sequence_batching"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_batching(changes: dict[str, object], level: str, said: str) -> None:
    finding = found("batching", replace(ON_CPU, **changes), replace(WELL, later_ms=50))  # type: ignore[arg-type]
    assert (finding.level, said in finding.what) == (level, True)


def test_a_free_batch_is_not_called_fixed_where_the_model_did_not_answer() -> None:
    said = found("batch dimension", replace(ON_CPU, max_batch_size=0, inputs=(IMAGES,)), Trial(refused="no"))
    assert (said.level, said.what) == ("info", "free in [-1, 640, 640, 3], but the model did not answer")


def test_free_sides_on_a_gpu_spoil_batches() -> None:
    free = replace(IMAGES, shape=(-1, -1, -1, 3))
    assert "one shape" in found("batching", replace(ON_GPU, inputs=(free,))).what
    assert found("batching", replace(ON_CPU, inputs=(free,))).level == "ok"


def test_a_cpu_beside_an_idle_gpu_is_wrong() -> None:
    assert found("device", host=Host(cores=2, gpus=1)).level == "wrong"


@pytest.mark.parametrize(
    ("tensor", "level", "said"),
    [
        (IMAGES, "ok", "1.2 MB an image: UINT8, height, width, channels"),
        (Tensor(name="x", datatype="FP16", shape=(-1, 3, 640, 640)), "wrong", "2.5 MB an image: FP16, channels"),
        (Tensor(name="x", datatype="FP32", shape=(-1, 3, -1, -1)), "wrong", "4.9 MB an image: FP32"),
        (Tensor(name="x", datatype="INT64", shape=(-1, 128)), "info", "no input looks like an image"),
    ],
    ids=["bytes", "half", "free sides", "tokens"],
)
def test_bytes_in(tensor: Tensor, level: str, said: str) -> None:
    finding = found("bytes in", replace(ON_CPU, inputs=(tensor,)))
    assert finding.level == level and finding.what.startswith(said)


def test_a_configuration_is_read() -> None:
    config = text_format.Parse(
        """
        name: "gpu" platform: "tensorrt_plan" max_batch_size: 16
        input [ { name: "images" data_type: TYPE_UINT8 dims: [ 320, 320, 3 ] } ]
        output [ { name: "detections" data_type: TYPE_FP32 dims: [ 1000, 6 ] label_filename: "labels.txt" } ]
        dynamic_batching { max_queue_delay_microseconds: 1000 preferred_batch_size: [ 8, 16 ] }
        instance_group [ { kind: KIND_GPU count: 2 gpus: [ 0, 1 ] }, { kind: KIND_CPU count: 1 } ]
        parameters { key: "imgsz" value: { string_value: "320" } }
        model_warmup [ { name: "one" batch_size: 1 } ]
        """,
        model_config_pb2.ModelConfig(),
    )
    metadata = text_format.Parse(
        """
        inputs { name: "images" datatype: "UINT8" shape: [ -1, 320, 320, 3 ] }
        outputs { name: "detections" datatype: "FP32" shape: [ -1, 1000, 6 ] }
        """,
        service_pb2.ModelMetadataResponse(),
    )
    assert described(config, metadata) == Model(
        name="gpu",
        engine="tensorrt_plan",
        max_batch_size=16,
        inputs=(replace(IMAGES, shape=(-1, 320, 320, 3)),),
        outputs=(DETECTIONS,),
        batching=Batching(delay_us=1000, preferred=(8, 16)),
        instances={"KIND_GPU": 4, "KIND_CPU": 1},
        threads=None,
        side=320,
        warm_up=True,
    )


@pytest.mark.parametrize(
    ("most", "shape", "two"),
    [
        (4, (-1, -1, -1, 3), (2, 640, 640, 3)),
        (0, (-1, 3, 320, 320), (2, 3, 320, 320)),
        (0, (1, 3, 320, 320), (1, 3, 320, 320)),
        (0, (320, -1, 3), (320, 640, 3)),
        (0, (-1,), (1,)),
        (8, (-1, -1), (2, 1)),
    ],
    ids=str,
)
def test_trial_shapes(most: int, shape: tuple[int, ...], two: tuple[int, ...]) -> None:
    tensor = Tensor(name="x", datatype="UINT8", shape=shape)
    assert replace(ON_CPU, max_batch_size=most, inputs=(tensor,)).trial_shape(tensor, 2) == two


def test_every_line_of_the_report_fits_the_terminal_and_aligns() -> None:
    findings = examine(replace(ON_CPU, batching=None, threads=8), WELL, HERE)
    shown = report.lines(findings, 80)
    assert max(map(len, shown)) <= 80
    assert all(line[24:26].strip() == "" and line[26] != " " for line in shown)
    assert report.verdict(findings) == "2 things are wrong."
    assert report.verdict([]) == "Nothing is wrong."


@pytest.mark.parametrize(
    ("size", "said"), [(999, "999 B"), (24_000, "24 kB"), (999_600, "1.0 MB"), (8_568_000, "8.6 MB")]
)
def test_amounts(size: int, said: str) -> None:
    assert amount(size) == said


def test_whether_triton_is_on_this_machine() -> None:
    assert is_here("127.0.0.1") and is_here("localhost")
    assert not is_here("192.0.2.1")  # kept free for documentation


def test_without_triton_there_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["--url", url]) == 2
    said = capsys.readouterr()
    assert said.err == (
        f"doctor: no Triton answers at {url} (Connection refused); "
        "start it with `make run`, or give its gRPC endpoint with TRITON_URL=host:port\n"
    )
    assert not said.out


@pytest.mark.parametrize("arguments", [["--speed", "9"], ["--url", "here"]], ids=["unknown option", "bad address"])
def test_a_wrong_command_line_is_told_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("doctor: ") and said.count("\n") == 1


def test_doctor_needs_no_torch() -> None:
    code = "import sys, doctor.__main__; print(sorted({'torch', 'onnxruntime', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one model that is well."""
    tiny.write(tmp_path, "tiny")
    return tmp_path


def test_a_published_model_keeps_the_contract(repository: Path) -> None:
    (finding,) = published.examine(repository, "tiny")
    assert (finding.level, finding.title) == ("ok", "contract")
    assert published.models(repository) == ["tiny"]
    (missing,) = published.examine(repository, "other")
    assert (missing.level, missing.title) == ("note", "folder") and "UNLOAD=other" in missing.change


def test_the_served_version_is_compared_with_the_one_in_use(repository: Path) -> None:
    assert published.another_version(repository, "tiny", "1") == published.another_version(repository, "x", "1") == []
    (finding,) = published.another_version(repository, "tiny", "2")
    assert (finding.level, finding.title) == ("wrong", "version") and "USE=1 NAME=tiny" in finding.change


def test_versions_with_different_labels_cannot_be_served_together(repository: Path) -> None:
    folder = repository / "tiny"
    shutil.copytree(folder / "1", folder / "2")
    config = folder / "config.pbtxt"
    config.write_text(config.read_text() + "version_policy: { all: { } }\n")
    for number, labels in ((1, "a\nb\nc\n"), (2, "b\na\nc\n")):
        (folder / str(number) / "labels.txt").write_text(labels)
    found = [finding for finding in published.examine(repository, "tiny") if finding.level == "wrong"]
    assert [finding.title for finding in found] == ["labels"] and "versions 1, 2, whose labels differ" in found[0].what


@pytest.mark.parametrize("name", ["config.pbtxt", "1/model.onnx", "labels.txt"])
def test_a_pipe_in_a_repository_is_told_and_not_waited_for(repository: Path, name: str) -> None:
    path = repository / "tiny" / name
    path.unlink()
    os.mkfifo(path)
    found = [finding for finding in published.examine(repository, "tiny") if finding.level == "wrong"]
    assert found and name.rpartition("/")[2] in found[0].what
    assert any("tiny" in line for line in switch.listing(repository))


def test_a_model_without_a_version_is_told(repository: Path) -> None:
    (repository / "none").mkdir()
    (repository / "none" / "config.pbtxt").touch()
    (finding,) = published.examine(repository, "none")
    assert (finding.level, finding.title) == ("wrong", "version") and "has no folder of a version" in finding.what


def test_a_candidate_is_no_model_whose_folder_is_gone(repository: Path) -> None:
    (finding,) = published.examine(repository, "tiny.candidate-host-7")
    assert finding.title == "candidate" and "UNLOAD=tiny.candidate-host-7" in finding.change


def test_a_model_published_before_the_contract_is_to_be_exported_again(repository: Path) -> None:
    model = tiny.mean()
    for side, name in zip(model.graph.output[0].type.tensor_type.shape.dim[1:], ("rows", "columns"), strict=True):
        side.dim_param = name
    (repository / "tiny" / "2").mkdir()
    onnx.save(model, repository / "tiny" / "2" / "model.onnx")
    finding, *_ = published.examine(repository, "tiny")
    assert finding.level == "wrong" and "the model expects 3 dimensions (shape [-1,-1,-1])" in finding.what
    assert "`make export-model MODEL=tiny`" in finding.change


def changed(old: str, new: str) -> str:
    content = tiny.CONFIG.format(name="tiny")
    assert old in content
    return content.replace(old, new)


FIXED = ("dims: [ -1, -1, 3 ]", "dims: [ 320, 320, 3 ]")


@pytest.mark.parametrize(
    ("files", "title", "words"),
    [
        ({"labels.txt": "person\n"}, "labels", "1 in labels.txt, and the graph has 2 classes"),
        ({"labels.txt": "person\nbicycle\ncar\n"}, "labels", "3 in labels.txt, and the graph has 2 classes"),
        ({"labels.txt": "person\n\n"}, "labels", "line 2 of labels.txt is empty"),
        ({"labels.txt": None}, "labels", "labels.txt cannot be read"),
        ({"config.pbtxt": changed('label_filename: "labels.txt"', "")}, "labels", "there is no label file"),
        ({"config.pbtxt": changed('"640"', '"650"')}, "imgsz", "650 is no multiple of the stride 32"),
        ({"config.pbtxt": changed('"640"', '""')}, "imgsz", "the parameter imgsz is ''"),
        ({"config.pbtxt": changed(*FIXED)}, "imgsz", "640, and dims say 320"),
        ({"config.pbtxt": changed('"32"', '"16"')}, "stride", "16, and the model needs multiples of 32"),
        ({"config.pbtxt": changed('"tiny"', '"other"')}, "name", "'other' in config.pbtxt, and the folder is 'tiny'"),
        (
            {"config.pbtxt": changed("max_batch", "version_policy { specific { versions: [ 3 ] } } max_batch")},
            "version",
            "config.pbtxt selects version 3, there is 1",
        ),
        (
            {"config.pbtxt": changed("max_batch", 'default_model_filename: "best.onnx" max_batch')},
            "file",
            "best.onnx is missing in version 1, which holds model.onnx",
        ),
        (
            {"1/model.onnx": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"},
            "file",
            "a pointer of Git LFS",
        ),
        ({"config.pbtxt": None}, "config", "config.pbtxt cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else None,
)
def test_what_does_not_fit_together_is_found_on_disk(
    repository: Path, files: dict[str, str | None], title: str, words: str
) -> None:
    graph = tiny.mean()
    onnx.helper.set_model_props(graph, {facts.CLASSES: "2", "stride": "32"})
    onnx.save(graph, repository / "tiny" / "1" / "model.onnx")
    for file, content in files.items():
        if content is None:
            (repository / "tiny" / file).unlink()
        else:
            (repository / "tiny" / file).write_text(content)
    found = [finding for finding in published.examine(repository, "tiny") if finding.level == "wrong"]
    assert [finding.title for finding in found] == [title]
    assert words in found[0].what and found[0].why and found[0].change


@pytest.mark.parametrize(
    ("metadata", "output", "classes"),
    [
        ({"deployed_classes": "7", "names": "{0: 'a'}"}, None, 7),
        ({"names": "{0: 'a', 1: 'b'}"}, None, 2),
        ({"names": "not python"}, ("output0", [1, 25200, 85]), 80),
        ({}, ("output0", [1, 84, 8400]), 80),
        ({}, ("output0", [-1, -1, 85]), None),
        ({}, None, None),
    ],
)
def test_the_classes_of_a_graph(
    metadata: dict[str, str], output: tuple[str, list[int]] | None, classes: int | None
) -> None:
    graph = tiny.mean()
    onnx.helper.set_model_props(graph, metadata)
    if output:
        del graph.graph.output[:]
        sides = [side if side > 0 else None for side in output[1]]
        graph.graph.output.append(onnx.helper.make_tensor_value_info(output[0], onnx.TensorProto.FLOAT, sides))
    assert facts.of(graph).classes == classes


def test_facts_are_written_into_a_finished_file(repository: Path) -> None:
    file = repository / "tiny" / "1" / "model.onnx"
    facts.state(file, facts.Facts(80, 64))
    read = onnx.load(str(file))
    onnx.checker.check_model(read)
    assert facts.of(read) == facts.Facts(80, 64) and len(read.graph.node) == len(tiny.mean().graph.node)


@pytest.mark.parametrize(
    ("file", "content", "level", "words"),
    [
        ("config.pbtxt", "max_batch_size: many", "wrong", "config.pbtxt cannot be read: 1:17"),
        ("config.pbtxt", "depth: 3", "wrong", 'no field named "depth"'),
        ("1/model.onnx", "no graph", "wrong", "is no ONNX file"),
        ("config.pbtxt", tiny.CONFIG.format(name="tiny").replace('"stride"', '"threads"'), "note", "'threads' has no"),
    ],
    ids=["value", "field", "graph", "parameter"],
)
def test_a_published_model_edited_by_hand_is_told(
    repository: Path, file: str, content: str, level: str, words: str
) -> None:
    (repository / "tiny" / file).write_text(content)
    finding, *_ = published.examine(repository, "tiny")
    assert finding.level == level and words in finding.what and finding.change


def test_what_lies_on_disk_is_examined_without_triton_too(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.write(repository, "well")
    (repository / "tiny" / "config.pbtxt").write_text("max_batch_size: many")
    assert main(["--url", "127.0.0.1:9", "--repository", str(repository)]) == 2
    said = capsys.readouterr()
    assert "tiny" in said.out and "WRONG  config" in said.out and "well" not in said.out
    assert said.err.startswith("doctor: no Triton answers")


def test_a_repository_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--repository", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert parser().parse_args(["--repository", str(tmp_path)]).repository == tmp_path
    assert parser().parse_args(["--repository", ""]).repository is None


def test_the_model_in_an_advice_is_quoted() -> None:
    assert "MODEL='a b'`" in not_loaded(Listed("a b", False, ""), False).change
