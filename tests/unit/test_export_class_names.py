import os
from pathlib import Path

import pytest

from export.errors import ExportError
from export.sources.class_names import in_order, literal, read


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("person,hard hat", ("person", "hard hat")),
        ("helmet", ("helmet",)),
        ('["a, b", "c"]', ("a, b", "c")),
        ('{"0": "a", "1": "b"}', ("a", "b")),
        ("{0: 'a', 1: 'b'}", ("a", "b")),
        ("car/truck,bus", ("car/truck", "bus")),
    ],
)
def test_names_in_the_option_itself(given: str, expected: tuple[str, ...]) -> None:
    assert read(given) == expected


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "person\nhard hat\n", ("person", "hard hat")),
        ("a.txt", "\ufeffperson\r\nhard hat\r\n\r\n", ("person", "hard hat")),
        ("a.txt", "person\rhard hat\r", ("person", "hard hat")),
        ("coco.names", "person", ("person",)),
        ("classes", "person\nbus\n", ("person", "bus")),
        ("data.yaml", "nc: 2\nnames: [no, on]\n", ("no", "on")),
        ("data.yaml", "names:\n  0: person\n  1: 12\n", ("person", "12")),
        ("data.yml", "names:\n- a\n- 'b, c'\n", ("a", "b, c")),
        ("a.json", '{"1": "b", "0": "a"}', ("a", "b")),
    ],
)
def test_names_in_a_file(tmp_path: Path, name: str, content: str, expected: tuple[str, ...]) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert read(str(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("a,,b", "no name for class 1"),
        ("[1, 2", "no class names"),
        ("gone.txt", "No such file"),
        ("gone.yaml", "No such file"),
        ('{"0": "a", "2": "b"}', "numbered 0, 2, not 0 to 1"),
        ("[['a']]", "no text"),
    ],
)
def test_what_is_no_list_of_names_is_told_in_one_line(given: str, said: str) -> None:
    with pytest.raises(ExportError, match=r"^NAMES=[^\n]*$") as told:
        read(given)
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"person\n\nbus\n", "no name for class 1"),
        ("a.txt", b"", "no class names"),
        ("a.txt", b"\xff\xfea\0", "no UTF-8"),
        ("a.yaml", b"names: [a", "no YAML"),
        ("a.yaml", b"train: x\nval: y\n", "no `names:`"),
        ("a.txt", b"a\n" * (1 << 20), "more than"),
    ],
    ids=["gap", "empty", "utf-16", "cut", "without", "large"],
)
def test_a_file_that_is_no_list_of_names_is_told_in_one_line(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportError, match=r"^NAMES=[^\n]*$") as told:
        read(str(tmp_path / name))
    assert said in str(told.value)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "dangling.yaml").symlink_to(tmp_path / "gone")
    for name, said in (("folder.txt", "not a file"), ("pipe.txt", "not a file"), ("dangling.yaml", "No such file")):
        with pytest.raises(ExportError, match=said):
            read(str(tmp_path / name))


def test_numbers_as_text_are_in_the_order_of_numbers() -> None:
    names = {str(number): f"class {number}" for number in range(12)}
    assert in_order(literal(str(names)))[10] == "class 10"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("two\nlines", "two lines"),
        ("nul\0", "nul"),
        ("a\x1b[31m\x7fb\x9fc", "a [31m b c"),
        ("a\u2028b", "a b"),
        (b"caf\xc3\xa9", "caf\xe9"),
        (False, "False"),
        (7, "7"),
        ("\U0001f469\u200d\U0001f692", "\U0001f469\u200d\U0001f692"),
    ],
    ids=ascii,
)
def test_a_name_stays_one_line_of_text(name: object, label: str) -> None:
    assert in_order([name]) == (label,)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (None, "no name for class 1"),
        ("\0", "no name for class 1"),
        ("\ud800", "the name '.ud800' is no Unicode text"),
        (b"\xff", "no Unicode text"),
        (["a"], "names that are no text"),
        (object(), "names that are no text"),
    ],
    ids=ascii,
)
def test_what_is_no_name_is_told(name: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        in_order(["a", name])


def test_names_that_are_no_unicode_are_told() -> None:
    for given in ('["a", "\\ud800"]', "a,\udcff"):
        with pytest.raises(ExportError, match=r"^NAMES=[^\n]*is no Unicode text[^\n]*$"):
            read(given)
