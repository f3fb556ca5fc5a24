"""The command line of `make export-model`. An empty value means "not given", so that make can pass every option."""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from export import model_name
from export.config import MOST_ROWS, Device, Format, Optimize, Precision
from export.errors import ExportError

DEFAULT_MODEL = "yolov5n"
SWITCHES = ("list", "use", "rollback", "unload", "delete")
TEXTS = ("--model", "--weights", "--name", "--names", "--repository")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for. None: not given, the default depends on the model or the device."""

    model: str = DEFAULT_MODEL
    weights: str | None = None
    name: str = DEFAULT_MODEL
    names: str | None = None
    repository: Path = Path("model_repository")
    device: Device = "cpu"
    format: Format = "onnx"
    precision: Precision | None = None  # that of the file, where it has one; else fp32
    imgsz: int | tuple[int, int] | None = None
    square: bool = False
    rows: int | None = None
    batch: int | None = None
    instances: int | None = None
    delay_us: int | None = None
    keep: int = 3
    optimize: Optimize | None = None
    list: bool = False
    use: int | None = None
    rollback: bool = False
    unload: str | None = None
    delete: str | None = None

    @property
    def switches(self) -> bool:
        """Whether a version is to be switched, instead of an export."""
        return self.use is not None or self.rollback or self.unload is not None or self.delete is not None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ExportError(f"{message}; `python -m export --help` lists the options")


def parse(arguments: Sequence[str]) -> Options:
    """Raises ExportError, one line, for an option or a value that has no meaning."""
    given = {key: value for key, value in vars(_parser().parse_args(_joined(arguments))).items() if value is not None}
    _check_switches(given)
    if given.get("list"):
        given.setdefault("name", given.get("model", ""))
    if "name" not in given:
        of_file = "weights" in given and "model" not in given
        given["name"] = model_name.of_file(given["weights"]) if of_file else given.get("model", DEFAULT_MODEL)
    if "weights" in given and given.get("model", given["name"]) != given["name"]:
        raise ExportError(f"MODEL={given['model']} and NAME={given['name']} with WEIGHTS=; give NAME= alone")
    options = Options(**given)
    if options.device == "gpu" and given.get("square") is False:
        raise ExportError("SQUARE=0: a GPU has a square input always, images of different shapes cannot share a batch")
    if options.device == "cpu" and (options.format == "tensorrt" or options.optimize):
        raise ExportError("FORMAT=tensorrt and OPTIMIZE= are for a GPU; add DEVICE=gpu, or leave them away")
    if options.format == "tensorrt" and options.optimize:
        raise ExportError("FORMAT=tensorrt is an engine already; OPTIMIZE= goes with FORMAT=onnx")
    if options.device == "gpu" and (options.rows or 0) > MOST_ROWS:
        raise ExportError(f"ROWS={options.rows}: TensorRT takes {MOST_ROWS} at most; give fewer")
    if options.square and isinstance(options.imgsz, tuple) and len(set(options.imgsz)) > 1:
        height, width = options.imgsz
        raise ExportError(f"IMGSZ={height},{width} is no square; leave SQUARE=1 away, or give one number")
    return options


def _check_switches(given: Mapping[str, object]) -> None:
    """Raises ExportError for options that a switch would ignore."""
    several = [name for name in SWITCHES if given.get(name)]
    if not several:
        return
    if len(several) > 1:
        raise ExportError(f"{' and '.join(map(_in_make, several))} together; give one of them")
    switch, *_ = several
    taken = {switch, "repository", "name", "model"}
    left = [name for name in given if name not in taken and given[name] is not False]
    if left:
        raise ExportError(
            f"{_in_make(switch)} exports nothing, and takes no {' and no '.join(map(_in_make, left))}; leave it away"
        )
    names = {str(given[name]) for name in ("name", "model") if name in given}
    if switch in ("unload", "delete") and not str(given[switch]).isdecimal():
        names.add(str(given[switch]))
    if len(names) > 1:
        raise ExportError(f"{_in_make(switch)} of {' and '.join(sorted(names))}; give the name of one model")


def _in_make(name: str) -> str:
    return f"{name.upper()}=1" if name in ("list", "rollback") else f"{name.upper()}="


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--weights -my.pt` as `--weights=-my.pt`: argparse would take the value for an option."""
    found: list[str] = []
    for argument in arguments:
        if found and found[-1] in TEXTS and argument.startswith("-") and not argument.startswith("--"):
            found[-1] += f"={argument}"
        else:
            found.append(argument)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m export", description="Export a YOLOv5 into the model repository.", allow_abbrev=False
    )
    add = parser.add_argument
    add(
        "--model", type=_text, help=f"yolov5n ... yolov5x6, or the name of a file in weights/ (default {DEFAULT_MODEL})"
    )
    add("--weights", type=_text, help="one's own checkpoint (.pt of either format) or .onnx")
    add("--name", type=_text, help="the name it is served under (default: the model's, else the file's)")
    add(
        "--names",
        type=_text,
        help="names of the classes instead of the file's: a,b,c, a list in JSON, a .txt with one a line, a data.yaml",
    )
    add("--repository", type=_path, help="model repository (default model_repository)")
    add("--device", type=_choice("cpu", "gpu"), help="cpu (default) or gpu: what it will be served on")
    add("--format", type=_choice("onnx", "tensorrt"), help="onnx (default), or tensorrt: an engine")
    add("--precision", type=_choice("fp32", "fp16"), help="fp32 or fp16 (default: that of an .onnx, else fp32)")
    add(
        "--imgsz",
        type=_size,
        help="longer side of the input, pixels (default 640, P6 models 1280), or HEIGHT,WIDTH of a fixed one",
    )
    add("--square", type=flag, nargs="?", const=True, help="square input instead of least padding; a GPU always has it")
    add(
        "--rows",
        type=_number(100, 10_000),
        help="best candidates of an image that go to NMS (default 1000, in proportion of more than 25,200 up to 3840)",
    )
    add("--batch", type=_number(1, 1024), help="largest batch (default 4, on a GPU 16)")
    add("--instances", type=_instances, help="instances (default auto: one a core, on a GPU 2)")
    add(
        "--delay-us",
        type=_number(0, 10_000_000),
        help="longest wait for a fuller batch, microseconds (default 0, on a GPU 1000)",
    )
    add("--keep", type=_number(1, 1000), help="versions to keep (default 3)")
    add(
        "--optimize",
        type=_choice("tensorrt", "cuda"),
        help="what ONNX Runtime uses on a GPU: tensorrt (default), or cuda, which needs no build and is slower",
    )
    _add_switches(parser)
    return parser


