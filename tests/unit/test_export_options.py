from pathlib import Path

import pytest

from export.errors import ExportError
from export.options import Options, parse

EVERY = (
    "model weights name names repository device format precision imgsz square batch instances delay-us keep optimize "
    "list"
)


def test_empty_values_count_as_not_given() -> None:
    assert parse([part for name in EVERY.split() for part in (f"--{name}", "")]) == Options()


def test_values_are_read() -> None:
    options = parse("--model yolov5s --imgsz 320 --square 1 --batch 8 --instances auto --delay-us 0".split())
    assert options == Options(model="yolov5s", name="yolov5s", imgsz=320, square=True, batch=8, delay_us=0)


@pytest.mark.parametrize(("given", "name"), [("", ""), ("--name a", "a"), ("--model a", "a")])
def test_the_list_is_of_all_models_or_of_one(given: str, name: str) -> None:
    options = parse(f"--list {given}".split())
    assert options.list and options.name == name


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("", "yolov5n"),
        ("--model yolov5s6", "yolov5s6"),
        ("--weights runs/helmets.pt", "helmets"),
        ("--weights runs/best.pt --name helmets", "helmets"),
        ("--weights runs/best.pt --model yolov5n", "yolov5n"),
        ("--weights -my.pt", "my"),
    ],
)
def test_a_model_is_served_under_the_name_that_was_asked_for(arguments: str, name: str) -> None:
    assert parse(arguments.split()).name == name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--imgs 640", "--imgs"),
        ("--imgsz big", "big is no whole number"),
        ("--imgsz 31", "from 32 to 4096"),
        ("--batch 0", "from 1 to"),
        ("--device tpu", "cpu or gpu"),
        ("--precision int8", "fp32 or fp16"),
        ("--square maybe", "1 or 0"),
        ("--format tensorrt", "DEVICE=gpu"),
        ("--device gpu --format tensorrt --optimize tensorrt", "FORMAT=onnx"),
        ("--device gpu --square 0", "SQUARE=0: a GPU has a square input always"),
        ("--weights a.pt --model b --name c", "MODEL=b and NAME=c with WEIGHTS=; give NAME= alone"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(arguments: str, said: str) -> None:
    with pytest.raises(ExportError) as told:
        parse(arguments.split())
    assert said in str(told.value) and "\n" not in str(told.value)


def test_the_repository_is_a_path() -> None:
    assert parse(["--repository", "elsewhere"]).repository == Path("elsewhere")


def test_the_documentation_names_every_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    for name in EVERY.split():
        assert f"`--{name}`" in page


@pytest.mark.parametrize(
    ("given", "sides"),
    [
        ("640", 640),
        ("320,640", (320, 640)),
        ("320x640", (320, 640)),
        ("[320, 640]", (320, 640)),
        ("", None),
        ("640 640", (640, 640)),
    ],
)
def test_a_size_is_one_side_or_height_and_width(given: str, sides: int | tuple[int, int] | None) -> None:
    assert parse(["--imgsz", given]).imgsz == sides


def test_a_gpu_has_no_more_rows_than_tensorrt_takes() -> None:
    assert parse(["--rows", "9000"]).rows == 9000
    with pytest.raises(ExportError, match="ROWS=9000: TensorRT takes 3840 at most"):
        parse(["--rows", "9000", "--device", "gpu"])


@pytest.mark.parametrize("given", ["320,", "1,2,3", "320,wide", "16,640", "a"])
def test_a_size_without_meaning_is_refused_in_one_line(given: str) -> None:
    with pytest.raises(ExportError, match="imgsz") as told:
        parse(["--imgsz", given])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--use 2 --weights a.pt", "USE= exports nothing, and takes no WEIGHTS="),
        ("--use 2 --imgsz 320 --keep 1", "USE= exports nothing, and takes no IMGSZ= and no KEEP="),
        ("--rollback 1 --names a,b", "ROLLBACK=1 exports nothing, and takes no NAMES="),
        ("--unload a --square 1", "UNLOAD= exports nothing, and takes no SQUARE="),
        ("--delete 2 --device cpu", "DELETE= exports nothing, and takes no DEVICE="),
        ("--list --weights a", "LIST=1 exports nothing, and takes no WEIGHTS="),
        ("--use 2 --name a --model b", "USE= of a and b; give the name of one model"),
        ("--unload a --name b", "UNLOAD= of a and b; give the name of one model"),
        ("--delete a --model b", "DELETE= of a and b; give the name of one model"),
        ("--use 2 --unload a", "USE= and UNLOAD= together"),
    ],
)
def test_what_a_switch_would_ignore_is_refused(arguments: str, said: str) -> None:
    with pytest.raises(ExportError) as told:
        parse(arguments.split())
    assert said in str(told.value) and "\n" not in str(told.value)


def test_a_switch_takes_the_name_of_its_model() -> None:
    assert parse("--use 2 --name a --repository r".split()).name == "a"
    assert parse("--delete 2 --model a --imgsz= --square 0".split()).name == "a"
    assert parse("--unload a --name a".split()).unload == "a"


def test_a_repository_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse(["--repository", "~/models"]).repository == tmp_path / "models"
    with pytest.raises(ExportError, match="repository"):
        parse(["--repository", "~nobody-of-that-name/models"])
