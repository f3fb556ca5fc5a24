"""Whatever is no YOLOv5 detector is refused in one line, by its true name."""

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from export.errors import ExportError
from export.sources import checkpoint
from tests.support import export_models as models
from tests.support import foreign

ROOT = Path(__file__).parents[2]


def refusal(path: Path) -> str:
    with pytest.raises(ExportError) as told:
        checkpoint.load(checkpoint.find("yolov5n", str(path), print))
    assert "\n" not in str(told.value)
    assert str(told.value).startswith(str(path))
    return str(told.value).removeprefix(str(path)).strip()


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("best.pt"), io.BytesIO())
    return stream.getvalue()


def archive(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for name in names:
            made.writestr(name, "content")
    return stream.getvalue()


def onnx_file() -> bytes:
    graph = onnx.helper.make_graph([], "g", [], [])
    return bytes(onnx.helper.make_model(graph, producer_name="pytorch").SerializeToString())


def torchscript() -> bytes:
    return archive("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py", "m/version")


METADATA = json.dumps({"description": "Ultralytics YOLOv5n model"}).encode()
SAFETENSORS = json.dumps({"model.0.weight": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}).encode()
FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("a.pt", b"", "is an empty file"),
    "page": ("a.pt", b"<!DOCTYPE html>\n<html><body>404</body></html>", "is an HTML page"),
    "page of Drive": ("a.pt", b"\n<html><head>", "is an HTML page"),
    "LFS": ("a.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "is a Git LFS pointer"),
    "engine": ("a.engine", b"ftrt\0\0\0\0" * 9, "is a TensorRT engine"),
    "engine as .pt": ("a.pt", b"ftrt\0\0\0\0" * 9, "is a TensorRT engine"),
    "engine of ultralytics": (
        "a.pt",
        len(METADATA).to_bytes(4, "little") + METADATA + b"ftrt",
        "is a TensorRT engine",
    ),
    "TFLite": ("a.tflite", b"\x1c\0\0\0TFL3" + b"\0" * 9, "is a TFLite model"),
    "CoreML": ("a.mlmodel", b"\x08\x07\x12\x10", "is a CoreML model"),
    "graph": ("a.pb", b"\n\x10\n\x01x", "is a TensorFlow graph"),
    "OpenVINO": ("a.xml", b'<?xml version="1.0"?>\n<net name="m" version="11">', "is an OpenVINO model"),
    "safetensors": (
        "a.pt",
        len(SAFETENSORS).to_bytes(8, "little") + SAFETENSORS + b"\0\0",
        "is a safetensors file: weights without the model",
    ),
    "HDF5": ("a.h5", b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    "ONNX": ("a.pt", onnx_file(), "is an ONNX file, not a checkpoint; give the .pt"),
    "TorchScript": ("a.torchscript", torchscript(), "is a TorchScript file"),
    "TorchScript as .pt": ("a.pt", torchscript(), "is a TorchScript file"),
    "zip": ("a.pt", archive("best.pt"), "is a zip archive; unpack it"),
    "CoreML package": ("a.zip", archive("m.mlpackage/Manifest.json"), "is a CoreML package"),
    "tar": ("a.pt", tar(), "is a tar archive"),
    "gzip": ("a.pt", b"\x1f\x8b\x08" + b"\0" * 99, "is a compressed archive"),
    "picture": ("a.pt", b"\xff\xd8\xff\xe0", "is a picture"),
    "yaml": ("yolov5s.yaml", b"nc: 80\nbackbone: []\n", "is a text file"),
    "Darknet": ("yolov3.weights", b"\0\0\0\0\x02\0\0\0" * 9, "is a Darknet file: weights without"),
}


def test_a_tar_archive_of_a_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    models.save(models.anchored(), tmp_path / "best.pt", models.ORIGINAL)
    with tarfile.open(tmp_path / "a.pt", "w") as made:
        made.add(tmp_path / "best.pt")
    assert refusal(tmp_path / "a.pt").startswith("is a tar archive")


def test_weights_that_were_changed_on_the_way_are_damaged(tmp_path: Path) -> None:
    path = models.save(models.anchored(), tmp_path / "a.pt", models.ORIGINAL)
    content = bytearray(path.read_bytes())
    content[content.index(b"/data/3") + 60] ^= 1
    path.write_bytes(content)
    assert refusal(path).startswith("is damaged: ")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_checkpoint_is_called_what_it_is(tmp_path: Path, name: str) -> None:
    file, content, said = FILES[name]
    (tmp_path / file).write_bytes(content)
    assert refusal(tmp_path / file).startswith(said)


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("saved_model.pb", "is a TensorFlow SavedModel; "),
        ("yolov5n.xml", "is an OpenVINO model; "),
        ("Manifest.json", "is a CoreML package; "),
        ("weights/best.pt", "is a folder; give the file, such as "),
        ("notes.txt", "is a folder; give the .pt that training wrote"),
    ],
)
def test_a_folder_is_called_what_it_is(tmp_path: Path, inside: str, said: str) -> None:
    file = tmp_path / "model" / inside
    file.parent.mkdir(parents=True)
    file.touch()
    assert refusal(tmp_path / "model").startswith(said)


