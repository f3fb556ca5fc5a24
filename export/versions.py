"""Which version of a model is in use, and what each version keeps of its own.

A version's folder holds its model file, `labels.txt` and `config.pbtxt`. The model's own `config.pbtxt` is a copy of
that of the version in use and names that version's labels, so one rename switches everything.
"""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import ModelConfig

from export import repository
from export.declared import parse
from export.errors import ExportError

CONFIG, LABELS = "config.pbtxt", "labels.txt"
SCORE = "evaluation.json"  # what `make evaluate` leaves
UNLOADED = "config.pbtxt.unloaded"  # the name of CONFIG while a model is out of service: Triton loads none without it
_SINCE = re.compile(r"^# Version (\d+), in use since (\S+)\.\n", re.MULTILINE)
_POLICY = re.compile(r"^[ \t]*version_policy\s*:?\s*\{(?:[^{}#]|\{[^{}#]*\})*\}[ \t,;]*\n?", re.MULTILINE)
_LABEL_FILE = re.compile(r'(label_filename\s*:\s*)"([^"]+)"')


@dataclass(frozen=True, slots=True)
class InUse:
    """`since` is UTC as in RFC 3339, empty where that is not known."""

    version: int
    since: str


def in_use(model: Path) -> InUse | None:
    """The version that Triton is to serve, whatever is in its folder; None for a model out of service."""
    try:
        text = contents(model / CONFIG)
    except ExportError:
        return None
    if text is None:
        return None
    try:
        number = selected(parse(text), repository.numbered(model))
    except text_format.ParseError:
        return None
    if number is None:
        return None
    found = _SINCE.search(text)
    return InUse(number, found[2] if found and int(found[1]) == number else "")


def selected(config: ModelConfig, there: Sequence[int]) -> int | None:
    """Of the versions that are there, the newest that the config's version_policy admits.

    The policies: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_configuration.md
    """
    if config.version_policy.HasField("specific"):
        there = [number for number in there if number in config.version_policy.specific.versions]
    return max(there, default=None)


def use(model: Path, number: int) -> None:
    """Let Triton serve version `number` from its next load on. Raises ExportError when that keeps no config."""
    own = model / str(number) / CONFIG
    if not own.is_file():
        raise ExportError(
            f"version {number} of {model.name} has no config and labels of its own, an earlier release kept them for "
            "the newest version alone; export it again"
        )
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    put(model / CONFIG, f"# Version {number}, in use since {now}.\n{selecting(contents(own) or '', number)}")
    (model / UNLOADED).unlink(missing_ok=True)


def keep_facts(model: Path) -> None:
    """Keep the config of the version in use, as it may have been changed by hand, in that version's folder.

    A config of an earlier release is the newest version's, and so are its labels.
    """
    current = in_use(model)
    if current is None:
        return
    folder = model / str(current.version)
    text = _SINCE.sub("", (model / CONFIG).read_text())
    named = _LABEL_FILE.search(text)
    if named and not named[2].startswith(f"{current.version}/") and (model / named[2]).is_file():
        put(folder / LABELS, (model / named[2]).read_text())
        text = _LABEL_FILE.sub(rf'\g<1>"{current.version}/{LABELS}"', text)
    text = selecting(text, current.version)
    if not (folder / CONFIG).is_file() or (folder / CONFIG).read_text() != text:
        put(folder / CONFIG, text)


def selecting(text: str, number: int) -> str:
    """A config that lets Triton load version `number` alone: one config names the labels of one version."""
    config = parse(text)
    if list(config.version_policy.specific.versions) == [number]:
        return text
    without = _POLICY.sub("", text)
    if parse(without).HasField("version_policy"):  # written in a way that the pattern does not know
        config.ClearField("version_policy")
        without = text_format.MessageToString(config)
    return f"{without.rstrip()}\nversion_policy: {{ specific: {{ versions: [ {number} ] }} }}\n"


def take_out(model: Path) -> None:
    """Let Triton load no version of the model any more; `use` brings it back."""
    keep_facts(model)
    with repository.told_as_error(model):
        (model / CONFIG).replace(model / UNLOADED)


@contextlib.contextmanager
def undone_on_error(model: Path) -> Iterator[None]:
    """What says which version is in use is as it was when the block raises ExportError."""
    before = {file: contents(file) for file in (model / CONFIG, model / UNLOADED)}
    try:
        yield
    except ExportError:
        for file, text in before.items():
            if text is None:
                file.unlink(missing_ok=True)
            else:
                put(file, text)
        raise


def contents(file: Path) -> str | None:
    """The text, None where there is no file. Raises ExportError for what cannot be read, and for no file."""
    if file.exists() and not file.is_file():
        raise ExportError(f"{file} is no file; move it away, then say it again")
    try:
        return file.read_text() if file.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ExportError(f"{file} cannot be read: {reason}; correct it, or move it away") from error


@contextlib.contextmanager
def locked(model: Path) -> Iterator[None]:
    """One command at a time changes a model; another waits. Not on a file system without locks."""
    with repository.told_as_error(model):
        folder = os.open(model, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def put(path: Path, text: str) -> None:
    """Write a file at once: whoever reads it meets the old text or the new one, after a power cut too."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with repository.told_as_error(path):
        try:
            with aside.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
