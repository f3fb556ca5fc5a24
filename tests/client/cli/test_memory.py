"""The memory of a batch does not grow with the number of files."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.client.cli.conftest import Command


def peak_megabytes(yolo: Command, folder: Path, number: int) -> float:
    """The most that a batch of so many small images had resident."""
    folder.mkdir()
    for index in range(number):
        picture = np.full((48, 64, 3), (index % 256, index // 256, 80), np.uint8)
        cv2.imwrite(str(folder / f"{index:06}.png"), picture)
    process = yolo.start("batch", folder, "--out", f"{folder}.json", "--quiet", stdout=None, stderr=None)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / 1024


@pytest.mark.long
@pytest.mark.timeout(600)
def test_ten_times_the_files_take_hardly_more_memory(tmp_path: Path, yolo: Command) -> None:
    few = peak_megabytes(yolo, tmp_path / "few", 500)
    many = peak_megabytes(yolo, tmp_path / "many", 5_000)
    assert many < few + 5, f"{few:.1f} MB at 500, {many:.1f} MB at 5,000"
