"""What a writer needs to know of one image and of what was found in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Box(Protocol):
    """Corners in pixels of the upright image (EXIF applied), x to the right, y down."""

    @property
    def x1(self) -> float: ...
    @property
    def y1(self) -> float: ...
    @property
    def x2(self) -> float: ...
    @property
    def y2(self) -> float: ...


class Detection(Protocol):
    """One object; `score` is between 0 and 1, `class_id` the model's own number of the class, from 0."""

    @property
    def label(self) -> str: ...
    @property
    def class_id(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def box(self) -> Box: ...


@dataclass(frozen=True)
class Picture:
    """One image under the name it has in the data set, its size in pixels as a viewer shows it, its detections."""

    name: str
    width: int
    height: int
    detections: Sequence[Detection]
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Model:
    """The model that answered; `labels` are all of its classes, the label of class id 0 first."""

    name: str
    version: str
    labels: Sequence[str]
