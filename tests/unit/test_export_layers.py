"""Every layer and activation that a YOLOv5 checkpoint can name, against its formula."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.errors import ExportError
from export.graph.deployed import Deployed, fold_scale
from export.graph.onnx_writer import write
from export.graph.session import Deployed as Written
from export.sources import blocks, layers, pickled, reference
from export.sources.network import tidy
from export.sources.pickled import below
from tests.support import export_models as models
from tests.support import foreign

Layer = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def x(channels: int = 8, side: int = 8) -> Tensor:
    return torch.randn(2, channels, side, side)


def reread(module: nn.Module, path: Path) -> Layer:
    """What a checkpoint with this module in it becomes here."""
    read: nn.Module = pickled.read(foreign.save({"model": module}, path))["model"]
    for each in below(read):
        assert isinstance(each, nn.Module), each
        tidy(each)
    return read.requires_grad_(False)


def check(module: nn.Module, expected: Layer, path: Path, given: Tensor | None = None) -> None:
    given = x() if given is None else given
    with torch.no_grad():
        torch.testing.assert_close(reread(module, path / "a.pt")(given), expected(given), rtol=1e-5, atol=1e-5)


def conv(inputs: int, outputs: int, kernel: int = 1, **more: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("home", ["models.common", "models.experimental", "ultralytics.nn.modules.conv"])
def test_ghost_conv(tmp_path: Path, home: str) -> None:
    cv1, cv2 = conv(8, 4), conv(4, 4, 5, groups=4)
    made = foreign.layer(f"{home}.GhostConv", cv1=cv1, cv2=cv2)
    check(made, lambda x: torch.cat((cv1(x), cv2(cv1(x))), 1), tmp_path)


def test_ghost_bottleneck(tmp_path: Path) -> None:
    body, shortcut = conv(8, 8, 3), conv(8, 8)
    made = foreign.layer("models.common.GhostBottleneck", conv=body, shortcut=shortcut)
    check(made, lambda x: body(x) + shortcut(x), tmp_path)


@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize("name", ["models.common.CrossConv", "models.experimental.CrossConv"])
def test_cross_conv(tmp_path: Path, name: str, add: bool) -> None:
    cv1, cv2 = nn.Conv2d(8, 8, (1, 3), padding=(0, 1)), nn.Conv2d(8, 8, (3, 1), padding=(1, 0))
    check(foreign.layer(name, cv1=cv1, cv2=cv2, add=add), lambda x: cv2(cv1(x)) + (x if add else 0), tmp_path)


@pytest.mark.parametrize("name", ["C3", "C3x", "C3TR", "C3SPP", "C3Ghost"])
def test_every_c3(tmp_path: Path, name: str) -> None:
    cv1, cv2, cv3, m = conv(8, 4), conv(8, 4), conv(8, 8), conv(4, 4, 3)
    made = foreign.layer(f"models.common.{name}", cv1=cv1, cv2=cv2, cv3=cv3, m=m)
    check(made, lambda x: cv3(torch.cat((m(cv1(x)), cv2(x)), 1)), tmp_path)


@pytest.mark.parametrize("name", ["models.common.BottleneckCSP", "models.experimental.C3"])
def test_csp_of_four_convolutions(tmp_path: Path, name: str) -> None:
    cv1, cv2, cv3, cv4, m = conv(8, 4), conv(8, 4), conv(4, 4), conv(8, 8), conv(4, 4, 3)
    bn, act = nn.BatchNorm2d(8).eval(), nn.LeakyReLU(0.1)
    made = foreign.layer(name, cv1=cv1, cv2=cv2, cv3=cv3, cv4=cv4, m=m, bn=bn, act=act)
    check(made, lambda x: cv4(act(bn(torch.cat((cv3(m(cv1(x))), cv2(x)), 1)))), tmp_path)


@pytest.mark.parametrize(("act", "adds"), [(nn.SiLU(), False), (nn.LeakyReLU(0.1), True)], ids=["v6.1", "v1.0 to v6.0"])
def test_mixed_convolution(tmp_path: Path, act: nn.Module, adds: bool) -> None:
    m, bn = nn.ModuleList([conv(8, 4), conv(8, 4, 3)]), nn.BatchNorm2d(8).eval()
    made = foreign.layer("models.experimental.MixConv2d", m=m, bn=bn, act=act)
    check(made, lambda x: act(bn(torch.cat((m[0](x), m[1](x)), 1))) + (x if adds else 0), tmp_path)


def test_plus_of_v1(tmp_path: Path) -> None:
    cv1, cv2 = nn.Conv2d(8, 8, (3, 1), padding=(1, 0)), nn.Conv2d(8, 8, (1, 3), padding=(0, 1))
    check(foreign.layer("models.experimental.ConvPlus", cv1=cv1, cv2=cv2), lambda x: cv1(x) + cv2(x), tmp_path)


def test_contract_and_expand_move_single_pixels(tmp_path: Path) -> None:
    contract = reread(foreign.layer("models.common.Contract", gain=2), tmp_path / "a.pt")
    expand = reread(foreign.layer("models.common.Expand", gain=2), tmp_path / "b.pt")
    image = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    answer = contract(image)
    assert answer.shape == (2, 12, 2, 3)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        block = 3 * (2 * row + column)
        assert torch.equal(answer[:, block : block + 3], image[:, :, row::2, column::2])
    assert torch.equal(expand(answer), image)


@pytest.mark.parametrize("weight", [False, True])
def test_sum_of_layers(tmp_path: Path, weight: bool) -> None:
    w = nn.Parameter(torch.tensor([0.3, -1.0]))
    made = foreign.layer("models.experimental.Sum", weight=weight, iter=range(2), **({"w": w} if weight else {}))
    given = [x(), x(), x()]
    factors = [2 / (1 + math.exp(-0.3)), 2 / (1 + math.exp(1.0))] if weight else [1, 1]
    expected = given[0] + given[1] * factors[0] + given[2] * factors[1]
    torch.testing.assert_close(reread(made, tmp_path / "a.pt")(given), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("wider", [False, True])
def test_transformer(tmp_path: Path, wider: bool) -> None:
    """Against torch's own attention, tokens first, as the original has it."""
    linear, first = nn.Linear(8, 8), conv(4, 8) if wider else None
    q, k, v, fc1, fc2 = (nn.Linear(8, 8, bias=False) for _ in range(5))
    attention = nn.MultiheadAttention(8, 4)
    nn.init.normal_(attention.in_proj_bias)
    one = foreign.layer("models.common.TransformerLayer", q=q, k=k, v=v, ma=attention, fc1=fc1, fc2=fc2)
    tr = nn.Sequential(one)
    made = foreign.layer("models.common.TransformerBlock", conv=first, linear=linear, tr=tr, c2=8)

    def expected(x: Tensor) -> Tensor:
        x = first(x) if first is not None else x
        tokens = x.flatten(2).permute(2, 0, 1)
        tokens = tokens + linear(tokens)
        tokens = attention(q(tokens), k(tokens), v(tokens))[0] + tokens
        tokens = fc2(fc1(tokens)) + tokens
        return torch.as_tensor(tokens.permute(1, 2, 0).reshape(x.shape))

    check(made, expected, tmp_path, torch.randn(2, 4 if wider else 8, 4, 6))


