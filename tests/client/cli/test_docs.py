"""Every command and every Python block of the documentation runs as it is written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.cli.conftest import Command
from tests.support.pictures import encoded
from tests.support.stack import ROOT

PAGES = ["README.md", "docs/cli.md"]
BLOCKS = [
    pytest.param(block, id=f"{page} {number}")
    for page in ("README.md", "docs/client.md", "client/README.md")
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S), 1)
]


def photographs(folder: Path) -> None:
    (folder / "photos").mkdir()
    for name in ("bus.jpg", "photos/dog.jpg", "photos/cat.jpg"):
        (folder / name).write_bytes(encoded(640, 480, ".jpg"))


@pytest.mark.parametrize("block", BLOCKS)
def test_python_runs_but_for_the_address_as_it_is_written(block: str, tmp_path: Path, yolo: Command) -> None:
    photographs(tmp_path)
    block = block.replace("http://127.0.0.1:5000", yolo.environment["YOLO_GATEWAY_SERVER"])
    command = [sys.executable, "-W", "error", "-c", block]
    done = subprocess.run(command, cwd=tmp_path, env=yolo.environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


def commands_of(page: str) -> str:
    """The indented lines of a page that are about the command line, but for the installation."""
    lines = re.findall(r"^    (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    return "\n".join(line for line in lines if "yolo-gateway" in line or line.startswith("ln -s"))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_runs_as_it_is_written(page: str, tmp_path: Path, yolo: Command) -> None:
    photographs(tmp_path)
    program = tmp_path / "bin" / "yolo-gateway"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m yolo_gateway "$@"\n')
    program.chmod(0o755)
    commands = commands_of(page)
    assert commands.count("yolo-gateway") > 1
    task = re.search(r'"task_id": "(\w+)"', yolo.run("predict", tmp_path / "bus.jpg").stdout)
    assert task
    environment = yolo.environment | {"TASK": task[1], "PATH": f"{program.parent}:{yolo.environment['PATH']}"}
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "annotations.json").stat().st_size > 100
