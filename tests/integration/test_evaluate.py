"""`make evaluate` against a real Triton."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from demo import train_shapes
from evaluation.evaluate import main
from export.sources.checkpoint import load
from local import triton
from local.ports import free_ports
from tests.support import export_models
from tests.support.datasets import write
from tests.support.pictures import encoded
from tests.support.shared import SHARED

ROOT = Path(__file__).parents[2]
SHAPES = train_shapes.HERE / "shapes.pt"
COCO = SHARED / "weights" / "yolov5n.pt"
PATIENCE_S = 90


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("triton") / "models"


@pytest.fixture(scope="module")
def served(models: Path) -> Iterator[str]:
    """gRPC endpoint of a Triton that serves `shapes` and, where there are weights, `yolov5n`."""
    folder = models.parent
    export(SHAPES, "shapes", 320, models)
    if COCO.is_file():
        export(COCO, "yolov5n", 640, models)
    http, grpc, metrics = free_ports(3)
    process = triton.start(models, http, grpc, metrics, folder / "triton.log")
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
    assert list(lines) == ["class", "all", *train_shapes.NAMES, "from", "the", "one", "served"]
    assert float(lines["all"][2]) > 0.9
    assert "over 4 images of val of" in said.err and "4/4" in said.err


def coco8(root: Path, *, other_forms: bool) -> Path:
    """COCO8 as a data set with splits: all in val, or five images there and three in test.

    With `other_forms` there are a TIFF file, polygons, rows twice, folders in folders, a background and a list, too.
    """
    if not COCO.is_file() or not (SHARED / "images").is_dir():
        pytest.skip("YOLO_SHARED names no folder with weights/yolov5n.pt and images/")
    for number, source in enumerate(sorted((SHARED / "images").glob("coco_*.jpg"))):
        place = ("test" if number > 4 else "val", "more" if number % 2 else "") if other_forms else ("val",)
        rows = source.with_suffix(".txt").read_text().splitlines()
        if other_forms:
            rows = [*(polygon(row) if number == 3 else row for row in rows)]
            rows.append(rows[0])
        image = root.joinpath("images", *place, source.stem + (".tif" if other_forms and number == 2 else ".jpg"))
        image.parent.mkdir(parents=True, exist_ok=True)
        if image.suffix == ".tif":
            Image.open(source).save(image)
        else:
            image.write_bytes(source.read_bytes())
        write(root.joinpath("labels", *place), {f"{source.stem}.txt": "\n".join(rows)})
    if other_forms:
        write(root / "images/val", {"dog.jpg": (SHARED / "images/dog.jpg").read_bytes()})
    tests = "".join(f"./{path.relative_to(root)}\n" for path in sorted((root / "images").glob("test/**/*.jpg")))
    names = json.dumps(dict(enumerate(load(COCO).labels)))
    described = f"path: .\ntrain: images/val\nval: images/val\ntest: test.txt\nnames: {names}\n"
    return write(root, {"test.txt": tests, "data.yaml": described}) / "data.yaml"


def polygon(row: str) -> str:
    """A diamond with the same box around it."""
    class_id, *box = row.split()
    x, y, w, h = map(float, box)
    return f"{class_id} {x - w / 2:.6f} {y:.6f} {x:.6f} {y - h / 2:.6f} {x + w / 2:.6f} {y:.6f} {x:.6f} {y + h / 2:.6f}"


@pytest.mark.parametrize(
    ("other_forms", "split", "images", "objects", "val_py"),
    [
        (False, "val", 8, 30, (0.7966, 0.5507)),
        (True, "val", 6, 15, (0.9283, 0.6937)),
        (True, "test", 3, 15, (0.6334, 0.3977)),
    ],
    ids=["COCO8", "val", "test"],
)
def test_the_figures_are_those_of_val_py(
    served: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    other_forms: bool,
    split: str,
    images: int,
    objects: int,
    val_py: tuple[float, float],
) -> None:
    """`val_py` are the mAP50 and mAP50-95 of YOLOv5's own val.py (its branch master) on the same files, in float32."""
    data = coco8(tmp_path, other_forms=other_forms)
    options = ["--model", "yolov5n", "--weights", str(COCO), "--triton", served]
    status = main(["--data", str(data), "--split", split, *options])
    said = capsys.readouterr()
    assert status == 0, said.err + said.out
    _, images_counted, objects_counted, *values = said.out.splitlines()[1].split()
    assert (int(images_counted), int(objects_counted)) == (images, objects)
    assert [float(value) for value in values[2:]] == pytest.approx(val_py, abs=0.001)
    costs = [line.split()[-2:] for line in said.out.splitlines() if line.startswith("  ")]
    total = [sum(float(cost[column]) for cost in costs) for column in (0, 1)]
    assert len(costs) == 4
    assert total == pytest.approx([float(values[0]) - val_py[0], float(values[1]) - val_py[1]], abs=0.001)
    assert "letterboxed and cut alike" in said.out.splitlines()[-1]
    assert ("TIFF" in said.err) == (other_forms and split == "val")


