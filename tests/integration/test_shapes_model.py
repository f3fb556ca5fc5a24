"""The model that the project trains itself: small, loadable, and good on drawings that it has never seen."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from demo import train_shapes
from evaluation.dataset import read
from evaluation.scoring import Truth, score
from export.sources.checkpoint import Checkpoint, load
from export.sources.reference import candidates
from gateway.vision.letterbox import letterbox
from gateway.vision.nms import nms

CHECKPOINT = train_shapes.HERE / "shapes.pt"
ROOT = Path(__file__).parents[2]
SAMPLES = train_shapes.HERE / "shapes"
FRESH_SEED = 99


@pytest.fixture(scope="module")
def shapes() -> Checkpoint:
    return load(CHECKPOINT)


def test_the_checkpoint_is_small_and_knows_its_classes(shapes: Checkpoint) -> None:
    assert CHECKPOINT.stat().st_size <= 2_000_000
    assert shapes.labels == train_shapes.NAMES
    assert shapes.stride == 32


@pytest.mark.parametrize("square", [False, True], ids=["rectangular", "square"])
def test_fresh_drawings_are_found(shapes: Checkpoint, square: bool) -> None:
    rng = np.random.default_rng(FRESH_SEED)
    truths, answers = [], []
    for _ in range(60):
        height, width = (int(side) for side in rng.integers(160, 480, 2))
        image, rows = train_shapes.draw(rng, height, width)
        sides = np.array([width, height], np.float32)
        centres, halves = rows[:, 1:3] * sides, rows[:, 3:] * sides / 2
        truths.append(Truth(rows[:, 0].astype(np.int64), np.concatenate([centres - halves, centres + halves], 1)))
        letterboxed, placement = letterbox(image, size_hw=(320, 320), stride=shapes.stride, fixed=square)
        found = nms(candidates(shapes.network, letterboxed), confidence=0.001, iou=0.6)
        answers.append(np.concatenate([placement.to_source(found[:, :4]), found[:, 4:]], 1))
    assert score(truths, answers).map50 > 0.9


def test_ultralytics_loads_it_as_its_own(tmp_path: Path) -> None:
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("ultralytics is not installed")
    code = f"""if True:
        from demo.train_shapes import let_ultralytics_do_without_torchvision
        let_ultralytics_do_without_torchvision()
        import ultralytics
        model = ultralytics.YOLO({str(CHECKPOINT)!r})
        print(model.task, *model.names.values())"""
    environment = os.environ | {"YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "true"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split()[-4:] == ["detect", *train_shapes.NAMES], done.stderr


def test_the_samples_are_what_the_script_draws(tmp_path: Path) -> None:
    train_shapes.write_samples(tmp_path)
    drawn, kept = read(tmp_path, 3), read(SAMPLES, 3)
    assert drawn.names == kept.names == dict(enumerate(train_shapes.NAMES))
    assert len(drawn.images) == len(kept.images) == len(train_shapes.SAMPLES_HW)
    for mine, theirs in zip(drawn.images, kept.images, strict=True):
        assert mine.class_ids.tolist() == theirs.class_ids.tolist()
        assert mine.boxes_cxcywh.tolist() == pytest.approx(theirs.boxes_cxcywh, abs=0.01)
