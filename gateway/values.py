"""Named values → a checked struct, and in plain words what is allowed where one is not."""

from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from typing import TypeVar

import msgspec
from msgspec import inspect

_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_T = TypeVar("_T")


class NotAllowed(ValueError):
    """The value of `name` has no meaning; `expected` is what to give, such as `a whole number from 1 to 65535`."""

    def __init__(self, name: str, expected: str) -> None:
        super().__init__(f"{name}: give {expected}")
        self.name, self.expected = name, expected


def checked(given: Mapping[str, object], kind: type[_Struct], *, strict: bool = False) -> _Struct:
    """A `kind` of the values of its fields in `given`; unless `strict`, text stands for numbers and truth values.

    Raises NotAllowed for the first value that is none, None among them.
    """
    values = {name: given[name] for name in kind.__struct_fields__ if name in given}
    for name, value in values.items():
        try:
            found = msgspec.convert({name: value}, kind, strict=strict)
        except msgspec.ValidationError as error:
            raise _not_allowed(name, kind) from error
        if getattr(found, name) is None:  # the text `null`
            raise _not_allowed(name, kind)
    return msgspec.convert(values, kind, strict=strict)


def fields(kind: type[msgspec.Struct]) -> dict[str, inspect.Field]:
    """The fields of a struct by name."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return {field.name: field for field in info.fields}


def _not_allowed(name: str, kind: type[msgspec.Struct]) -> NotAllowed:
    return NotAllowed(name, _in_words(fields(kind)[name].type))


def _in_words(kind: inspect.Type) -> str:
    """Of a type with a pattern, the words are those that its Meta has as `extra={"give": ...}`."""
    match kind:
        case inspect.Metadata(extra={"give": str(words)}):
            return words
        case inspect.Metadata(type=inner):
            return _in_words(inner)
        case inspect.UnionType(types=options):
            return " or ".join(_in_words(each) for each in options if not isinstance(each, inspect.NoneType))
        case inspect.LiteralType(values=values):
            return " or ".join(str(value) for value in values)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number" + _range(kind)
        case inspect.FloatType():
            return "a number" + _range(kind)
        case inspect.StrType(max_length=int(most)):
            return f"text of at most {most} characters"
    return "text"


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    least = "" if kind.gt is None else f" above {kind.gt}"
    if kind.ge is not None:
        least = f" of at least {kind.ge}" if kind.le is None else f" from {kind.ge}"
    return least + ("" if kind.le is None else f" to {kind.le}")


def remembered(longest: int, most: int) -> Callable[[Callable[[str], _T]], Callable[[str], _T]]:
    """Keep what a function gives for the `most` last texts of at most `longest` characters: clients repeat theirs."""

    def decorated(function: Callable[[str], _T]) -> Callable[[str], _T]:
        known = lru_cache(maxsize=most)(function)

        @wraps(function)
        def remembering(text: str) -> _T:
            return known(text) if len(text) <= longest else function(text)

        return remembering

    return decorated
