"""The choices of a request, without a service."""

import pytest

from gateway.errors import InvalidParameter
from gateway.web.classes import class_ids
from gateway.web.parameters import Choices, Given, joined, parse
from tests.support.fakes import SPEC


def test_classes_given_several_times_are_all_wanted() -> None:
    given = joined([("classes", "0"), ("conf", ""), ("classes", ""), ("classes", "car")])
    assert class_ids(parse(Choices, given).classes, SPEC) == [0, 2]


def test_a_class_id_with_thousands_of_digits() -> None:
    with pytest.raises(InvalidParameter, match="knows 0 to 2"):
        class_ids(parse(Choices, Given({"classes": "9" * 5000})).classes, SPEC)


def test_classes_are_a_list_in_json() -> None:
    choices = parse(Choices, Given({"classes": ["car", 0, "1"]}, typed=True))
    assert class_ids(choices.classes, SPEC) == [2, 0, 1]
    with pytest.raises(InvalidParameter, match=r"classes=car,person: .*knows"):
        class_ids(parse(Choices, Given({"classes": ["car,person"]}, typed=True)).classes, SPEC)
