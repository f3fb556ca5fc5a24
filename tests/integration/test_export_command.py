"""`python -m export` as a person runs it: what it prints, and how it ends."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from export.config import Serving
from export.graph.deployed import Deployed
from export.graph.engine import command
from export.graph.onnx_writer import write
from export.graph.session import Deployed as Written
from export.sources.checkpoint import load
from gateway.vision.decode import decode
from gateway.vision.letterbox import letterbox
from gateway.vision.nms import nms
from tests.support.shared import SHARED, photograph, reference

ROOT = Path(__file__).parents[2]
SHAPES = ROOT / "demo" / "shapes.pt"

# What stands in for docker: it checks what trtexec would be given and writes an engine.
DOCKER = """#!/bin/sh
while [ "$1" != "--volume" ]; do shift; done
folder=${2%%:*}
test -f "$folder/model.onnx" || exit 3
case "$*" in *--maxShapes=images:4x320x320x3*) ;; *) echo "[E] wrong shapes: $*"; exit 4;; esac
echo engine > "$folder/model.plan"
"""


def run(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {"TRITON_URL": "127.0.0.1:9", "YOLO_SHARED": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "export", "--repository", str(folder / "repository"), *arguments],
        cwd=ROOT,
        env=os.environ | known | environment,
        capture_output=True,
        text=True,
    )


def test_an_export_tells_what_it_does_and_the_list_shows_it(tmp_path: Path) -> None:
    done = run("--weights", str(SHAPES), "--imgsz", "320", "--square", "1", "--name", "", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for said in ("loading", "3 classes, 320x320 square", "smallest IoU", "published"):
        assert said in done.stdout
    listed = run("--list", "1", folder=tmp_path)
    assert listed.returncode == 0
    assert re.search(r"^shapes +1 .* since \S+Z .* 320x320 square$", listed.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--speed", "9"), "--speed", id="option"),
        pytest.param(("--weights", "nowhere.pt"), "there is no file nowhere.pt", id="file"),
        pytest.param(("--weights", "LICENSE"), "no PyTorch checkpoint", id="no checkpoint"),
        pytest.param(("--weights", str(SHAPES), "--imgsz", "333"), "use 320 or 352", id="size"),
        pytest.param(("--weights", str(SHAPES), "--repository", "LICENSE/x"), "cannot be written", id="repository"),
        pytest.param(("--weights", str(SHAPES), "--name", "a/b"), "no model name", id="name"),
    ],
)
def test_bad_input_ends_with_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr and done.stderr.count("\n") == 1 and done.stderr.startswith("export: ")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_with_one_line_and_the_repository_is_as_it_was(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the system call fails in the same place."""
    limit = 200_000
    done = subprocess.run(
        [sys.executable, "-m", "export", "--repository", str(tmp_path / "repository"), "--weights", str(SHAPES)],
        cwd=ROOT,
        env=os.environ | {"TRITON_URL": "127.0.0.1:9"},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert "cannot be written: File too large" in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_engine_is_built_in_tritons_image(tmp_path: Path) -> None:
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    done = run(
        *("--weights", str(SHAPES), "--device", "gpu", "--format", "tensorrt", "--imgsz", "320", "--batch", "4"),
        folder=tmp_path,
        PATH=f"{docker.parent}{os.pathsep}{os.environ['PATH']}",
    )
    assert done.returncode == 0, done.stderr
    assert "trtexec --onnx=model.onnx" in done.stdout
    version = tmp_path / "repository" / "shapes" / "1"
    files = ["config.pbtxt", "labels.txt", "model.plan", "verify.json"]
    assert sorted(file.name for file in version.iterdir()) == files
    assert 'platform: "tensorrt_plan"' in (version.parent / "config.pbtxt").read_text()


def test_without_docker_the_command_is_shown_and_nothing_published(tmp_path: Path) -> None:
    engine = ("--weights", str(SHAPES), "--device", "gpu", "--format", "tensorrt", "--imgsz", "320")
    done = run(*engine, folder=tmp_path, PATH=str(tmp_path))
    assert done.returncode == 1
    assert "there is no docker here" in done.stderr and done.stderr.count("\n") == 1
    assert "docker run --rm --gpus all" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("batch", "profile"), [(1, (1, 1, 1)), (4, (1, 4, 4)), (16, (1, 16, 16))])
def test_an_engine_has_one_profile_up_to_the_largest_batch(
    tmp_path: Path, batch: int, profile: tuple[int, int, int]
) -> None:
    serving = Serving(name="a", imgsz=640, stride=32, square=True, device="gpu", format="tensorrt", batch=batch)
    line = " ".join(command(tmp_path, serving))
    smallest, usual, largest = (f"images:{size}x640x640x3" for size in profile)
    assert f"--minShapes={smallest} --optShapes={usual} --maxShapes={largest}" in line


@pytest.mark.parametrize("square", [True, False], ids=["square", "rectangular"])
def test_yolov5n_answers_as_the_original_code(tmp_path: Path, square: bool) -> None:
    """IoU of at least 0.98 and a score within 0.01; none missing and none extra above 0.27."""
    weights = SHARED / "weights" / "yolov5n.pt"
    if not weights.is_file():
        pytest.skip("no yolov5n.pt: YOLO_SHARED/weights has none")
    write(Deployed(load(weights).network), tmp_path / "model.onnx", size_hw=(640, 640), fixed=square)
    written = Written(tmp_path / "model.onnx")
    for name, told in reference(square).items():
        image, placement = letterbox(decode(photograph(name)), size_hw=(640, 640), stride=32, fixed=square)
        assert list(image.shape[:2]) == told["input_hw"]
        rows = nms(written(image))
        boxes = placement.to_source(rows[:, :4])
        open_rows = set(range(len(rows)))
        for expected in told["detections"]:
            fitting = [
                i
                for i in open_rows
                if rows[i, 5] == expected["class_id"]
                and abs(rows[i, 4] - expected["score"]) <= 0.01
                and iou(boxes[i].tolist(), expected["box"]) >= 0.98
            ]
            assert fitting or expected["score"] <= 0.27, f"{name}: {expected} is missing"
            open_rows -= set(fitting[:1])
        assert all(rows[i, 4] <= 0.27 for i in open_rows), f"{name}: extra boxes"


def iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)
