"""What training leaves in a checkpoint does not matter, whatever it is; what its network needs is known or refused."""

import collections
import datetime
import decimal
import os
import pathlib
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.errors import ExportError
from export.sources import checkpoint, layers, reference
from tests.support import export_models as models
from tests.support import foreign

FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])


def original(network: layers.Network | None = None) -> Any:
    """The same network, of the original code's classes."""
    return foreign.disguise(network or models.anchored(), models.ORIGINAL)


def image() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


def answers(path: Path) -> np.ndarray[Any, Any]:
    return reference.candidates(checkpoint.load(path).network, image())


EXPECTED = reference.candidates(models.anchored(), image())


def left_by_training() -> dict[str, object]:
    """Everything that a training may pickle next to a network."""
    parameter = nn.Parameter(torch.ones(2))
    optimizers = [torch.optim.SGD([parameter], 0.1, momentum=0.9), torch.optim.AdamW([parameter], 0.1)]
    parameter.grad = torch.ones(2)
    for each in optimizers:
        each.step()
    numbers = [getattr(np, name)(1) for name in "bool int8 int16 int32 int64 uint8 uint64 float16 float32".split()]
    counts: collections.defaultdict[str, list[int]] = collections.defaultdict(list)
    counts["a"].append(1)
    own = type("EasyDict", (dict,), {"__module__": "custom.config", "__qualname__": "EasyDict"})(a=1)
    listed = type("Rows", (list,), {"__module__": "custom.config", "__qualname__": "Rows"})([1, 2])
    return {
        "optimizer": [each.state_dict() for each in optimizers],
        "optimizers": optimizers,
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizers[0], 1).state_dict(),
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        "numpy": [
            *numbers,
            np.float64(0.5),
            np.str_("a"),
            np.bytes_(b"a"),
            np.datetime64("2026-01-01"),
            np.longdouble(1),
        ],
        "arrays": [np.zeros(3), np.array(["a"]), np.array([None]), np.zeros((2, 2), bool), np.dtype("f4")],
        "dates": [datetime.datetime.now(), datetime.date.today(), datetime.timedelta(1)],
        "collections": [counts, collections.OrderedDict(a=1), collections.Counter("ab"), collections.deque([1])],
        "own": [own, listed],
        "plain": [{1, 2}, frozenset((1,)), 1j, b"a", bytearray(b"a"), range(3), slice(1), 2**80, ..., NotImplemented],
        "decimal": decimal.Decimal("0.1"),
        "paths": [pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a"), Path("a")],
        "windows": foreign.thing("pathlib.WindowsPath", "C:\\", "runs"),
        "torch": [torch.Size([1]), torch.device("cpu"), torch.float16, nn.BCEWithLogitsLoss(), torch.Generator],
        "loss": foreign.thing("utils.loss.ComputeLoss", state={"sort_obj_iou": False, "BCEcls": nn.BCELoss()}),
        "hooks": foreign.thing("utils.callbacks.Callbacks", state={"_callbacks": {"on_train_end": []}}),
        "run": foreign.thing("wandb.sdk.wandb_run.Run", 1, state=(None, {"slots": 1})),
        "functions": [len, torch.relu, np.mean],
    }


@FORMATS
def test_whatever_training_leaves_behind_does_not_matter(tmp_path: Path, legacy: bool) -> None:
    content = {"model": original().half(), "ema": None, **left_by_training()}
    got = answers(foreign.save(content, tmp_path / "last.pt", legacy=legacy))
    np.testing.assert_array_equal(got, reference.candidates(models.anchored().half().float(), image()))


@pytest.mark.parametrize("name", left_by_training())
def test_each_thing_that_training_leaves_behind_does_not_matter(tmp_path: Path, name: str) -> None:
    content = {name: left_by_training()[name], "model": original()}
    np.testing.assert_array_equal(answers(foreign.save(content, tmp_path / "a.pt")), EXPECTED)


