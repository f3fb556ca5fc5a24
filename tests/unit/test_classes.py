"""Labels of every kind can be asked for."""

import pytest

from gateway.errors import InvalidParameter
from gateway.triton.spec import ModelSpec
from gateway.web.classes import class_ids

LABELS = (
    "hard hat, yellow",
    'a "quoted" sign',
    "人",
    "Cat",
    "cat",
    "person",
    "7",
    "person",
    '9" pipe',
    "[x]",
    "Щит",
    "a" * 300,
)
SPEC = ModelSpec(name="odd", version="1", size_hw=(640, 640), stride=32, fixed=False, labels=LABELS)


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ("", None),
        ([], None),
        ("hard hat, yellow", [0]),
        ("Hard  Hat,\nyellow", [0]),
        ('"hard hat, yellow",人', [0, 2]),
        ('人, "hard hat, yellow" ', [2, 0]),
        ('["hard hat, yellow", 3]', [0, 3]),
        ('["人"],[5]', [2, 5]),
        (["hard hat, yellow", 3], [0, 3]),
        ('a "quoted" sign', [1]),
        ('"a ""quoted"" sign",人', [1, 2]),
        ('9" pipe,人', [8, 2]),
        ("[x]", [9]),
        ('["[x]"]', [9]),
        ("ЩИТ", [10]),
        ("a" * 300, [11]),
        ("Cat", [3]),
        ("cat", [4]),
        ("CAT", [3, 4]),
        ("person", [5, 7]),
        ("7", [6]),  # a label comes before an id
        ([7], [7]),  # a number of JSON is an id
        ("5,6", [5, 6]),
        ("人,,", [2]),
        (",", None),
        ("[]", None),
    ],
)
def test_a_class_by_label_or_id(given: str | list[str | int], ids: list[int] | None) -> None:
    assert class_ids(given, SPEC) == ids


@pytest.mark.parametrize(
    "given",
    [
        "dog",
        "人,dog",
        '["dog"]',
        "[dog",
        "[true]",
        '[{"a": 1}]',
        "[" * 4000,
        [12],
        ["-1"],
        [-1],
        "1.5",
        "²",
        "a" * 140_000,
    ],
)
def test_what_the_model_lacks_is_refused_in_one_line(given: str | list[str | int]) -> None:
    with pytest.raises(InvalidParameter) as told:
        class_ids(given, SPEC)
    assert str(told.value).startswith("classes=") and len(str(told.value)) < 700
