"""Which classes a request wants: labels and ids, as people write them."""

import csv
import json
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache

from gateway.errors import InvalidParameter
from gateway.triton.spec import ModelSpec

_LONGEST_ID = 18  # digits; Python itself refuses to read a number of some thousands
_LONGEST_SHOWN = 100
_MOST_SHOWN = 20


def class_ids(given: str | list[str | int], spec: ModelSpec) -> list[int] | None:
    """The ids of the wanted classes; None means all. Raises InvalidParameter for a class that the model lacks.

    Text is a label as a whole, or several labels and ids with commas between, where one with a comma is in double
    quotes as in CSV, or a JSON list. A number of JSON is an id; digits in text are a label where there is such a one.
    """
    if not given:
        return None
    if isinstance(given, str) and (whole := _labelled(given, spec)):
        return whole
    names = _split(given) if isinstance(given, str) else given
    return [index for each in names for index in _ids(each, spec)] or None


def _split(text: str) -> list[str | int]:
    if text.lstrip().startswith("["):
        try:
            lists = json.loads(f"[{text}]")  # several values of a query have commas between
        except (ValueError, RecursionError):
            lists = [None]
        if all(isinstance(each, list) for each in lists):
            found = [each for values in lists for each in values]
            if all(isinstance(each, str | int) and not isinstance(each, bool) for each in found):
                return found
        raise InvalidParameter(f"classes={shown(text)}: give a JSON list of labels and ids, or separate them by commas")
    try:
        return [part for part in next(csv.reader([_line(text)], skipinitialspace=True), []) if part.strip()]
    except csv.Error as error:
        raise InvalidParameter(f"classes={shown(text)}: {error}") from error


def _ids(name: str | int, spec: ModelSpec) -> list[int]:
    if isinstance(name, str) and (found := _labelled(name, spec)):
        return found
    digits = str(name).strip()
    if digits.isdecimal() and len(digits) <= _LONGEST_ID and int(digits) < len(spec.labels):
        return [int(digits)]
    known = ", ".join(f'"{label}"' if "," in label else label for label in spec.labels[:_MOST_SHOWN])
    more = ", …" if len(spec.labels) > _MOST_SHOWN else ""
    raise InvalidParameter(f"classes={shown(name)}: {spec.name} knows 0 to {len(spec.labels) - 1}: {known}{more}")


def _labelled(name: str, spec: ModelSpec) -> list[int]:
    """Every class of that label; in another case only where none is written so."""
    wanted, (exact, folded) = _line(name), _ids_by_label(spec.labels)
    return exact.get(wanted) or folded.get(wanted.casefold(), [])


@lru_cache(maxsize=64)
def _ids_by_label(labels: tuple[str, ...]) -> tuple[Mapping[str, list[int]], Mapping[str, list[int]]]:
    """As written, and in any case. A request may name thousands of classes, on the event loop."""
    exact, folded = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    for index, label in enumerate(labels):
        exact[label].append(index)
        folded[label.casefold()].append(index)
    return exact, folded


def _line(text: str) -> str:
    """As labels.txt has it: one line, single blanks."""
    return " ".join(text.split())


def shown(value: object) -> str:
    """No longer than is needed to know it again."""
    text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
