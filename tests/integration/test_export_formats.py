"""Every source through the whole command, without a server: written, verified, published."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export import declared, publish
from export.config import Serving
from export.declared import parse
from export.errors import ExportError, VerificationError
from export.graph.deployed import Deployed
from export.graph.onnx_writer import write
from export.graph.session import Deployed as Written
from export.options import Options
from export.sources import checkpoint, class_names
from export.sources.layers import AnchorHead
from export.sources.open import open_source
from export.sources.source import Source
from tests.support import export_models as models

SHAPES = Path(__file__).parents[2] / "demo" / "shapes.pt"

SOURCES: dict[str, Callable[[Path], Path]] = {
    "original": lambda folder: models.save(models.anchored(), folder / "o.pt", models.ORIGINAL),
    "ultralytics": lambda folder: SHAPES,
    "onnx of yolov5": lambda folder: models.save_onnx(
        models.OriginalTable(models.anchored()), folder / "o.onnx", size=None
    ),
    "onnx of ultralytics": lambda folder: models.save_onnx(
        models.UltralyticsTable(models.anchor_free()), folder / "u.onnx", size=None
    ),
}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Triton, and few images."""
    monkeypatch.setenv("TRITON_URL", "127.0.0.1:9")
    monkeypatch.setenv("YOLO_SHARED", str(tmp_path))


def options(repository: Path, **given: object) -> Options:
    return Options(name="m", repository=repository / "repository", **given)  # type: ignore[arg-type]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("square", "imgsz", "batch"), [(True, 320, 1), (True, 640, 4), (False, 320, 4), (False, 640, 1)]
)
@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_exports_and_verifies(tmp_path: Path, kind: str, square: bool, imgsz: int, batch: int) -> None:
    source = open_source(SOURCES[kind](tmp_path))
    asked = options(tmp_path, square=square, imgsz=imgsz, batch=batch)
    assert publish.publish(source, asked, lambda line: None) == 1
    model = tmp_path / "repository" / "m"
    told = json.loads((model / "1" / "verify.json").read_text())["answers"]["ONNX Runtime"]
    assert told["matched"] >= 10 and told["unmatched"] == 0
    rows = Written(model / "1" / "model.onnx").batch(np.zeros((batch, imgsz, imgsz, 3), np.uint8))
    assert rows.shape == (batch, 1000, 6) and rows.dtype == np.float32
    side = imgsz if square else -1
    assert shapes(model / "1" / "model.onnx") == [(-1, side, side, 3), (-1, 1000, 6)]
    assert (model / "1" / "labels.txt").read_text().splitlines() == list(source.labels)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_large_input_has_more_rows(tmp_path: Path, kind: str) -> None:
    """Two, or with three anchors three and a half, times as many as at 640."""
    size = 320 if kind.startswith("onnx") else 1088
    publish.publish(open_source(SOURCES[kind](tmp_path)), options(tmp_path, imgsz=size, keep=1), lambda line: None)
    (_, rows, columns) = shapes(tmp_path / "repository" / "m" / "1" / "model.onnx")[1]
    expected = {"original": 2890, "ultralytics": 1000}.get(kind, 1000)
    assert (rows, columns) == (expected, 6)


@pytest.mark.parametrize("kind", SOURCES)
def test_the_density_is_that_of_the_sources_own_candidates(tmp_path: Path, kind: str) -> None:
    source = open_source(SOURCES[kind](tmp_path))
    assert len(source.candidates(np.zeros((320, 320, 3), np.uint8))) == round(source.density * 320 * 320)


def test_rows_can_be_asked_for(tmp_path: Path) -> None:
    publish.publish(open_source(SHAPES), options(tmp_path, imgsz=320, rows=1500), lambda line: None)
    assert shapes(tmp_path / "repository" / "m" / "1" / "model.onnx")[1] == (-1, 1500, 6)


@pytest.mark.parametrize("kind", ["original", "ultralytics"])
def test_an_input_need_not_be_square(tmp_path: Path, kind: str) -> None:
    publish.publish(open_source(SOURCES[kind](tmp_path)), options(tmp_path, imgsz=(256, 416)), lambda line: None)
    model = tmp_path / "repository" / "m"
    assert shapes(model / "1" / "model.onnx") == [(-1, 256, 416, 3), (-1, 1000, 6)]
    told = json.loads((model / "1" / "verify.json").read_text())
    assert told["answers"]["ONNX Runtime"]["matched"] >= 10
    assert told["export"]["input"] == "256x416 fixed"


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("layout", ["original", "ultralytics"])
def test_a_fixed_batch_is_freed(tmp_path: Path, layout: str, batch: int) -> None:
    table = (
        models.OriginalTable(models.anchored())
        if layout == "original"
        else models.UltralyticsTable(models.anchor_free())
    )
    source = open_source(models.save_onnx(table, tmp_path / "fixed.onnx", size=320, batch=batch))
    assert (source.fixed_hw, source.one_image) == ((320, 320), False)
    publish.publish(source, options(tmp_path), lambda line: None)
    rows = Written(tmp_path / "repository/m/1/model.onnx").batch(np.zeros((3, 320, 320, 3), np.uint8))
    assert rows.shape == (3, 1000, 6)