def test_classes_in_another_order_are_refused_by_name_unless_asked_not_to(
    served: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = train_shapes.HERE / "shapes"
    names = [*train_shapes.NAMES[1:], train_shapes.NAMES[0]]
    write(tmp_path, {"data.yaml": f"path: {images}\nval: images\nnames: {names}"})
    options = ["--data", str(tmp_path), "--model", "shapes", "--triton", served, "--served-only"]
    assert main(options) == 1
    said = capsys.readouterr()
    assert said.err.startswith("evaluate: classes differ: 0 is 'square' in data.yaml and 'circle' in the model")
    assert said.err.count("\n") == 1 and not said.out
    assert main([*options, "--ignore-names"]) == 0


def test_the_score_is_kept_in_the_model_repository(served: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_REPOSITORY", str(models))
    samples = str(train_shapes.HERE / "shapes")
    assert main(["--data", samples, "--model", "shapes", "--triton", served, "--served-only"]) == 0
    kept = json.loads((models / "shapes/1/evaluation.json").read_text())
    assert (kept["images"], kept["split"]) == (4, "val") and kept["map50"] > 0.9


def test_without_pytorch_only_the_served_half_is_shown(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    samples = str(train_shapes.HERE / "shapes")
    assert main(["--data", samples, "--model", "shapes", "--triton", served, "--served-only"]) == 0
    assert "PyTorch" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("label", "options", "message"),
    [
        ("3 0.5 0.5 0.1 0.1", [], "class 3 is none of the model's 0 to 2"),
        ("0 0.5 0.5 0.1 0.1", ["--model", "nobody"], "Triton serves no nobody"),
        ("0 0.5 0.5 0.1 0.1", ["--model", "nobody"], "MODEL= names the served model"),
        ("0 0.5 0.5 0.1 0.1", ["--weights", "missing.pt"], "there is no file missing.pt"),
        ("0 0.5 0.5 0.1 0.1", ["--weights", "missing.pt"], "or SERVED_ONLY=1 to score the served model alone"),
        ("0 0.5 0.5 0.1 0.1", ["--names", "a,b"], "2 names for 3 classes"),
        ("0 0.5 0.5 0.1 0.1", ["--names", "a,b,c"], "have different classes"),
    ],
    ids=["class out of range", "unknown model", "what to do", "no such checkpoint", "without", "few names", "names"],
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
    assert "make run" not in said.err


def test_an_onnx_file_is_no_checkpoint_to_compare_with(
    served: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = export_models.save_onnx(export_models.OriginalTable(export_models.anchored()), tmp_path / "a.onnx", size=320)
    given = ["--data", str(train_shapes.HERE / "shapes"), "--model", "shapes", "--triton", served]
    for name in ("a.onnx", "a.pt"):
        path = path.rename(tmp_path / name)
        assert main([*given, "--weights", str(path)]) == 1
        said = capsys.readouterr().err
        assert "is an ONNX file, and PyTorch runs the .pt" in said and "or SERVED_ONLY=1" in said
    assert main([*given, "--weights", str(path), "--served-only", "1"]) == 0


def test_a_checkpoint_of_other_classes_is_refused(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not COCO.is_file():
        pytest.skip("YOLO_SHARED names no folder with weights/yolov5n.pt")
    samples = str(train_shapes.HERE / "shapes")
    assert main(["--data", samples, "--model", "shapes", "--weights", str(COCO), "--triton", served]) == 1
    assert "have different classes" in capsys.readouterr().err
