"""NumPy's numbers and arrays in a checkpoint, read without NumPy's own unpickling."""

import re
from typing import Any

import numpy as np


class Inert:
    """Stands for an object of a class that inference does not need: keeps what the file says of it, does nothing.

    `name` is the full name of the class, `arguments` what it was made of, `state` what its attributes were.
    """

    name: str
    arguments: tuple[Any, ...]
    state: Any = None

    def __new__(cls, *arguments: Any) -> "Inert":
        made = object.__new__(cls)
        made.arguments = arguments
        return made

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def scalar(dtype: object, content: object = b"") -> object:
    """A NumPy number or text as Python's own; what is neither stays inert. `dtype` is the stand-in of numpy.dtype."""
    values = _values(dtype, content)
    return values[0] if values and len(values) == 1 else Inert(dtype, content)


def items(array: object) -> list[Any] | None:
    """The values of a one-dimensional NumPy array's stand-in; None for anything else."""
    state = array.state if isinstance(array, Inert) else None
    if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[1], tuple) or len(state[1]) != 1:
        return None
    return list(state[4]) if isinstance(state[4], list) else _values(state[2], state[4])


def _values(dtype: object, content: object) -> list[Any] | None:
    if not isinstance(dtype, Inert) or not dtype.arguments or not isinstance(content, bytes):
        return None
    code = dtype.arguments[0]
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "|"
    if not isinstance(code, str) or not re.fullmatch(r"[biuf][1-8]|[SU]\d{1,6}", code) or order not in ("<", ">", "|"):
        return None
    try:
        return list(np.frombuffer(content, np.dtype(order + code)).tolist())
    except (TypeError, ValueError):
        return None