def fixed_batch(folder: Path, batch: int) -> Path:
    table = models.FixedBatch(models.OriginalTable(models.anchored()), 5 + len(models.NAMES))
    return models.save_onnx(table, folder / "fixed.onnx", size=320, batch=batch)


def test_a_batch_that_cannot_be_freed_stands_in_dims(tmp_path: Path) -> None:
    source = open_source(fixed_batch(tmp_path, 1))
    assert source.one_image
    publish.publish(source, options(tmp_path), lambda line: None)
    model = tmp_path / "repository" / "m"
    config = parse((model / "config.pbtxt").read_text())
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert (list(config.input[0].dims), list(config.output[0].dims)) == ([1, 320, 320, 3], [1, 1000, 6])
    assert shapes(model / "1" / "model.onnx") == [(1, 320, 320, 3), (1, 1000, 6)]


def test_a_batch_of_several_that_cannot_be_freed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="takes 2 images at a time"):
        open_source(fixed_batch(tmp_path, 2))


def shapes(file: Path) -> list[tuple[int, ...]]:
    graph = declared.graph_of(onnx.load(str(file)))
    return [tensor.shape for tensor in (*graph.inputs, *graph.outputs)]


def test_small_inputs_are_filled_up_with_zero_rows(tmp_path: Path) -> None:
    deployed = Deployed(models.anchored())
    write(deployed, tmp_path / "model.onnx", size_hw=(640, 640), fixed=False)
    rows = Written(tmp_path / "model.onnx")(np.zeros((64, 96, 3), np.uint8))
    available = 3 * (8 * 12 + 4 * 6 + 2 * 3)
    assert (rows[:available, 4] > 0).all() and not rows[available:].any()
    assert (np.diff(rows[:, 4]) <= 0).all()


def test_half_precision_is_written_and_verified(tmp_path: Path) -> None:
    publish.publish(open_source(SHAPES), options(tmp_path, precision="fp16", imgsz=320), lambda line: None)
    file = tmp_path / "repository/m/1/model.onnx"
    assert shapes(file)[1] == (-1, 1000, 6)
    kinds = {entry.data_type for entry in onnx.load(str(file)).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds


def swapped_channels(source: Source) -> Callable[[Path, Serving], None]:
    def damaged(path: Path, serving: Serving) -> None:
        network = checkpoint.load(source.path).network
        first = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
        first.weight = torch.nn.Parameter(first.weight.flip(1), requires_grad=False)
        write(Deployed(network), path, size_hw=serving.size_hw, fixed=serving.fixed)

    return damaged


def wrong_anchors(source: Source) -> Callable[[Path, Serving], None]:
    def damaged(path: Path, serving: Serving) -> None:
        network = checkpoint.load(source.path).network
        assert isinstance(network.head, AnchorHead)
        network.head.anchors *= 1.1
        write(Deployed(network), path, size_hw=serving.size_hw, fixed=serving.fixed)

    return damaged


@pytest.mark.parametrize("damage", [swapped_channels, wrong_anchors])
def test_a_damaged_export_is_refused_and_nothing_is_published(
    tmp_path: Path, damage: Callable[[Source], Callable[[Path, Serving], None]]
) -> None:
    source = open_source(models.save(models.anchored(), tmp_path / "m.pt", models.ORIGINAL))
    asked = options(tmp_path, imgsz=320)
    publish.publish(source, asked, lambda line: None)
    before = tree(tmp_path)
    with pytest.raises(VerificationError, match="nothing was published") as told:
        publish.publish(dataclasses.replace(source, write=damage(source)), asked, lambda line: None)
    assert "\n" not in str(told.value)
    assert tree(tmp_path) == before


def free_output(source: Source) -> Callable[[Path, Serving], None]:
    """As the exporter wrote it once."""

    def written(path: Path, serving: Serving) -> None:
        source.write(path, serving)
        model = onnx.load(str(path))
        for dimension in model.graph.output[0].type.tensor_type.shape.dim[1:]:
            dimension.dim_param = "unknown"
        onnx.save(model, str(path))

    return written


def test_what_the_real_backend_would_refuse_is_not_published(tmp_path: Path) -> None:
    source = open_source(SHAPES)
    with pytest.raises(ExportError, match=r"would refuse the model: .* \(shape \[-1,-1,-1\]\).*; nothing was"):
        publish.publish(dataclasses.replace(source, write=free_output(source)), options(tmp_path), lambda line: None)
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"imgsz": 500}, "no multiple of the model's stride 32; use 480 or 512"),
        ({"precision": "fp16"}, "for PRECISION=fp16 give the .pt"),
    ],
    ids=["imgsz", "precision"],
)
def test_what_does_not_fit_the_source_is_told(tmp_path: Path, given: dict[str, object], said: str) -> None:
    source = open_source(models.save_onnx(models.OriginalTable(models.anchored()), tmp_path / "a.onnx", size=None))
    with pytest.raises(ExportError, match=said):
        publish.publish(source, options(tmp_path, **given), lambda line: None)