@FORMATS
@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda network: network, id="the network itself"),
        pytest.param(lambda network: {"model": network}, id="model"),
        pytest.param(lambda network: {"ema": network, "model": None}, id="ema"),
        pytest.param(lambda network: {"ema": (network, 1000), "model": None}, id="ema and updates"),
        pytest.param(lambda network: {"ema": foreign.layer("utils.torch_utils.ModelEMA", ema=network)}, id="ModelEMA"),
        pytest.param(lambda network: {"ema": {"a": torch.zeros(1)}, "model": network}, id="ema is a state dict"),
        pytest.param(lambda network: {"model": nn.DataParallel(network)}, id="DataParallel"),
        pytest.param(lambda network: foreign.layer("models.common.autoShape", model=network), id="autoShape"),
        pytest.param(
            lambda network: foreign.layer(
                "models.common.AutoShape", model=foreign.layer("models.common.DetectMultiBackend", model=network)
            ),
            id="AutoShape",
        ),
        pytest.param(lambda network: {"model": nn.ModuleList([network])}, id="ensemble of one"),
    ],
)
def test_a_network_is_found_wherever_it_is(tmp_path: Path, wrap: Any, legacy: bool) -> None:
    path = foreign.save(wrap(original()), tmp_path / "a.pt", legacy=legacy)
    np.testing.assert_array_equal(answers(path), EXPECTED)


@pytest.mark.parametrize("home", ["models", "yolov5.models"])
def test_the_package_of_pypi_has_other_names(tmp_path: Path, home: str) -> None:
    names = {name: (module.replace("models", home, 1), theirs) for name, (module, theirs) in models.ORIGINAL.items()}
    path = foreign.save({"model": foreign.disguise(models.anchored(), names)}, tmp_path / "a.pt")
    np.testing.assert_array_equal(answers(path), EXPECTED)


def test_a_fused_model_has_its_forward_and_no_normalisation(tmp_path: Path) -> None:
    network = models.anchored()
    layers.fuse(network)
    fused = original(network)
    for module in fused.modules():
        if type(module).__name__ == "Conv":
            module.forward = foreign.thing("builtins.getattr", "module", "forward_fuse")
    got = answers(foreign.save({"model": fused}, tmp_path / "a.pt"))
    np.testing.assert_array_equal(got, reference.candidates(network, image()))


def test_numbers_and_names_of_numpy_are_read(tmp_path: Path) -> None:
    network = original()
    network.names = np.array(["a", "b", "ç"])
    network.model[-1].nc = np.int64(3)
    assert checkpoint.load(foreign.save({"model": network}, tmp_path / "a.pt")).labels == ("a", "b", "ç")
    network.names = {np.int16(i): np.str_(name) for i, name in enumerate("xyz")}
    assert checkpoint.load(foreign.save({"model": network}, tmp_path / "a.pt")).labels == ("x", "y", "z")
    network.names = np.array(["a", "b", "c"], object)
    assert checkpoint.load(foreign.save({"model": network}, tmp_path / "a.pt")).labels == ("a", "b", "c")
    network.names = collections.defaultdict(str, {0: "k", 1: "l", 2: "m"})
    assert checkpoint.load(foreign.save({"model": network}, tmp_path / "a.pt")).labels == ("k", "l", "m")


def test_normalisation_across_gpus_is_the_same_for_inference(tmp_path: Path) -> None:
    network = original(models.anchored())
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(network).eval()  # type: ignore[no-untyped-call]
    np.testing.assert_array_equal(answers(foreign.save({"model": synced}, tmp_path / "a.pt")), EXPECTED)


def test_the_head_of_v1_reads_answers_that_are_layers_of_their_own(tmp_path: Path) -> None:
    network = models.anchored()
    head = network.head
    assert isinstance(head, layers.AnchorHead)
    convs = list(head.m)
    for i, conv in enumerate(convs):
        conv.i, conv.f = 4 + i, 1 + i  # type: ignore[assignment]
    del head.m
    head.f = [4, 5, 6]  # type: ignore[assignment]
    network.model = nn.Sequential(*list(network.model)[:4], *convs, head)
    network.save = [1, 2, 3, 4, 5, 6]
    got = answers(foreign.save({"model": original(network)}, tmp_path / "a.pt"))
    np.testing.assert_allclose(got, EXPECTED, rtol=1e-5, atol=1e-5)


def test_nms_as_the_last_layer_is_left_out(tmp_path: Path) -> None:
    network = original()
    network.model.add_module("5", foreign.layer("models.common.NMS", f=-1, i=5))
    np.testing.assert_array_equal(answers(foreign.save({"model": network}, tmp_path / "a.pt")), EXPECTED)