def test_depthwise_convolutions(tmp_path: Path) -> None:
    bn, act = nn.BatchNorm2d(8).eval(), nn.SiLU()
    depthwise = conv(8, 8, 3, groups=8)
    made = foreign.layer("models.common.DWConv", conv=depthwise, bn=bn, act=act)
    check(made, lambda x: act(bn(depthwise(x))), tmp_path)
    up = nn.ConvTranspose2d(8, 8, 2, 2, groups=8)
    made = foreign.kind("models.common.DWConvTranspose2d", nn.ConvTranspose2d)(8, 8, 2, 2, groups=8)
    made.load_state_dict(up.state_dict())
    check(made, up, tmp_path)


@pytest.mark.parametrize(
    "module",
    [
        *(nn.Conv2d(8, 8, 3), nn.ConvTranspose2d(8, 8, 2, 2), nn.BatchNorm2d(8), nn.Identity(), nn.Dropout2d(0.5)),
        *(nn.MaxPool2d(2, 1), nn.AvgPool2d(3), nn.ZeroPad2d((0, 1, 0, 1)), nn.ReflectionPad2d(1), nn.GroupNorm(2, 8)),
        *(nn.Upsample(None, 2, "nearest"), nn.UpsamplingBilinear2d(None, 2), nn.PixelShuffle(2), nn.Sequential()),
    ],
    ids=lambda module: type(module).__name__,
)
def test_layers_of_torch(tmp_path: Path, module: nn.Module) -> None:
    check(module.eval(), module, tmp_path)


