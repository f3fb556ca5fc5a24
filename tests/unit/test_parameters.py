"""The choices of a request, without a service."""

import pytest

from gateway.errors import InvalidParameter
from gateway.parameters import class_ids, parse
from gateway.uploads import joined
from tests.fakes import SPEC


def test_classes_given_several_times_are_all_wanted() -> None:
    given = joined([("classes", "0"), ("conf", ""), ("classes", ""), ("classes", "car")])
    assert class_ids(parse(given), SPEC) == [0, 2]


def test_a_class_id_with_thousands_of_digits() -> None:
    with pytest.raises(InvalidParameter, match="knows 0 to 2"):
        class_ids(parse({"classes": "9" * 5000}), SPEC)