def test_a_body_that_halves_more_often_than_its_head_says_asks_for_its_own_stride(tmp_path: Path) -> None:
    network = models.anchored()
    for stage in list(network.model)[:-1]:
        assert isinstance(stage, layers.Conv)
    deep = network.model[3]
    assert isinstance(deep, layers.Conv)
    contract = foreign.layer("models.common.Contract", gain=2, i=4, f=-1)  # fails where the size is odd
    plain = original(network)
    head = plain.model[-1]
    head.i = 5
    plain.model = nn.Sequential(*list(plain.model)[:-1], contract, head)
    assert checkpoint.load(foreign.save({"model": plain}, tmp_path / "a.pt")).stride == 64


def hostile() -> dict[str, Any]:
    network = original()
    first = network.model[0]
    first._forward_hooks[0] = torch.Tensor
    first._forward_pre_hooks[0] = nn.Conv2d
    first._compiled_call_impl = nn.Identity()
    first.conv.__dict__["_conv_forward"] = torch.Tensor
    network.__dict__["features"] = nn.Conv2d
    network.__dict__["modules"] = nn.Identity()
    return {"model": network}


def test_attributes_of_a_file_take_no_methods_place(tmp_path: Path) -> None:
    np.testing.assert_array_equal(answers(foreign.save(hostile(), tmp_path / "a.pt")), EXPECTED)


class Runs:
    """Runs `function` where it is unpickled without care."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@FORMATS
@pytest.mark.parametrize(
    ("function", "named"),
    [
        (os.system, "posix.system"),
        (exec, "builtins.exec"),
        (eval, "builtins.eval"),
        (subprocess.Popen, "subprocess.Popen"),
        (__import__, "builtins.__import__"),
        (torch.load, "torch.serialization.load"),
    ],
    ids=str,
)
def test_what_would_run_code_is_refused_next_to_a_sound_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Any, named: str, legacy: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    foreign.save({"model": original(), "date": Runs(function, "touch harm")}, Path("a.pt"), legacy=legacy)
    with pytest.raises(ExportError, match=f"is refused: it needs {named}, which is no part of a model and would run"):
        checkpoint.load(Path("a.pt"))
    assert sorted(os.listdir()) == ["a.pt"]


@FORMATS
def test_a_function_that_is_not_known_is_never_called(tmp_path: Path, legacy: bool) -> None:
    """It stands for nothing: the checkpoint is read, and nothing is there."""
    target = tmp_path / "harm"
    content = {"model": original(), "git": [Runs(Path(target).write_text, "x"), Runs(warnings.warn, "harm")]}
    path = foreign.save(content, tmp_path / "a.pt", legacy=legacy)
    np.testing.assert_array_equal(answers(path), EXPECTED)
    assert not target.exists()


def test_a_newer_protocol_of_pickle_is_told(tmp_path: Path) -> None:
    torch.save({"model": None}, tmp_path / "a.pt", pickle_protocol=4)
    with pytest.raises(ExportError, match="was pickled with protocol 4, and PyTorch's own is 2"):
        checkpoint.load(tmp_path / "a.pt")


@FORMATS
def test_a_class_of_the_network_that_is_not_known_is_refused_by_name(tmp_path: Path, legacy: bool) -> None:
    network = original()
    network.model[1].act = foreign.layer("custom.layers.Snake")
    path = foreign.save({"model": network}, tmp_path / "a.pt", legacy=legacy)
    with pytest.raises(ExportError, match=r"is refused: it needs custom.layers.Snake, which is no part of YOLOv5"):
        checkpoint.load(path)


@pytest.mark.parametrize("cut", [0.3, 0.9, 0.999])
def test_a_file_of_the_old_format_that_was_cut_is_damaged(tmp_path: Path, cut: float) -> None:
    whole = foreign.save({"model": original()}, tmp_path / "a.pt", legacy=True).read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(ExportError, match="is no PyTorch checkpoint, or a damaged one"):
        checkpoint.load(tmp_path / "a.pt")


def break_layer(network: Any) -> None:
    network.model[1].conv = nn.Conv2d(99, 16, 3)


def break_source(network: Any) -> None:
    network.model[2].f = 0


def break_weights(network: Any) -> None:
    network.model[1].conv._parameters["weight"] = "text"


@pytest.mark.parametrize("wrong", [break_layer, break_source, break_weights])
def test_a_network_that_does_not_run_is_refused_in_one_line(tmp_path: Path, wrong: Any) -> None:
    network = original()
    wrong(network)
    with pytest.raises(ExportError, match="has a network that does not run") as told:
        checkpoint.load(foreign.save({"model": network}, tmp_path / "a.pt"))
    assert "\n" not in str(told.value)
