"""Material that is not part of the project: checkpoints and photographs with PyTorch's answers."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(os.environ.get("YOLO_SHARED") or Path(__file__).resolve().parents[3] / "shared")


def photograph(name: str) -> bytes:
    """The bytes of a photograph; skips the test where there are none."""
    path = SHARED / "images" / name
    if not path.is_file():
        pytest.skip(f"no photograph {name}: YOLO_SHARED names no folder with images/")
    return path.read_bytes()


def reference(square: bool) -> dict[str, Any]:
    """What the original YOLOv5 code answers in PyTorch, by the photograph's name."""
    path = SHARED / "images" / "reference.json"
    if not path.is_file():
        pytest.skip("no reference.json: YOLO_SHARED names no folder with images/")
    answers: dict[str, Any] = json.loads(path.read_text())["square" if square else "rect"]
    return answers