ACTIVATIONS: dict[str, tuple[nn.Module, Layer]] = {
    "GELU": (nn.GELU(), lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))),
    "Mish": (nn.Mish(), lambda x: x * torch.tanh(torch.log(1 + x.exp()))),
    "ReLU6": (nn.ReLU6(), lambda x: x.clamp(0, 6)),
    "ELU": (nn.ELU(), lambda x: torch.where(x > 0, x, x.exp() - 1)),
    "Hardswish": (nn.Hardswish(), lambda x: x * (x + 3).clamp(0, 6) / 6),
    "LeakyReLU": (nn.LeakyReLU(0.1), lambda x: torch.where(x > 0, x, 0.1 * x)),
    "SiLU": (nn.SiLU(), lambda x: x * x.sigmoid()),
    "ReLU": (nn.ReLU(), lambda x: x.clamp(0)),
    "PReLU": (nn.PReLU(), lambda x: torch.where(x > 0, x, 0.25 * x)),
    "Hardtanh": (nn.Hardtanh(), lambda x: x.clamp(-1, 1)),
    "Sigmoid": (nn.Sigmoid(), lambda x: 1 / (1 + (-x).exp())),
    "Tanh": (nn.Tanh(), lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp())),
    "Softplus": (nn.Softplus(), lambda x: torch.log(1 + x.exp())),
    "CELU": (nn.CELU(), lambda x: torch.where(x > 0, x, x.exp() - 1)),
    "Hardsigmoid": (nn.Hardsigmoid(), lambda x: (x / 6 + 0.5).clamp(0, 1)),
    "Threshold": (nn.Threshold(0.1, 0.3), lambda x: torch.where(x > 0.1, x, 0.3)),
    "own SiLU": (foreign.layer("utils.activations.SiLU"), lambda x: x * x.sigmoid()),
    "Swish": (foreign.layer("utils.activations.Swish"), lambda x: x * x.sigmoid()),
    "MemoryEfficientSwish": (foreign.layer("utils.activations.MemoryEfficientSwish"), lambda x: x * x.sigmoid()),
    "own Hardswish": (foreign.layer("utils.activations.Hardswish"), lambda x: x * (x + 3).clamp(0, 6) / 6),
    "HardSwish": (foreign.layer("utils.activations.HardSwish"), lambda x: x * (x + 3).clamp(0, 6) / 6),
    "own Mish": (foreign.layer("utils.activations.Mish"), lambda x: x * torch.log(1 + x.exp()).tanh()),
    "MemoryEfficientMish": (
        foreign.layer("utils.activations.MemoryEfficientMish"),
        lambda x: x * torch.log(1 + x.exp()).tanh(),
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(tmp_path: Path, name: str) -> None:
    module, formula = ACTIVATIONS[name]
    check(module, formula, tmp_path)


def test_gelu_of_an_old_torch_has_no_approximation(tmp_path: Path) -> None:
    old = nn.GELU()
    del old.approximate
    check(old, functional.gelu, tmp_path)


def test_activations_with_weights(tmp_path: Path) -> None:
    spread, bn = conv(8, 8, 3, groups=8), nn.BatchNorm2d(8).eval()
    made = foreign.layer("utils.activations.FReLU", conv=spread, bn=bn)
    check(made, lambda x: torch.max(x, bn(spread(x))), tmp_path)
    p1, p2, beta = (nn.Parameter(torch.randn(1, 8, 1, 1)) for _ in range(3))
    made = foreign.layer("utils.activations.AconC", p1=p1, p2=p2, beta=beta)
    check(made, lambda x: (p1 - p2) * x * (beta * (p1 - p2) * x).sigmoid() + p2 * x, tmp_path)


@pytest.mark.parametrize("norms", [False, True], ids=["today", "first"])
def test_activation_with_a_beta_from_the_image(tmp_path: Path, norms: bool) -> None:
    p1, p2 = (nn.Parameter(torch.randn(1, 8, 1, 1)) for _ in range(2))
    fc1, fc2 = conv(8, 4), conv(4, 8)
    bn = {"bn1": nn.BatchNorm2d(4).eval(), "bn2": nn.BatchNorm2d(8).eval()} if norms else {}
    for each in bn.values():
        nn.init.normal_(each.bias)
    made = foreign.layer("utils.activations.MetaAconC", p1=p1, p2=p2, fc1=fc1, fc2=fc2, **bn)

    def expected(x: Tensor) -> Tensor:
        y = fc1(x.mean(3, keepdim=True).mean(2, keepdim=True))
        y = fc2(bn["bn1"](y) if norms else y)
        beta = (bn["bn2"](y) if norms else y).sigmoid()
        return torch.as_tensor((p1 - p2) * x * (beta * (p1 - p2) * x).sigmoid() + p2 * x)

    check(made, expected, tmp_path)


def stem(module: nn.Module) -> layers.Network:
    """A network whose first layer is `module`, with three channels in and eight out at half the size."""
    network = models.anchored()
    module.i, module.f = 0, -1  # type: ignore[assignment]
    network.model[0] = module
    network.model[1].conv.stride = (4, 4)  # type: ignore[assignment]
    return network.eval().requires_grad_(False)


def mixed() -> nn.Module:
    made = blocks.MixConv2d()
    made.m = nn.ModuleList([nn.Conv2d(3, 4, 1, 2, bias=False), nn.Conv2d(3, 4, 3, 2, 1, bias=False)])
    made.bn, made.act = nn.BatchNorm2d(8), nn.SiLU()
    return made


def ghost() -> nn.Module:
    made = blocks.GhostConv()
    made.cv1, made.cv2 = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 5, 1, 2)
    return made