def test_a_pipe_is_named_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pt")
    assert refusal(tmp_path / "a.pt").startswith("is a named pipe, not a file")


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pt").symlink_to("gone.pt")
    assert refusal(tmp_path / "a.pt").startswith("is a link to gone.pt, which does not exist")


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pt").touch()

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    assert refusal(tmp_path / "a.pt").startswith("cannot be read: Permission denied")


@pytest.mark.parametrize("name", ["-odd.pt", "two words.pt", "it's.pt", 'say "a".pt', "模型.pt", "a$b.pt", "#1;&.pt"])
def test_a_file_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    models.save(models.anchored(), tmp_path / "plain.pt", models.ORIGINAL)
    Path("plain.pt").rename(tmp_path / name)
    assert len(checkpoint.load(checkpoint.find("yolov5n", name, print)).labels) == 3


@pytest.mark.parametrize("name", [b"m\xff.pt", b"a\nb.pt", b"a\x1b[1m.pt"], ids=["no Unicode", "newline", "escape"])
def test_a_file_whose_name_cannot_be_printed_is_told_on_one_line(tmp_path: Path, name: bytes) -> None:
    file = os.path.join(os.fsencode(tmp_path), name)
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict", "PYTHONUTF8": "1"}
    for content, said in ((None, b"there is no file"), (b"<html>", b"is an HTML page")):
        if content is not None:
            with open(file, "wb") as target:
                target.write(content)
        command: list[str | bytes] = [sys.executable, "-m", "export", b"--weights=" + file]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, env=environment)
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1) and said in done.stderr, done.stderr


def test_the_home_folder_may_be_abbreviated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.pt").touch()
    assert checkpoint.find("yolov5n", "~/a.pt", print) == tmp_path / "a.pt"
    with pytest.raises(ExportError, match=r"~nobody-here/a.pt cannot be read"):
        checkpoint.find("yolov5n", "~nobody-here/a.pt", print)


def network(last: Any, *others: Any, home: str = "ultralytics.nn.tasks.DetectionModel", yaml: str = "") -> Any:
    """A network that ends in `last` and has `others` somewhere."""
    layers = [nn.Conv2d(3, 8, 3), *others, last]
    for i, each in enumerate(layers):
        each.i, each.f = i, -1
    made = foreign.layer(home, model=nn.Sequential(*layers), save=[], names={0: "a"})
    made.yaml = {"yaml_file": yaml, "nc": 1}
    return made


def of(name: str) -> Any:
    return foreign.layer(f"ultralytics.nn.modules.{name}")


