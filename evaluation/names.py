"""Whether a data set and a model mean the same by a class id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import yaml  # type: ignore[import-untyped]

from evaluation.errors import DatasetError

MOST_NAMED = 5


def check(names: Mapping[int, str], labels: Sequence[str]) -> list[str]:
    """Compare data.yaml's names with the model's. Returns lines for the user.

    Raises DatasetError, naming them, where a class id means something else in the model or nothing: scores by id would
    be those of other classes.
    """
    wrong = [
        f"{class_id} is {name!r} in data.yaml and {_label(class_id, labels)} in the model"
        for class_id, name in sorted(names.items())
        if class_id not in range(len(labels)) or not _same(name, labels[class_id])
    ]
    if wrong:
        more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        order = "; the names are the same in another order" if sorted(names.values()) == sorted(labels) else ""
        raise DatasetError(
            f"classes differ: {', '.join(wrong[:MOST_NAMED])}{more}{order}; give the MODEL= that was trained on this "
            "data set, or ARGS=--ignore-names to compare by number"
        )
    absent = [name for class_id, name in enumerate(labels) if class_id not in names]
    if names and absent:
        return [f"data.yaml names {len(names)} of the model's {len(labels)} classes; the others are not scored"]
    return []


def check_labelled(names: Mapping[int, str], class_ids: Iterable[int], labels: Sequence[str]) -> None:
    """Raises DatasetError where objects are labelled with classes that data.yaml does not name."""
    unnamed = sorted({class_id for class_id in class_ids if class_id not in names}) if names else []
    if unnamed:
        shown = ", ".join(f"{class_id} ({_label(class_id, labels)} in the model)" for class_id in unnamed[:MOST_NAMED])
        raise DatasetError(
            f"label files have classes that data.yaml does not name: {shown}; add their names, or ARGS=--ignore-names "
            "to compare by number"
        )


def _same(name: str, label: str) -> bool:
    """Also where a training read `no` as False or `007` as 7, as YAML does without quotes."""
    if name == label:
        return True
    try:
        return bool(label == str(yaml.safe_load(name)))
    except (yaml.YAMLError, ValueError, RecursionError):
        return False


def _label(class_id: int, labels: Sequence[str]) -> str:
    return repr(labels[class_id]) if class_id in range(len(labels)) else "no class"
