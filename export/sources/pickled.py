"""Reads what a checkpoint pickles, without running any of it.

The file goes through torch.load with `weights_only=True`, whose unpickler calls nothing but what it is allowed by name.
It is allowed the names of `names.py`; every other name in the file stands for an inert object that keeps its state. So
what training leaves behind (options, losses, an optimizer, anything at all) does not matter, and a layer that is not
known here can be reported by its name.

That unpickler lacks two things, and the pickle is edited for it first: it fills no container but dict and list, and
calls nothing that a call gave, so an inert object is given these contents and arguments as its state; and the format of
PyTorch before 1.6 names a module's class along with its source code, of which the class alone is kept.
"""

import io
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch._utils import IMPORT_MAPPING, NAME_MAPPING

from export.sources import names
from export.sources.numbers import Inert

CONTAINERS = ("collections.OrderedDict", "collections.Counter", "collections.defaultdict", "builtins.set")
SECOND = "export.second"
# What is done to an object other than a plain container becomes its state: filled, or called where a call gave it.
AS_STATE = {
    **{"SETITEM": pickle.TUPLE2 + pickle.BUILD, "SETITEMS": pickle.TUPLE + pickle.BUILD},
    **{"APPEND": pickle.BUILD, "APPENDS": pickle.TUPLE + pickle.BUILD},
    **{"REDUCE": pickle.BUILD, "NEWOBJ": pickle.BUILD},
}
# What would act if the file were loaded without care. Nothing of it is reached here; the user should know all the same.
ACTING = {
    *("os", "posix", "nt", "sys", "subprocess", "shutil", "importlib", "runpy", "ctypes", "socket", "pty", "pip"),
    *("webbrowser", "pickle", "_pickle", "marshal", "code", "timeit", "bdb", "pdb", "cProfile", "profile", "commands"),
    *("torch.hub", "torch.serialization", "numpy.testing._private.utils", "torch.utils.collect_env", "logging.config"),
}
HARMLESS = ("torch.serialization._get_layout",)
ACTING_BUILTINS = {"eval", "exec", "compile", "open", "__import__", "input", "breakpoint", "execfile", "apply"}


class Acting(Exception):
    """The file names functions that would run code; the message is their names."""


class Protocol(Exception):
    """The pickle is of a protocol that `weights_only` does not read; the message is its number."""


@dataclass(slots=True)
class Survey:
    """What a pickle names, and the edits that it needs: position → (how many bytes, what instead)."""

    globals: set[str] = field(default_factory=set)
    edits: dict[int, tuple[int, bytes]] = field(default_factory=dict)


