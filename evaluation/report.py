"""What an evaluation says: a table, where the difference comes from, and a verdict."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from evaluation.dataset import LabelledImage, several
from evaluation.scoring import Scores
from evaluation.steps import CUT, LETTERBOX, ONE_CLASS, SERVED, VAL, Evaluation


def table(images: Sequence[LabelledImage], labels: Sequence[str], scores: dict[str, Scores]) -> str:
    """The scores as text: a line for all classes, then one for each class of the ground truth."""
    first, *_ = scores.values()
    shown = list(first.per_class)
    width = max(12, *(len(labels[class_id]) for class_id in shown))
    counts = {class_id: [int(np.count_nonzero(image.class_ids == class_id)) for image in images] for class_id in shown}
    head = "".join(f"{f'mAP50 {name}':>16}{f'mAP50-95 {name}':>19}" for name in scores)
    lines = [f"{'class':<{width}}{'images':>8}{'objects':>9}{head}"]

    def add(label: str, images: int, objects: int, values: list[tuple[float, float]]) -> None:
        cells = "".join(f"{map50:>16.4f}{map50_95:>19.4f}" for map50, map50_95 in values)
        lines.append(f"{label:<{width}}{images:>8}{objects:>9}{cells}")

    objects = sum(sum(per_image) for per_image in counts.values())
    add("all", len(images), objects, [(each.map50, each.map50_95) for each in scores.values()])
    for class_id, per_image in counts.items():
        values = [each.per_class[class_id] for each in scores.values()]
        add(labels[class_id], sum(count > 0 for count in per_image), sum(per_image), values)
    return "\n".join(lines)


def columns(scores: dict[str, Scores]) -> dict[str, Scores]:
    """What the table shows: the served model, and PyTorch where it was run, scored as YOLOv5's `val.py` scores it."""
    return {"served": scores[SERVED]} | ({"PyTorch": scores[VAL]} if VAL in scores else {})


def costs(evaluation: Evaluation) -> str:
    """A line for each step from PyTorch as in `val.py` to the served model; they add up to the whole difference."""
    steps = {
        LETTERBOX: "the service's letterbox in place of val.py's",
        ONE_CLASS: "one class for each box",
        CUT: f"the cut to the best {evaluation.rows} boxes",
        SERVED: "the served model itself",
    }
    width = max(map(len, steps.values()))
    lines = [f"{'from PyTorch as in val.py to served':<{width + 2}}{'mAP50':>10}{'mAP50-95':>10}"]
    before = evaluation.scores[VAL]
    for step, words in steps.items():
        after = evaluation.scores[step]
        apart = after.map50 - before.map50, after.map50_95 - before.map50_95
        lines.append(f"  {words:<{width}}{apart[0]:>+10.4f}{apart[1]:>+10.4f}")
        before = after
    return "\n".join(lines)


def verdict(answered: Scores, expected: Scores, tolerance: float) -> int:
    """Say in one line whether the served model and PyTorch agree, both cut alike; 1 when they do not."""
    apart = max(abs(answered.map50 - expected.map50), abs(answered.map50_95 - expected.map50_95))
    if apart > tolerance:
        print(
            f"evaluate: served and PyTorch, letterboxed and cut alike, differ by {apart:.4f}, more than {tolerance}; "
            "export the model again",
            file=sys.stderr,
        )
        return 1
    print(
        f"served and PyTorch agree, letterboxed and cut alike: they differ by {apart:.4f}, at most {tolerance} is "
        "allowed"
    )
    return 0


def notes(evaluation: Evaluation) -> list[str]:
    """What the user should know of images that were read otherwise than the service or `val.py` does."""
    said = []
    if not any(scores.map50 for scores in evaluation.scores.values()):
        said.append("nothing that is labelled was found: are these the images and classes that the model was made for?")
    if evaluation.unreadable:
        said.append(f"{len(evaluation.unreadable)} images left out: {several(evaluation.unreadable)}")
    if evaluation.refused:
        said.append(f"{len(evaluation.refused)} images scored that the service refuses, first {evaluation.refused[0]}")
    return said
