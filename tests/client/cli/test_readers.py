"""CVAT's, Label Studio's and FiftyOne's own libraries read the files, where READERS_PYTHON names one that has them."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.cli import reading
from tests.client.cli.datasets import PICTURES, write
from tests.support.stack import ROOT

PYTHON = Path(os.environ.get("READERS_PYTHON") or ROOT / ".venv-readers" / "bin" / "python")
PACKAGES = {"datumaro": "datumaro", "label": "label_studio_sdk", "fiftyone": "fiftyone", "ultralytics": "ultralytics"}


def python_with(package: str) -> str:
    """The tests' own interpreter, or else that of the readers; skips the test where neither has the package."""
    if importlib.util.find_spec(package) is not None:
        return sys.executable
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec('{package}') is None)"
    if not PYTHON.is_file() or subprocess.run([PYTHON, "-c", code]).returncode:
        pytest.skip(f"no {package} in {PYTHON}; READERS_PYTHON names an environment that has it")
    return str(PYTHON)


def boxes_read(reader: str, folder: Path) -> reading.Boxes:
    command = [python_with(PACKAGES[reader.split("_")[0]]), reading.__file__, reader, str(folder)]
    alone = {"HOME": str(folder), "YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "true", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | alone)
    assert done.returncode == 0, done.stdout + done.stderr
    read: reading.Boxes = json.loads(done.stdout.splitlines()[-1])
    return read


@pytest.mark.parametrize("reader", reading.READERS)
def test_a_reader_finds_every_box(reader: str, tmp_path: Path) -> None:
    write(tmp_path, reader.split("_")[-1], PICTURES)
    read = {Path(name).stem: boxes for name, boxes in boxes_read(reader, tmp_path).items()}
    assert set(read) == {Path(picture.name).stem for picture in PICTURES}
    for picture in PICTURES:
        boxes = sorted(read[Path(picture.name).stem])
        wanted = sorted(
            [each.label, each.box.x1, each.box.y1, each.box.x2 - each.box.x1, each.box.y2 - each.box.y1]
            for each in picture.detections
        )
        assert [box[0] for box in boxes] == [box[0] for box in wanted]
        for box, right in zip(boxes, wanted, strict=True):
            assert box[1:] == pytest.approx(right[1:], abs=1e-2)
