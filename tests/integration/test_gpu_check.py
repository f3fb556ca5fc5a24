"""`make gpu-check` with stand-ins for nvidia-smi and docker: its logic, not a GPU's speed."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.gpu.report import Report
from tests.support.stack import ROOT

SHAPES = ROOT / "demo"
NVIDIA_SMI = """#!/bin/sh
case "$1" in
*utilization*) echo "87, 410.5" ;;
*) echo "NVIDIA H100 80GB HBM3, 580.65.06" ;;
esac
"""


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def check(folder: Path, *arguments: str, path: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.gpu", "--output", str(folder / "out"), *arguments]
    environment = os.environ | {"PATH": path, "YOLO_SHARED": str(folder), "TMPDIR": str(folder)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_way_is_exported_verified_and_measured(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    program(programs / "nvidia-smi", NVIDIA_SMI)
    docker = f'cd {shlex.quote(str(ROOT))} && exec {shlex.quote(sys.executable)} -m tests.support.gpu_docker "$@"'
    program(programs / "docker", f"#!/bin/sh\n{docker}\n")
    done = check(
        tmp_path,
        *("--model", "shapes", "--weights", str(SHAPES / "shapes.pt"), "--data", str(SHAPES / "shapes")),
        *("--images", str(SHAPES / "shapes" / "images"), "--seconds", "2", "--workers", "1", "--tasks", "4"),
        path=f"{programs}{os.pathsep}{os.environ['PATH']}",
    )
    assert done.returncode in (0, 1), done.stderr
    found = msgspec.json.decode((tmp_path / "out" / "report.json").read_bytes(), type=Report)
    assert [(row.name, row.precision, row.problem) for row in found.rows] == [
        (name, precision, "")
        for name in ("TensorRT provider", "CUDA provider", "engine")
        for precision in ("fp32", "fp16")
    ]
    assert found.host.gpus == ["NVIDIA H100 80GB HBM3"] and found.host.tensorrt == "10.13.2.6"
    for row in found.rows:
        assert row.first_start_seconds and row.second_start_seconds and row.export_seconds
        assert "boxes matched" in row.verified and row.doctor and row.lone_ms
        assert row.trtexec_rate == 2.5 * 16
        assert row.alone and row.alone.rate > 0 and row.alone.failed == 0 and row.alone.batches
        assert (row.alone.gpu_percent, row.alone.watts) == (87.0, 410.5)
        assert row.map50_95 is not None and row.map50_95 > 0.5
    assert found.service and found.service.rate > 0 and found.service.failed == 0
    page = (tmp_path / "out" / "report.md").read_text()
    assert page in done.stdout and "NVIDIA H100 80GB HBM3" in page and "mAP50-95 that fp16 loses, engine" in page


def test_without_a_gpu_there_is_one_line(tmp_path: Path) -> None:
    done = check(tmp_path, path="/nowhere")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("gpu-check: no GPU: nvidia-smi is not there")


def test_without_docker_there_is_one_line(tmp_path: Path) -> None:
    program(tmp_path / "nvidia-smi", NVIDIA_SMI.replace("/bin/sh", "/bin/bash"))
    done = check(tmp_path, path=str(tmp_path))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("gpu-check: there is no docker here")
