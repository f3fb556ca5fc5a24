"""`make evaluate` against a real Triton."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from demo import train_shapes
from evaluation.evaluate import main
from local import triton
from local.ports import free_ports
from tests.support.pictures import encoded
from tests.support.shared import SHARED

ROOT = Path(__file__).parents[2]
SHAPES = train_shapes.HERE / "shapes.pt"
COCO = SHARED / "weights" / "yolov5n.pt"
PATIENCE_S = 90


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """gRPC endpoint of a Triton that serves `shapes` and, where there are weights, `yolov5n`."""
    folder = tmp_path_factory.mktemp("triton")
    export(SHAPES, "shapes", 320, folder / "models")
    if COCO.is_file():
        export(COCO, "yolov5n", 640, folder / "models")
    http, grpc, metrics = free_ports(3)
    process = triton.start(folder / "models", http, grpc, metrics, folder / "triton.log")
    try:
        wait_until_ready(process, f"127.0.0.1:{grpc}", folder / "triton.log")
        yield f"127.0.0.1:{grpc}"
    finally:
        process.terminate()
        process.wait(30)


def export(weights: Path, name: str, imgsz: int, repository: Path) -> None:
    options = ["--weights", str(weights), "--name", name, "--imgsz", str(imgsz), "--repository", str(repository)]
    done = subprocess.run([sys.executable, "-m", "export", *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    client = InferenceServerClient(url)
    until = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < until:
        try:
            if client.is_server_ready(client_timeout=1):
                client.close()
                return
        except InferenceServerException:
            pass
        time.sleep(0.2)
    pytest.fail(f"Triton is not ready: {triton.failure(log)}\n{log.read_text()[-3000:]}")


def test_the_served_shapes_score_as_in_pytorch(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    samples = str(train_shapes.HERE / "shapes")
    status = main(["--data", samples, "--model", "shapes", "--weights", str(SHAPES), "--triton", served])
    said = capsys.readouterr()
    assert status == 0, said.err
    lines = {line.split()[0]: line.split()[1:] for line in said.out.splitlines()}
    assert list(lines) == ["class", "all", *train_shapes.NAMES, "served"]
    assert float(lines["all"][2]) > 0.9
    assert "over 4 images" in said.err and "4/4" in said.err


def test_the_served_yolov5n_scores_as_in_pytorch_over_coco8(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not COCO.is_file() or not (SHARED / "images").is_dir():
        pytest.skip("YOLO_SHARED names no folder with weights/yolov5n.pt and images/")
    images = str(SHARED / "images")
    status = main(["--data", images, "--model", "yolov5n", "--weights", str(COCO), "--triton", served])
    said = capsys.readouterr()
    assert status == 0, said.err + said.out
    _, images_counted, objects, *values = said.out.splitlines()[1].split()
    assert (images_counted, objects) == ("8", "30")
    assert float(values[0]) == pytest.approx(float(values[2]), abs=0.005)
    assert float(values[1]) == pytest.approx(float(values[3]), abs=0.005)


def test_without_pytorch_only_the_served_half_is_shown(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    samples = str(train_shapes.HERE / "shapes")
    assert main(["--data", samples, "--model", "shapes", "--triton", served, "--served-only"]) == 0
    assert "PyTorch" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("label", "options", "message"),
    [
        ("3 0.5 0.5 0.1 0.1", [], "class 3 is none of the model's 0 to 2"),
        ("0 0.5 0.5 0.1 0.1", ["--model", "nobody"], "nobody"),
        ("0 0.5 0.5 0.1 0.1", ["--weights", "missing.pt"], "there is no file missing.pt"),
    ],
    ids=["class out of range", "unknown model", "no such checkpoint"],
)
def test_a_mistake_is_told_in_one_line(
    served: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], label: str, options: list[str], message: str
) -> None:
    (tmp_path / "a.png").write_bytes(encoded(64, 48))
    (tmp_path / "a.txt").write_text(label)
    given = ["--data", str(tmp_path), "--model", "shapes", "--weights", str(SHAPES), "--triton", served, *options]
    assert main(given) == 1
    said = capsys.readouterr()
    assert said.err.startswith("evaluate: ") and said.err.count("\n") == 1
    assert message in said.err and not said.out


def test_a_checkpoint_of_other_classes_is_refused(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not COCO.is_file():
        pytest.skip("YOLO_SHARED names no folder with weights/yolov5n.pt")
    samples = str(train_shapes.HERE / "shapes")
    assert main(["--data", samples, "--model", "shapes", "--weights", str(COCO), "--triton", served]) == 1
    assert "have different classes" in capsys.readouterr().err