def test_a_file_in_half_precision_is_not_taken_for_a_full_one(tmp_path: Path) -> None:
    source = dataclasses.replace(open_source(SHAPES), fixed_precision="fp16")
    with pytest.raises(ExportError, match="computes in float16; for PRECISION=fp32 give"):
        publish.publish(source, options(tmp_path, precision="fp32"), lambda line: None)


def test_a_file_of_fixed_size_has_no_other(tmp_path: Path) -> None:
    source = open_source(models.save_onnx(models.OriginalTable(models.anchored()), tmp_path / "a.onnx", size=320))
    with pytest.raises(ExportError, match="was written for images 320 high and 320 wide"):
        publish.publish(source, options(tmp_path, imgsz=640), lambda line: None)


@pytest.mark.parametrize(
    ("names", "said"),
    [(None, "no class names"), ({0: "a"}, r"neither \(1, N, 6\) nor \(1, 5, N\)")],
    ids=["none", "too few"],
)
def test_an_onnx_file_without_the_names_of_its_classes_is_refused(tmp_path: Path, names: object, said: str) -> None:
    path = models.save_onnx(models.OriginalTable(models.anchored()), tmp_path / "a.onnx", size=320, names=names)
    with pytest.raises(ExportError, match=said):
        open_source(path)


def test_an_onnx_file_of_something_else_is_refused(tmp_path: Path) -> None:
    deployed = tmp_path / "deployed.onnx"
    write(Deployed(models.anchored()), deployed, size_hw=(320, 320), fixed=True)
    with pytest.raises(ExportError, match="does not take one float image"):
        open_source(deployed)
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(ExportError, match="no ONNX file, or a damaged one"):
        open_source(tmp_path / "text.onnx")


def test_an_answer_has_a_number_for_every_label(tmp_path: Path) -> None:
    source = replace(open_source(SHAPES), labels=tuple(f"c{i}" for i in range(7000)))
    assert publish.serving_of(options(tmp_path, imgsz=320), source, lambda line: None).rows == 1167
    with pytest.raises(ExportError, match="ROWS=1000 is too few for 7000 classes; give 1167 or more"):
        publish.serving_of(options(tmp_path, imgsz=320, rows=1000), source, lambda line: None)


def test_names_that_are_not_numbered_from_0_are_refused(tmp_path: Path) -> None:
    network = models.anchored()
    network.names = {1: "disc", 2: "box", 3: "triangle"}
    with pytest.raises(
        ExportError, match="the classes are numbered 1, 2, 3, not 0 to 2; give the names of its 3 classes with NAMES="
    ):
        open_source(models.save(network, tmp_path / "a.pt", models.ORIGINAL))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({0: "disc", 1: None, 2: "box"}, "no name for class 1"),
        (["disc", "\ud800", "box"], "is no Unicode text"),
        (["disc", "box"], "2 names for 3 classes"),
        (None, "no class names"),
    ],
    ids=["None", "surrogate", "few", "none"],
)
def test_a_class_without_a_name_is_told_and_can_be_given_one(tmp_path: Path, names: object, said: str) -> None:
    network = models.anchored()
    network.names = names
    path = models.save(network, tmp_path / "a.pt", models.ORIGINAL)
    with pytest.raises(ExportError, match=f"a.pt: .*{said}.*; give the names of its 3 classes with NAMES="):
        open_source(path)
    assert open_source(path, ("a", "b", "c")).labels == ("a", "b", "c")


def test_a_file_is_taken_for_what_it_is_whatever_its_name(tmp_path: Path) -> None:
    checkpoint_ = models.save(models.anchored(), tmp_path / "a.pt", models.ORIGINAL).rename(tmp_path / "a.onnx")
    assert len(open_source(checkpoint_).labels) == 3
    graph = models.save_onnx(models.OriginalTable(models.anchored()), tmp_path / "b.onnx", size=320)
    assert open_source(graph.rename(tmp_path / "b.pt")).fixed_hw == (320, 320)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!doctype html><p>", "is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
        (b"\xff\xd8\xff\xe0", "is a picture"),
        (b"ftrt" * 9, "is a TensorRT engine"),
        (b"PK\3\4" + bytes(99), "is damaged: its end is missing"),
    ],
    ids=["HTML", "LFS", "picture", "engine", "cut"],
)
def test_another_file_with_the_name_of_an_onnx_file_is_called_what_it_is(
    tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ExportError, match=f"a.onnx {said}"):
        open_source(tmp_path / "a.onnx")


def test_names_numbered_in_text_keep_their_order(tmp_path: Path) -> None:
    names = {str(number): f"c{number}" for number in (*range(5, 12), *range(5))}
    assert class_names.in_order(names) == tuple(f"c{number}" for number in range(12))
