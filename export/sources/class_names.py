"""Names of classes: in a checkpoint, in the metadata of a file, in a data.yaml, or given with NAMES=."""

import ast
import json
import re
import stat
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from export.errors import ExportError, shortened

FORMS = "give names with commas between them, a list in JSON, a .txt with one name a line, or a data.yaml"
MOST_BYTES = 1 << 20
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def literal(text: str) -> object:
    """The value of a text in Python's or JSON's notation; None where it has neither."""
    try:
        value: object = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None
    return value


def in_order(names: object) -> tuple[str, ...]:
    """One name a class, each on one line, from a list of names or from names by class number, also as text.

    Raises ValueError, saying what is wrong, where a class has no name.
    """
    if isinstance(names, dict):
        numbered = {int(key): value for key, value in names.items() if str(key).strip().isdecimal()}
        if len(numbered) != len(names) or sorted(numbered) != list(range(len(names))):
            raise ValueError(f"the classes are numbered {_short(names)}, not 0 to {len(names) - 1}")
        names = [numbered[number] for number in range(len(numbered))]
    if not isinstance(names, list | tuple) or not names:
        raise ValueError("no class names")
    labels = tuple(label(name) for name in names)
    if not all(labels):
        raise ValueError(f"no name for class {labels.index('')}")
    return labels


def label(name: object) -> str:
    """A name on one line, as labels.txt has it: blanks and control characters are one space. Empty for None.

    Raises ValueError for what is no text.
    """
    if isinstance(name, bytes):
        name = name.decode(errors="surrogateescape")
    if not isinstance(name, str | int | float | None):
        raise ValueError("names that are no text")
    text = "" if name is None else " ".join(_CONTROL.sub(" ", str(name)).split())
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the name {text!a} is no Unicode text") from error
    return text


def of_yaml(text: str) -> object:
    """What a YAML file says, all of it as text: a class `no`, `007` or `null` stays one. Raises ValueError."""
    try:
        found: object = yaml.load(text, yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"no YAML ({shortened(str(error), 120)})") from error
    return found


def read(given: str) -> tuple[str, ...]:
    """The names that `NAMES=given` stands for. Raises ExportError, one line, for what is no list of names."""
    text = given.strip()
    try:
        if text[:1] in ("[", "{"):
            return in_order(literal(text))
        if is_file(text):
            return in_order(_of_file(Path(text).expanduser()))
        return in_order([name.strip() for name in text.split(",")])
    except (ValueError, RuntimeError) as error:  # RuntimeError: the home folder of nobody
        raise ExportError(f"NAMES={shortened(given, 80)}: {error}; {FORMS}") from error


def is_file(text: str) -> bool:
    """Whether a value of NAMES= names a file."""
    path = Path(text)
    if path.suffix.lower() in (".txt", ".names", ".yaml", ".yml", ".json"):
        return True
    try:
        return "," not in text and path.expanduser().exists() and ("/" in text or path.is_file())
    except (OSError, ValueError, RuntimeError):
        return False


def _of_file(path: Path) -> object:
    text = _text(path)
    if path.suffix.lower() == ".json":
        found = literal(text)
    elif path.suffix.lower() in (".yaml", ".yml"):
        found = of_yaml(text)
    else:
        return re.split(r"\r\n|\n|\r", text.rstrip()) if text.strip() else []
    if isinstance(found, dict) and "names" in found:
        return found["names"]
    if isinstance(found, dict) and not any(str(key).strip().isdecimal() for key in found):
        raise ValueError("no `names:` in the file")
    return found


def _text(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its other end
            raise ValueError("not a file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise ValueError(f"a file of more than {MOST_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("the file is no UTF-8 text") from error


def _short(names: dict[object, object]) -> str:
    return shortened(", ".join(map(str, names)), 80)