def focus() -> nn.Module:
    made, inner = layers.Focus(), layers.Conv()
    inner.conv, inner.bn, inner.act = nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU()
    nn.init.normal_(inner.bn.bias)
    made.conv = inner
    return made


def fused() -> nn.Module:
    made = layers.Conv()
    made.conv, made.act = nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU()
    return made


def normalised() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3, 2, 1))


STEMS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "Focus": (focus, True),
    "fused": (fused, True),
    "nn.Conv2d": (lambda: nn.Conv2d(3, 8, 3, 2, 1), True),
    "MixConv2d": (mixed, False),
    "GhostConv": (ghost, False),
    "normalisation first": (normalised, False),
}


@pytest.mark.parametrize("name", STEMS)
def test_pixels_are_scaled_whatever_the_first_layer_is(tmp_path: Path, name: str) -> None:
    make, folded = STEMS[name]
    network = stem(make())
    network.head.stride = torch.tensor([8.0, 16.0, 32.0])
    deployed = Deployed(network)
    assert (deployed.scale is None) == folded
    write(deployed, tmp_path / "a.onnx", size_hw=(64, 64), fixed=False)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    got = Written(tmp_path / "a.onnx")(image)
    expected = reference.candidates(network, image)
    scores = np.sort(expected[:, 4])[::-1]
    np.testing.assert_allclose(got[: len(scores), 4], scores, atol=1e-5)


def test_a_convolution_used_twice_keeps_its_weights() -> None:
    network = models.anchored()
    assert fold_scale(network)
    network = models.anchored()
    network.model[1].act = nn.Sequential(network.model[0])
    assert not fold_scale(network)


def test_a_layer_that_onnx_has_not_is_told_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network = stem(nn.Conv2d(3, 8, 3, 2, 1))
    network.model[1].act = nn.AdaptiveMaxPool2d((3, 5))
    with pytest.raises(ExportError, match="the model cannot be written as ONNX: ") as told:
        write(Deployed(network), tmp_path / "a.onnx", size_hw=(64, 64), fixed=False)
    assert "\n" not in str(told.value)
    assert capfd.readouterr() == ("", "")
