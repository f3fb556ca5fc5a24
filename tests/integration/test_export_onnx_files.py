"""ONNX files of all kinds: exported and verified, or refused with one line that is true and says what to do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional

from export import facts, publish
from export.declared import parse
from export.errors import ExportError
from export.graph.onnx_writer import rename, trace
from export.graph.session import Deployed
from export.options import Options
from export.sources.open import open_source
from tests.support import export_models as models

ONE, TWO = {0: "helmet"}, {0: "helmet", 1: "head"}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Triton, and few images."""
    monkeypatch.setenv("TRITON_URL", "127.0.0.1:9")
    monkeypatch.setenv("YOLO_SHARED", str(tmp_path))


def published(path: Path, names: tuple[str, ...] | None = None, **given: object) -> Path:
    """The folder of the version that an export makes of a file."""
    options = Options(name="m", repository=path.parent / "repository", **given)  # type: ignore[arg-type]
    version = publish.publish(open_source(path, names), options, lambda line: None)
    return options.repository / "m" / str(version)


def refused(path: Path, said: str, names: tuple[str, ...] | None = None) -> None:
    with pytest.raises(ExportError) as told:
        open_source(path, names)
    assert said in str(told.value) and path.name in str(told.value)
    assert "\n" not in str(told.value)


def original() -> nn.Module:
    return models.OriginalTable(models.anchored())


def ultralytics() -> nn.Module:
    return models.UltralyticsTable(models.anchor_free())


class Doubled(nn.Module):
    """The table behind an enlargement, by a factor or to a size, as in the necks of the networks."""

    def __init__(self, table: nn.Module, by_size: bool = False) -> None:
        super().__init__()
        self.table, self.by_size = table, by_size

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if self.by_size:
            large = functional.interpolate(images, size=(2 * height, 2 * width), mode="nearest")
        else:
            large = functional.interpolate(images, scale_factor=2, mode="nearest")
        found: Tensor = self.table(functional.max_pool2d(large, 2, 2))
        return found


@pytest.mark.parametrize(
    ("rows", "names", "metadata"),
    [
        (300, ONE, {"args": "{'nms': True}", "task": "detect"}),
        (6300, ONE, {"args": '{"nms": true}'}),
        (6300, ONE, {"end2end": "True"}),
        (300, ONE, {}),
        (300, None, {}),
        (100, TWO, {}),
    ],
    ids=["args", "args as JSON", "end2end", "one class", "no names", "seven columns"],
)
def test_nms_inside_is_told(tmp_path: Path, rows: int, names: dict[int, str], metadata: dict[str, str]) -> None:
    table = models.Given(models.spread(rows, len(names or ONE)))
    path = models.save_onnx(table, tmp_path / "a.onnx", size=320, names=names, metadata=metadata)
    refused(path, "has NMS inside")
    refused(path, "has NMS inside", tuple((names or ONE).values()))


