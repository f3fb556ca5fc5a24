import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from export.errors import ExportError
from export.sources import checkpoint, reference
from tests.support import export_models as models

SHAPES = Path(__file__).parents[2] / "demo" / "shapes.pt"


def image() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


def test_an_original_checkpoint_loads(tmp_path: Path) -> None:
    path = models.save(models.anchored(), tmp_path / "a.pt", models.ORIGINAL)
    found = checkpoint.load(path)
    assert (found.stride, found.labels) == (32, ("disc", "box", "tri angle"))
    expected = reference.candidates(models.anchored().half().float(), image())
    np.testing.assert_array_equal(reference.candidates(found.network, image()), expected)


def test_a_checkpoint_of_ultralytics_loads(tmp_path: Path) -> None:
    found = checkpoint.load(models.save(models.anchor_free(), tmp_path / "a.pt", models.ULTRALYTICS))
    assert (found.stride, found.labels) == (32, ("disc", "box", "tri angle"))
    assert reference.candidates(found.network, image()).shape == (8 * 12 + 4 * 6 + 2 * 3, 6)


def test_the_largest_stride_of_a_p6_model_is_64(tmp_path: Path) -> None:
    path = models.save(models.anchored((8, 16, 32, 64)), tmp_path / "a.pt", models.ORIGINAL)
    assert checkpoint.load(path).stride == 64


def test_the_stride_is_no_less_than_that_of_the_network_below_the_head(tmp_path: Path) -> None:
    path = models.save(models.anchored((8, 16)), tmp_path / "a.pt", models.ORIGINAL)
    assert checkpoint.load(path).stride == 32


def test_the_average_of_the_weights_is_preferred(tmp_path: Path) -> None:
    average = models.anchored()
    average.names = {0: "a", 1: "b", 2: "c"}
    path = models.save(models.anchored(), tmp_path / "a.pt", models.ORIGINAL, ema=average.half())
    assert checkpoint.load(path).labels == ("a", "b", "c")


def test_what_training_leaves_in_a_checkpoint_does_no_harm(tmp_path: Path) -> None:
    path = models.save(
        models.anchored(),
        tmp_path / "a.pt",
        models.ORIGINAL,
        best_fitness=np.array([0.5]),
        fitness=np.float64(0.5),
        opt={"save_dir": Path("runs/train")},
    )
    assert len(checkpoint.load(path).labels) == 3


def test_the_shapes_model_loads() -> None:
    assert checkpoint.load(SHAPES).stride == 32


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_that_would_run_code_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, "evil.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ExportError, match=r"evil.pt is refused: it needs posix.mkdir"):
        checkpoint.load(Path("evil.pt"))
    assert not Path("harm").exists()


def test_a_layer_that_is_not_of_yolov5_is_refused_by_name(tmp_path: Path) -> None:
    names = {**models.ORIGINAL, "Conv": ("models.common", "CBAM")}
    path = models.save(models.anchored(), tmp_path / "a.pt", names)
    with pytest.raises(ExportError, match=r"refused: it needs models.common.CBAM, which is no part of YOLOv5"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "is an empty file", id="empty"),
        pytest.param(b"hello world, this is no checkpoint", "is a text file", id="text"),
        pytest.param(pickle.dumps({"model": 1}), "a pickle, but no PyTorch checkpoint", id="pickle"),
        pytest.param(SHAPES.read_bytes()[:100_000], "is damaged: its end is missing", id="cut"),
        pytest.param(bytes(range(200, 256)) * 8, "is no PyTorch checkpoint", id="bytes"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_told_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(ExportError, match=said) as told:
        checkpoint.load(path)
    assert "\n" not in str(told.value)


def test_a_zip_without_weights_is_told_in_one_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(ExportError, match="a zip archive with no PyTorch checkpoint in it"):
        checkpoint.load(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param({"weight": torch.zeros(3)}, "no model in it", id="state dict"),
        pytest.param(torch.zeros(3), "holds a Tensor", id="tensor"),
        pytest.param({"model": torch.nn.Conv2d(1, 1, 1)}, "no model in it, but a Conv2d", id="a layer"),
    ],
)
def test_a_checkpoint_without_a_model_is_told_in_one_line(tmp_path: Path, content: object, said: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ExportError, match=said):
        checkpoint.load(tmp_path / "a.pt")


@pytest.mark.parametrize("names", [None, [], ["only one"], {0: "a", 1: "b", 2: " "}], ids=str)
def test_classes_without_names_are_refused(tmp_path: Path, names: object) -> None:
    network = models.anchored()
    network.names = names
    with pytest.raises(ExportError, match="give the names of its 3 classes with NAMES="):
        checkpoint.load(models.save(network, tmp_path / "a.pt", models.ORIGINAL))


def test_a_name_of_two_lines_stays_one_label(tmp_path: Path) -> None:
    network = models.anchored()
    network.names = ["two\nlines", "b", "c"]
    assert checkpoint.load(models.save(network, tmp_path / "a.pt", models.ORIGINAL)).labels[0] == "two lines"


def test_weights_are_looked_for_here_then_in_the_shared_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YOLO_SHARED", str(tmp_path / "shared"))
    shared, own = Path(tmp_path / "shared/weights/yolov5n.pt"), Path("weights/yolov5nu.pt")
    for path in (shared, own):
        path.parent.mkdir(parents=True)
    shared.touch()
    assert checkpoint.find("yolov5n", None, print) == shared
    own.touch()
    assert checkpoint.find("yolov5n", None, print) == own


def test_a_model_that_is_nowhere_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YOLO_SHARED", str(tmp_path))
    with pytest.raises(ExportError, match=r"put helmets.pt into weights/, give WEIGHTS="):
        checkpoint.find("helmets", None, print)
    with pytest.raises(ExportError, match=r"there is no file nowhere.pt"):
        checkpoint.find("yolov5n", "nowhere.pt", print)


def test_without_weights_and_network_the_three_ways_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YOLO_SHARED", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(ExportError, match=r"connect to the network.*into weights/; or give WEIGHTS=") as told:
        checkpoint.find("yolov5s", None, print)
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []
