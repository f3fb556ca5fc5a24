"""Objects of classes that are not installed here, as the code bases that have them pickle them."""

import contextlib
import copy
import functools
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn


@functools.cache
def kind(full: str, base: type = nn.Module) -> type:
    """A class that pickles under the full name `full`."""
    module, _, name = full.rpartition(".")
    return type(name, (base,), {"__module__": module, "__qualname__": name})


def layer(full: str, **attributes: Any) -> Any:
    """A module of the class `full` with these attributes."""
    made = kind(full)()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


class Thing:
    """Pickles as a call of `callee` with `arguments`, and `state` as the attributes of what that gives."""

    def __init__(self, callee: type, arguments: tuple[object, ...], state: object) -> None:
        self.callee, self.arguments, self.state = callee, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.callee, self.arguments) if self.state is None else (self.callee, self.arguments, self.state)


def thing(full: str, *arguments: object, state: object = None) -> Thing:
    """An object of the class `full`, whatever it is."""
    return Thing(kind(full, object), arguments, state)


def save(content: object, path: Path, *, legacy: bool = False) -> Path:
    """torch.save of whatever `content` is made of; `legacy`: in the format of PyTorch before 1.6."""
    with importable(*_classes(content, set())), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old format looks for the source of each class
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@contextlib.contextmanager
def importable(*classes: type) -> Iterator[None]:
    """Lets pickle find the classes by their names while it writes."""
    homes = {each.__module__ for each in classes}
    before = {name: sys.modules.get(name) for home in homes for name in (home, home.partition(".")[0])}
    for name, known in before.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(vars(known) if known is not None else {})
    for each in classes:
        setattr(sys.modules[each.__module__], each.__name__, each)
    try:
        yield
    finally:
        for name, known in before.items():
            if known is None:
                del sys.modules[name]
            else:
                sys.modules[name] = known


def _classes(value: Any, seen: set[int]) -> list[type]:
    """The foreign classes below `value`."""
    if id(value) in seen or isinstance(value, type):
        return []
    seen.add(id(value))
    home = type(value).__module__.split(".")[0]
    found = [value.callee] if isinstance(value, Thing) else [type(value)] if home in HOMES else []
    inner: list[Any] = list(vars(value).values()) if hasattr(value, "__dict__") else []
    if isinstance(value, dict):
        inner += [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set):
        inner += list(value)
    return found + [each for one in inner for each in _classes(one, seen)]


HOMES = ("models", "utils", "ultralytics", "yolov5", "yolov6", "custom")


def disguise(network: nn.Module, names: dict[str, tuple[str, str]]) -> Any:
    """A copy of a network of export/, its classes renamed as another code base has them (`export_models.ORIGINAL`)."""
    made = copy.deepcopy(network)
    for module in made.modules():
        own = type(module).__name__
        if own in names and type(module).__module__.startswith("export."):
            module.__class__ = kind(".".join(names[own]))
    return made