def read(path: Path) -> Any:
    """The content of a checkpoint of either format.

    Raises Acting, Protocol, OSError, and for a corrupted file whatever its reader raises.
    """
    if zipfile.is_zipfile(path):
        return _read_zip(path)
    with path.open("rb") as file:
        return _read_old(file)


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        entry = next(name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl")
        content = archive.read(entry)
        found = survey(io.BytesIO(content))
        if not found.edits:
            return _load(path, found)
        changed = io.BytesIO()
        with zipfile.ZipFile(changed, "w") as target:
            for name in archive.namelist():
                target.writestr(name, _edited(content, found, 0) if name == entry else archive.read(name))
    changed.seek(0)
    return _load(changed, found)


def _read_old(file: IO[bytes]) -> Any:
    """Pickles one after the other: a magic number, a version, the system, the content; then keys and storages."""
    for _ in range(3):
        for _ in pickletools.genops(file):
            pass
    start = file.tell()
    found = survey(file)
    end = file.tell()
    file.seek(0)
    head, body, rest = file.read(start), file.read(end - start), file.read()
    return _load(io.BytesIO(head + _edited(body, found, start) + rest), found)


def _load(source: Path | IO[bytes], found: Survey) -> Any:
    # Protocol 2 calls the module subprocess by its name in Python 2.
    acting = sorted(name.replace("commands.", "subprocess.") for name in found.globals if _acts(name))
    if acting:
        raise Acting(", ".join(acting[:3]) + (f" and {len(acting) - 3} more" if len(acting) > 3 else ""))
    allowed = names.allow_list()
    known = [(names.target(name, allowed) or _stand_in(name), name) for name in found.globals]
    with torch.serialization.safe_globals([*known, (_second, SECOND)]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(source, map_location="cpu", weights_only=True)


def _acts(name: str) -> bool:
    module, _, rest = name.rpartition(".")
    return rest in ACTING_BUILTINS if module == "builtins" else module in ACTING and name not in HARMLESS


def _stand_in(name: str) -> type[Inert]:
    return type(name.rpartition(".")[2], (Inert,), {"name": name})


def _second(*items: Any) -> Any:
    return items[1]


def _edited(content: bytes, found: Survey, start: int) -> bytes:
    parts, done = [], 0
    for position, (length, instead) in sorted(found.edits.items()):
        parts += [content[done : position - start], instead]
        done = position - start + length
    return b"".join((*parts, content[done:]))


@dataclass(frozen=True, slots=True)
class _Name:
    """A class or function on the stack of a pickle."""

    full: str


@dataclass(frozen=True, slots=True)
class _Made:
    """An object of a class other than the plain containers."""


@dataclass(frozen=True, slots=True)
class _Module:
    """The old format's tuple ("module", class, file, source), and where its mark is."""

    kind: Any
    mark: int


@dataclass(frozen=True, slots=True)
class _Mark:
    position: int


def survey(file: IO[bytes]) -> Survey:
    """Walk through one pickle with a stack of what its objects are. Raises ValueError or IndexError if it is none."""
    found = Survey()
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    operations: Iterable[tuple[pickletools.OpcodeInfo, Any, int | None]] = pickletools.genops(file)
    for op, argument, position in operations:
        assert position is not None
        if op.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif op.name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo.get(argument))
        elif op.name == "MARK":
            stack.append(_Mark(position))
        else:
            taken, mark = _take(stack, op.stack_before)
            if op.name == "PROTO" and argument > 2:
                raise Protocol(argument)
            if op.name == "GLOBAL":
                argument = _full_name(argument)
                found.globals.add(argument)
            if op.name == "BINPERSID" and isinstance(taken[0], _Module):
                found.edits[taken[0].mark] = (1, b"cexport\nsecond\n(")
                found.edits[position] = (1, pickle.REDUCE)
            if op.name in AS_STATE and isinstance(taken[0], _Made):
                found.edits[position] = (1, AS_STATE[op.name])
            made = _made(op.name, argument, taken, mark)
            stack.extend([made] if op.stack_after else [])
    return found


def _take(stack: list[Any], before: list[pickletools.StackObject]) -> tuple[list[Any], int]:
    """What an operation takes from the stack, in order, and where its mark is."""
    taken: list[Any] = []
    position = -1
    if pickletools.markobject in before:
        while not isinstance(top := stack.pop(), _Mark):
            taken.append(top)
        position = top.position
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        taken.append(stack.pop())
    return taken[::-1], position


def _made(operation: str, argument: Any, taken: list[Any], mark: int) -> Any:
    """What an operation puts on the stack, as far as it matters here."""
    match operation:
        case "GLOBAL":
            return _Name(argument)
        case "BINUNICODE":
            return argument if argument == "module" else None
        case "REDUCE" | "NEWOBJ":
            return None if isinstance(taken[0], _Name) and taken[0].full in CONTAINERS else _Made()
        case "TUPLE" if len(taken) == 4 and taken[0] == "module":
            return _Module(taken[1], mark)
        case "BINPERSID" if isinstance(taken[0], _Module):
            return taken[0].kind
        case "BUILD" | "SETITEM" | "SETITEMS" | "APPEND" | "APPENDS":
            return taken[0]
    return None


def _full_name(argument: str) -> str:
    """`module name` → `module.name`, with the names of Python 2 as the unpickler takes them."""
    module, _, name = argument.partition(" ")
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


def below(value: Any) -> Iterator[Any]:
    """Every module of a network, and every stand-in among them; the network itself first, each once."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting.extend(reversed(list(children(each).values())))


def children(module: Any) -> dict[str, Any]:
    """The modules directly below one, by name; those of a stand-in as well."""
    state = module.state if isinstance(module, Inert) else vars(module) if hasattr(module, "__dict__") else None
    found = state.get("_modules") if isinstance(state, dict) else None
    return dict(found) if isinstance(found, dict) else {}
