"""Annotation files, written whole from the journal: what is there is old or new, never half."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from yolo_gateway.cli.batch.journal import Entry, Failure, Header, Result
from yolo_gateway.cli.text import Unusable, is_valid_name, reason_of, shown
from yolo_gateway.formats import coco, json_lines, table, yolo
from yolo_gateway.formats.picture import Model, Picture

Form = Literal["coco", "yolo", "csv", "json"]
Entries = Callable[[], Iterable[Entry]]
_LABELS, _CLASSES, _DATA = "labels", "classes.txt", "data.yaml"
_EXAMPLES = 10


class Box(NamedTuple):
    """Corners in pixels."""

    x1: float
    y1: float
    x2: float
    y2: float


class Detection(NamedTuple):
    """A row of the journal, with its label."""

    label: str
    class_id: int
    score: float
    box: Box


class Failed(NamedTuple):
    """A file that failed, for a line to people."""

    name: str
    reason: str


@dataclass
class Tally:
    """What came of a run; `examples` are the first failures."""

    succeeded: int = 0
    failed: int = 0
    warnings: int = 0
    detections: int = 0
    examples: list[Failed] = field(default_factory=list)

    def count(self, entry: Entry) -> str:
        """Count a file; the line of the list of failures, empty for a result."""
        if isinstance(entry.outcome, Result):
            self.succeeded += 1
            self.warnings += bool(entry.outcome.warnings)
            self.detections += len(entry.outcome.rows)
            return ""
        self.failed += 1
        if self.failed <= _EXAMPLES:
            self.examples.append(Failed(entry.name, entry.outcome.reason))
        return _failure_line(entry.name, entry.outcome)


@dataclass(frozen=True)
class Output:
    """Where a run writes: `out` is a file, for YOLO a folder. The journal and the list of failures are next to it."""

    form: Form
    out: Path

    @property
    def is_folder(self) -> bool:
        return self.form == "yolo"

    @property
    def journal(self) -> Path:
        return self.out / "journal.jsonl" if self.is_folder else Path(f"{self.out}.journal")

    @property
    def failures(self) -> Path:
        return self.out / "failed.jsonl" if self.is_folder else Path(f"{self.out}.failed.jsonl")

    @property
    def annotations(self) -> Path:
        return self.out / _LABELS if self.is_folder else self.out

    @property
    def _written(self) -> list[Path]:
        rest = [self.out / _CLASSES, self.out / _DATA] if self.is_folder else []
        return [self.annotations, *rest, self.failures]

    def prepare(self) -> None:
        """Make the folder, and see that nothing of somebody else's would be overwritten. Raises Unusable."""
        if not self.is_folder and str(self.out) == "-":
            raise Unusable("-: the outputs are files, written whole at the end; name a file")
        if not self.is_folder and self.out.is_dir():
            raise Unusable(f"{shown(str(self.out))}: is a folder; name a file for --format {self.form}")
        taken = [path for path in self._written if os.path.lexists(path)]
        if taken and not self.journal.exists():
            raise Unusable(
                f"{shown(str(taken[0]))}: is there already, and no journal of a run is; "
                "choose another --out, or move it away"
            )
        try:
            self.journal.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unusable(f"{shown(str(self.journal.parent))}: {reason_of(error)}") from error

    def check(self, names: list[str]) -> None:
        """Two images of one label file are refused before anything is sent. Raises Unusable."""
        if self.is_folder:
            refuse_twins(names, yolo.label_name, f"--format {self.form}")

    def write(self, entries: Entries, header: Header) -> Tally:
        """All annotations and the list of failures; `entries` gives them in order, each time anew. Raises OSError."""
        model = Model(header.model, header.version, header.labels)
        if self.is_folder:
            self._write_folder(entries, model)
        else:
            _write(self.out, _text(self.form, lambda: _pictures(entries(), model), model))
        tally = Tally()
        _write(self.failures, (line for entry in entries() if (line := tally.count(entry))))
        if not tally.failed:
            self.failures.unlink()
        return tally

    def _write_folder(self, entries: Entries, model: Model) -> None:
        _write(self.out / _CLASSES, [yolo.classes(model)])
        _write(self.out / _DATA, [yolo.data_yaml(model)])
        aside = self.out / f"{_LABELS}.part"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for picture in _pictures(entries(), model):
            path = aside / yolo.label_name(picture.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yolo.label_file(picture), encoding="utf-8", newline="\n")
        if self.annotations.exists():
            shutil.rmtree(self.annotations)
        aside.rename(self.annotations)


def picture_name(name: str) -> str:
    """The file of an annotated picture, a JPEG: `a/b.jpg` as it is, `a/b.png` → `a/b.png.jpg`."""
    return name if PurePosixPath(name).suffix.lower() in (".jpg", ".jpeg") else f"{name}.jpg"


def refuse_twins(names: Iterable[str], place: Callable[[str], str], what: str) -> None:
    """Raises Unusable for two files that would be written to one place."""
    places: dict[str, str] = {}
    for name in names:
        other = places.setdefault(place(name), name)
        if other is not name:
            raise Unusable(
                f"{shown(other)} and {shown(name)} would both be {shown(place(name))} with {what}; "
                "rename one of them, or send them in two runs"
            )


def write_bytes(path: Path, content: bytes) -> None:
    """The whole content or none. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as aside:
        aside.write_bytes(content)


def _write(path: Path, pieces: Iterable[str]) -> None:
    with _replacing(path) as aside, open(aside, "w", encoding="utf-8", newline="") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    aside = path.with_name(f"{path.name}.part")
    try:
        yield aside
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _text(form: Form, pictures: Callable[[], Iterator[Picture]], model: Model) -> Iterator[str]:
    if form == "coco":
        return coco.dataset(pictures, model)
    return table.table(pictures(), model) if form == "csv" else json_lines.lines(pictures(), model)


def _pictures(entries: Iterable[Entry], model: Model) -> Iterator[Picture]:
    for entry in entries:
        if isinstance(entry.outcome, Result):
            yield Picture(entry.name, *entry.outcome.size, _detections(entry.outcome, model), entry.outcome.warnings)


def _detections(result: Result, model: Model) -> list[Detection]:
    return [
        Detection(model.labels[int(class_id)], int(class_id), score, Box(*corners))
        for class_id, score, *corners in result.rows
    ]


def _failure_line(name: str, failure: Failure) -> str:
    name = name if is_valid_name(name) else shown(name)
    return json.dumps({"file": name, "code": failure.code, "reason": failure.reason}) + "\n"