def _add_switches(parser: argparse.ArgumentParser) -> None:
    """What is done instead of an export."""
    add = parser.add_argument
    add("--list", type=flag, nargs="?", const=True, help="show what the repository holds and export nothing")
    add("--use", type=_version, metavar="VERSION", help="serve this version of the model, and export nothing")
    add("--rollback", type=flag, nargs="?", const=True, help="serve the next older version than the one in use")
    add("--unload", type=_needed, metavar="MODEL", help="take a model out of service; --use brings it back")
    add(
        "--delete",
        type=_needed,
        metavar="VERSION|MODEL",
        help="remove a version that is not in use, or a model with all its versions",
    )


def _text(value: str) -> str | None:
    return value or None


def _path(value: str) -> Path | None:
    try:
        return Path(value).expanduser() if value else None
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{value}: {error}") from error


def _choice(*allowed: str) -> Callable[[str], str | None]:
    def convert(value: str) -> str | None:
        if value and value not in allowed:
            raise argparse.ArgumentTypeError(f"{value} is not {' or '.join(allowed)}")
        return value or None

    return convert


def _number(least: int, most: int) -> Callable[[str], int | None]:
    def convert(value: str) -> int | None:
        if not value:
            return None
        if not value.isdecimal() or not least <= int(value) <= most:
            raise argparse.ArgumentTypeError(f"{value} is no whole number from {least} to {most}")
        return int(value)

    return convert


def _size(value: str) -> int | tuple[int, int] | None:
    """One side, or two as people write them: 320,640, 320x640, [320, 640]."""
    sides = [_number(32, 4096)(side) for side in re.split(r"[\s,xX]+", value.strip("[]() "))]
    if len(sides) > 2 or (len(sides) == 2 and None in sides):
        raise argparse.ArgumentTypeError(f"{value} is neither one side nor HEIGHT,WIDTH")
    return (sides[0], sides[1]) if len(sides) == 2 and sides[0] and sides[1] else sides[0]


def _version(value: str) -> int:
    if not value.isdecimal() or not int(value):
        raise argparse.ArgumentTypeError(f"{value or 'nothing'} is no number of a version; LIST=1 shows them")
    return int(value)


def _needed(value: str) -> str:
    if not value:
        raise argparse.ArgumentTypeError("give the number of a version or the name of a model; LIST=1 shows them")
    return value


def _instances(value: str) -> int | None:
    return None if value == "auto" else _number(1, 1024)(value)


def flag(value: str) -> bool | None:
    """1 or 0 in any of the usual ways; None for an empty text."""
    meanings = {"": None, "0": False, "no": False, "false": False, "1": True, "yes": True, "true": True}
    if value.lower() not in meanings:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or 0")
    return meanings[value.lower()]