class Turned(nn.Module):
    """The table with its last two axes swapped."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table = table

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.table(images)
        return found.transpose(1, 2)


@pytest.mark.parametrize("table", [original, ultralytics])
def test_swapped_axes_are_told(tmp_path: Path, table: Callable[[], nn.Module]) -> None:
    refused(models.save_onnx(Turned(table()), tmp_path / "a.onnx", size=320), "its last two axes are swapped")


@pytest.mark.parametrize("name", ["images", "detections"])
def test_inner_tensors_may_have_our_names(tmp_path: Path, name: str) -> None:
    def called(model: onnx.ModelProto) -> None:
        inner = next(node.output[0] for node in model.graph.node if node.op_type == "Conv")
        given = model.graph.input[0].name
        rename(model.graph, {given: "x"})
        rename(model.graph, {inner: name})

    path = models.save_onnx(original(), tmp_path / "a.onnx", size=320)
    published(models.rewritten(path, called))


class Scaled(nn.Module):
    """Takes pixels from 0 to 255, and makes the table's of them."""

    def __init__(self, table: nn.Module, scale: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.table, self.scale = table, scale

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.table(self.scale(images))
        return found


@pytest.mark.parametrize(
    ("scale", "kind"),
    [
        (lambda images: images / 255, "Div"),
        (lambda images: images * (1 / 255), "Mul"),
        (lambda images: (images - 127.5) / 127.5, "Sub"),
    ],
    ids=["divides", "multiplies", "centres"],
)
def test_pixels_that_are_scaled_inside_are_told(tmp_path: Path, scale: Callable[[Tensor], Tensor], kind: str) -> None:
    path = models.save_onnx(Scaled(original(), scale), tmp_path / "a.onnx", size=320)
    refused(path, f"scales the pixels itself (a node {kind} behind its input)")


def test_nms_of_tensorrt_is_told_though_nothing_here_runs_it(tmp_path: Path) -> None:
    def append(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("EfficientNMS_TRT", ["output0"], ["found"], domain="TRT"))
        model.graph.output[0].name = "found"

    path = models.save_onnx(original(), tmp_path / "a.onnx", size=320)
    refused(models.rewritten(path, append), "has NMS inside")


def test_one_class_without_nms_is_exported(tmp_path: Path) -> None:
    table = models.Given(models.spread(6300, 1))
    published(models.save_onnx(table, tmp_path / "a.onnx", size=320, names=ONE))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("segment", "a segmentation model"),
        ("pose", "a pose model"),
        ("classify", "a classification model"),
        ("obb", "a model of rotated boxes"),
        ("track", "the task 'track'"),
    ],
)
def test_another_task_is_told_by_name(tmp_path: Path, task: str, said: str) -> None:
    refused(models.save_onnx(original(), tmp_path / "a.onnx", size=320, metadata={"task": task}), said)


def columns(change: Callable[[Tensor], Tensor]) -> nn.Module:
    return models.Given(change(models.spread(6300, 3)))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (models.Given(models.spread(6300, 35), torch.zeros(1, 32, 80, 80)), "a segmentation model"),
        (models.Given(torch.zeros(1, 3, 40, 40, 8)), "one table of candidates"),
        (models.Given(torch.zeros(1, 1000)), "one table of candidates"),
        (columns(lambda table: table / torch.tensor([320.0] * 4 + [1] * 4)), "not in pixels"),
        (columns(lambda table: torch.cat((table[..., :2], table[..., :2] + 20, table[..., 4:]), 2)), "corners"),
        (columns(lambda table: torch.cat((table[..., :4], table[..., 4:] * 9 - 5), 2)), "not from 0 to 1"),
    ],
    ids=["masks", "raw maps", "classes", "fractions", "corners", "logits"],
)
def test_other_answers_are_refused(tmp_path: Path, table: nn.Module, said: str) -> None:
    refused(models.save_onnx(table, tmp_path / "a.onnx", size=320), said)


def test_the_maps_of_the_levels_beside_the_table_are_left_away(tmp_path: Path) -> None:
    maps = (torch.zeros(1, 3, side, side, 8) for side in (40, 20, 10))
    path = models.save_onnx(models.Given(models.spread(6300, 3), *maps), tmp_path / "a.onnx", size=320)
    model = onnx.load(str(published(path) / "model.onnx"))
    assert [output.name for output in model.graph.output] == ["detections"]


@pytest.mark.parametrize("tool", [original, ultralytics])
def test_names_can_be_given(tmp_path: Path, tool: Callable[[], nn.Module]) -> None:
    path = models.save_onnx(tool(), tmp_path / "a.onnx", size=None, names=None)
    refused(path, "no class names; give the names of its 3 classes with NAMES=")
    refused(path, "it seems to have 3 classes", ("a",))
    folder = published(path, ("a", "b, c", "d"))
    assert (folder / "labels.txt").read_text() == "a\nb, c\nd\n"


