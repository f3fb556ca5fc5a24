"""Keeps the score of a version next to it, where `make export-model LIST=1` can show it."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path

from evaluation.dataset import Dataset
from evaluation.scoring import Scores
from export import versions
from export.errors import ExportError
from gateway.triton.spec import ModelSpec


def keep(repository: Path | None, spec: ModelSpec, dataset: Dataset, images: int, scores: Scores) -> None:
    """Write evaluation.json into the version's folder of the model repository, if that is on this machine.

    A failure is no error: the score has been shown.
    """
    folder = repository / spec.name / spec.version if repository else None
    if folder is None or not folder.is_dir():
        return
    kept = {
        "map50": round(scores.map50, 4),
        "map50_95": round(scores.map50_95, 4),
        "data": str(dataset.listing.root),
        "split": dataset.listing.split,
        "images": images,
        "evaluated": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with contextlib.suppress(ExportError):
        versions.put(folder / versions.SCORE, json.dumps(kept, indent=1) + "\n")