ULTRALYTICS = "; export it to ONNX with ultralytics, which is taken"
DETECT = "head.Detect"
MODELS: dict[str, tuple[Any, str]] = {
    "yolov5n-seg": (
        network(foreign.layer("models.yolo.Segment"), home="models.yolo.SegmentationModel"),
        "is a segmentation model",
    ),
    "yolov5n-cls": (
        network(foreign.layer("models.common.Classify"), home="models.yolo.ClassificationModel"),
        "is a classification model",
    ),
    "yolov5n-cls of v6.2": (
        network(foreign.layer("models.common.Classify"), home="models.yolo.Model"),
        "is a classification model",
    ),
    "YOLOv8": (network(of(DETECT), of("block.C2f"), yaml="yolov8n.yaml"), f"is a YOLOv8 checkpoint{ULTRALYTICS}"),
    "own yaml of YOLOv8": (
        network(of(DETECT), of("block.C2f"), yaml="my.yaml"),
        f"is a YOLOv8 checkpoint{ULTRALYTICS}",
    ),
    "YOLO11": (network(of(DETECT), of("block.C3k2"), of("block.C2PSA")), f"is a YOLO11 checkpoint{ULTRALYTICS}"),
    "YOLO12": (network(of(DETECT), of("block.C3k2"), of("block.A2C2f")), f"is a YOLO12 checkpoint{ULTRALYTICS}"),
    "YOLOv9": (network(of(DETECT), of("block.RepNCSPELAN4")), f"is a YOLOv9 checkpoint{ULTRALYTICS}"),
    "YOLOv10": (network(of("head.v10Detect"), of("block.C2f"), of("block.SCDown")), "is a YOLOv10 checkpoint, whose"),
    "YOLO26": (network(of(DETECT), of("block.C3k2"), yaml="yolo26n.yaml"), "is a YOLO26 checkpoint, whose"),
    "RT-DETR": (
        network(of("head.RTDETRDecoder"), home="ultralytics.nn.tasks.RTDETRDetectionModel"),
        "is an RT-DETR checkpoint, whose",
    ),
    "YOLO-World": (
        network(of("head.WorldDetect"), of("block.C2fAttn"), home="ultralytics.nn.tasks.WorldModel"),
        f"is a YOLO-World checkpoint{ULTRALYTICS}",
    ),
    "yolov8n-seg": (
        network(of("head.Segment"), of("block.C2f"), home="ultralytics.nn.tasks.SegmentationModel"),
        "is a YOLOv8 segmentation model",
    ),
    "yolov8n-pose": (
        network(of("head.Pose"), of("block.C2f"), home="ultralytics.nn.tasks.PoseModel"),
        "is a YOLOv8 pose model",
    ),
    "yolov8n-obb": (
        network(of("head.OBB"), of("block.C2f"), home="ultralytics.nn.tasks.OBBModel"),
        "is a YOLOv8 oriented boxes model",
    ),
    "yolov8n-cls": (
        network(of("head.Classify"), of("block.C2f"), home="ultralytics.nn.tasks.ClassificationModel"),
        "is a YOLOv8 classification model",
    ),
    "YOLOv7": (
        network(foreign.layer("models.yolo.IDetect"), foreign.layer("models.common.MP"), home="models.yolo.Model"),
        "is a YOLOv7 checkpoint; give an .onnx",
    ),
    "YOLOv9 of its authors": (
        network(foreign.layer("models.yolo.DDetect"), home="models.yolo.DetectionModel"),
        "is a YOLOv9 checkpoint; give an .onnx",
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("key", ["model", "ema"])
def test_another_model_is_called_what_it_is(tmp_path: Path, name: str, key: str) -> None:
    made, said = MODELS[name]
    path = foreign.save({"model": None, "ema": None, key: made, "train_args": {}}, tmp_path / "a.pt")
    assert refusal(path).startswith(said)


WEIGHTS = {"model.0.conv.weight": torch.zeros(3), "model.0.bn.num_batches_tracked": torch.tensor(0)}


@pytest.mark.parametrize(
    "content",
    [WEIGHTS, {"state_dict": WEIGHTS}, {"model": WEIGHTS}, {"ema": WEIGHTS}, {"model_state": WEIGHTS, "epoch": 1}],
    ids=["bare", "state_dict", "model", "ema", "another key"],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_weights_without_a_model_are_told(tmp_path: Path, content: dict[str, object], legacy: bool) -> None:
    path = foreign.save(content, tmp_path / "a.pt", legacy=legacy)
    assert refusal(path).startswith("has weights but no model in it")


def test_an_ensemble_is_told(tmp_path: Path) -> None:
    parts = [foreign.disguise(models.anchored(), models.ORIGINAL) for _ in range(2)]
    made = foreign.kind("models.experimental.Ensemble", nn.ModuleList)(parts)
    assert refusal(foreign.save({"model": made}, tmp_path / "a.pt")).startswith("is an ensemble of 2 models")
    assert refusal(foreign.save(made, tmp_path / "b.pt")).startswith("is an ensemble of 2 models")


@pytest.mark.parametrize(("channels", "said"), [(1, "one input channel,"), (4, "four input channels,"), (6, "six")])
def test_other_than_three_input_channels_are_told(tmp_path: Path, channels: int, said: str) -> None:
    made = models.anchored()
    made.model[0].conv = nn.Conv2d(channels, 8, 5, 4, 2, bias=False)
    assert refusal(models.save(made, tmp_path / "a.pt", models.ORIGINAL)).startswith(f"takes {said}")


def test_a_head_with_more_values_than_a_detector_is_told(tmp_path: Path) -> None:
    made = models.anchored()
    made.head.m = nn.ModuleList(nn.Conv2d(channels, 3 * (5 + 3 + 10), 1) for channels in (16, 24, 24))
    assert refusal(models.save(made, tmp_path / "a.pt", models.ORIGINAL)).startswith("has a head of 54 outputs")


def test_an_end_to_end_head_is_told(tmp_path: Path) -> None:
    made = models.anchor_free()
    made.head.one2one_cv2 = nn.ModuleList()
    path = models.save(made, tmp_path / "a.pt", models.ULTRALYTICS)
    assert refusal(path).startswith("has an end-to-end head")