@pytest.mark.parametrize(
    ("names", "labels"),
    [('{"0": "a", "1": "b", "2": "c"}', "a\nb\nc\n"), ("['a', 'b', 'c']", "a\nb\nc\n")],
    ids=["JSON", "list"],
)
def test_names_in_other_notations(tmp_path: Path, names: str, labels: str) -> None:
    folder = published(models.save_onnx(original(), tmp_path / "a.onnx", size=320, names=names))
    assert (folder / "labels.txt").read_text() == labels


def test_names_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    path = models.save_onnx(original(), tmp_path / "a.onnx", size=320, names="{0: 'a', 1: 'b")
    refused(path, "its class names cannot be read ({0: 'a', 1: 'b); give the names of its 3 classes with NAMES=")
    assert (published(path, ("a", "b", "c")) / "labels.txt").read_text() == "a\nb\nc\n"


def test_names_that_are_no_unicode_are_told(tmp_path: Path) -> None:
    path = models.save_onnx(original(), tmp_path / "a.onnx", size=320, names="['caf_', 'b', 'c']")
    path.write_bytes(path.read_bytes().replace(b"caf_", b"caf\xe9"))
    refused(path, "its class names cannot be read (")
    refused(path, "give the names of its 3 classes with NAMES=")
    assert facts.of(onnx.load(str(path))).stride == 32


@pytest.mark.parametrize("task", ["None", "Detection", "object-detection", "'detect'", "null"])
def test_detection_by_other_words_is_detection(tmp_path: Path, task: str) -> None:
    path = models.save_onnx(original(), tmp_path / "a.onnx", size=320, metadata={"task": task})
    assert len(open_source(path).labels) == 3


def test_names_with_a_gap_are_told(tmp_path: Path) -> None:
    path = models.save_onnx(original(), tmp_path / "a.onnx", size=320, names={0: "a", 2: "b", 3: "c"})
    refused(path, "the classes are numbered 0, 2, 3, not 0 to 2; give the names of its 3 classes with NAMES=")


@pytest.mark.parametrize("text", ["32.0", "[8, 16, 32]", "tensor([8., 16., 32.])", "32", "none"])
def test_the_stride_in_any_notation(tmp_path: Path, text: str) -> None:
    assert (
        open_source(models.save_onnx(original(), tmp_path / "a.onnx", size=None, metadata={"stride": text})).stride
        == 32
    )


def test_a_stride_that_nobody_tells_is_found(tmp_path: Path) -> None:
    table = models.OriginalTable(models.anchored((8, 16, 32, 64)))
    assert open_source(models.save_onnx(table, tmp_path / "a.onnx", size=None, metadata={"stride": ""})).stride in (
        32,
        64,
    )
    published(tmp_path / "a.onnx", imgsz=320)


@pytest.mark.parametrize("tool", [original, ultralytics])
@pytest.mark.parametrize("opset", [9, 10, 11, 18])
def test_every_opset_is_taken(tmp_path: Path, tool: Callable[[], nn.Module], opset: int) -> None:
    published(models.save_onnx(Doubled(tool()), tmp_path / "a.onnx", size=320, opset=opset))


@pytest.mark.parametrize("by_size", [False, True], ids=["factor", "size"])
@pytest.mark.parametrize("tool", [original, ultralytics])
@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_any_fixed_batch_is_freed(tmp_path: Path, tool: Callable[[], nn.Module], batch: int, by_size: bool) -> None:
    source = open_source(models.save_onnx(Doubled(tool(), by_size), tmp_path / "a.onnx", size=(192, 320), batch=batch))
    assert not source.one_image
    folder = published(tmp_path / "a.onnx")
    images = np.random.default_rng(0).integers(0, 256, (5, 192, 320, 3), np.uint8)
    answers = Deployed(folder / "model.onnx")
    np.testing.assert_allclose(answers.batch(images)[4], answers(images[4]), atol=1e-2)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_fixed_batch_of_free_sides_is_freed(tmp_path: Path, batch: int) -> None:
    images, path = torch.zeros(batch, 3, 320, 320), tmp_path / "a.onnx"
    model = trace(original(), images, "images", "output0", {2: "height", 3: "width"}, 17)
    helper.set_model_props(model, {"stride": "32", "names": str(models.NAMES)})
    onnx.save(model, str(path))
    published(path, imgsz=320)


@pytest.mark.parametrize(
    ("free", "imgsz", "sides"),
    [("height", (192, 320), (192, 320)), ("height", None, (320, 320)), ("width", (320, 192), (320, 192))],
)
def test_a_file_with_one_free_side_is_exported_with_fixed_ones(
    tmp_path: Path, free: str, imgsz: tuple[int, int] | None, sides: tuple[int, int]
) -> None:
    def fix(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[3 if free == "height" else 2].dim_value = 320

    path = models.rewritten(models.save_onnx(original(), tmp_path / "a.onnx", size=None), fix)
    folder = published(path, imgsz=imgsz)
    assert list(parse((folder.parent / "config.pbtxt").read_text()).input[0].dims) == [*sides, 3]
    with pytest.raises(ExportError, match="was written for"):
        published(path, imgsz=640)


@pytest.mark.parametrize("imgsz", [None, 320, (192, 320)], ids=str)
def test_a_file_of_fixed_sides_keeps_them(tmp_path: Path, imgsz: int | tuple[int, int] | None) -> None:
    path = models.save_onnx(ultralytics(), tmp_path / "a.onnx", size=(192, 320))
    folder = published(path, imgsz=imgsz)
    assert list(parse((folder.parent / "config.pbtxt").read_text()).input[0].dims) == [192, 320, 3]


def test_other_sides_than_a_files_own_are_told(tmp_path: Path) -> None:
    path = models.save_onnx(ultralytics(), tmp_path / "a.onnx", size=(192, 320))
    with pytest.raises(ExportError, match=r"IMGSZ=320,192, but .* was written for images 192 high and 320 wide"):
        published(path, imgsz=(320, 192))


def reverse(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def with_weights_as_inputs(model: onnx.ModelProto) -> None:
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(entry.name, entry.data_type, entry.dims) for entry in model.graph.initializer
    )


def with_minus_one(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1


@pytest.mark.parametrize("change", [reverse, with_weights_as_inputs, with_minus_one])
def test_odd_graphs_that_run_are_taken(tmp_path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    folder = published(
        models.rewritten(models.save_onnx(ultralytics(), tmp_path / "a.onnx", size=None, opset=13), change), imgsz=320
    )
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)


def of_bytes(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def with_channels_last(model: onnx.ModelProto) -> None:
    sides = model.graph.input[0].type.tensor_type.shape.dim
    sides[1].dim_value, sides[3].dim_value = 320, 3


def of_one_channel(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1


@pytest.mark.parametrize("change", [of_bytes, with_channels_last, of_one_channel])
def test_another_input_is_told(tmp_path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    path = models.rewritten(models.save_onnx(original(), tmp_path / "a.onnx", size=320), change)
    refused(path, "does not take one float image (B, 3, H, W)")


def of_the_future(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def test_a_newer_onnx_is_told(tmp_path: Path) -> None:
    path = models.rewritten(models.save_onnx(original(), tmp_path / "a.onnx", size=320), of_the_future)
    refused(path, "of a newer ONNX (opset 99")


def test_weights_in_a_second_file_come_along(tmp_path: Path) -> None:
    path = models.save_onnx(original(), tmp_path / "a.onnx", size=320)
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="a.onnx.data", size_threshold=0)
    folder = published(path)
    (tmp_path / "a.onnx.data").unlink()
    assert Deployed(folder / "model.onnx")(np.zeros((320, 320, 3), np.uint8)).shape == (1000, 6)
    refused(path, "weights in a file of its own, which is not beside it")


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08"], ids=["empty", "text", "a byte"])
def test_a_damaged_file_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    refused(path, "no ONNX file, or a damaged one")


def test_what_was_exported_already_is_told(tmp_path: Path) -> None:
    folder = published(models.save_onnx(original(), tmp_path / "a.onnx", size=320))
    refused(folder / "model.onnx", "exported for Triton already")
