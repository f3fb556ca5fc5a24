"""What NVIDIA's driver and Docker say of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from benchmarks.gpu.report import Host
from export.config import cores

ROOT = Path(__file__).resolve().parents[2]


class CannotCheck(Exception):
    """This machine cannot do the check, or a part of it; the message is one line that says what to do."""


def check() -> None:
    """Raises CannotCheck where there is no GPU or no Docker."""
    if not query("name"):
        raise CannotCheck("no GPU: nvidia-smi is not there or names none; run this on a host with an NVIDIA GPU")
    if shutil.which("docker") is None:
        raise CannotCheck("there is no docker here; install Docker and NVIDIA's Container Toolkit")


def look(image: str) -> Host:
    """The machine, and what `image` holds. Raises CannotCheck when its container does not get at the GPU."""
    rows = query("name,driver_version")
    versions = run(
        *("docker", "run", "--rm", "--gpus", "all", "--network", "none", image),
        *("sh", "-c", "echo Triton=$TRITON_SERVER_VERSION TensorRT=$TRT_VERSION"),
    )
    found = dict(re.findall(r"(Triton|TensorRT)=(\S+)", versions))
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return Host(
        gpus=[name for name, _ in rows],
        driver=rows[0][1],
        triton=found.get("Triton", "unknown"),
        tensorrt=found.get("TensorRT", "unknown"),
        cores=cores(),
        commit=commit.stdout.strip() or "unknown",
        load=os.getloadavg()[0],
    )


def query(fields: str) -> list[list[str]]:
    """A row of these fields for each GPU; nothing where there is none."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in said.stdout.splitlines() if line.strip()]
    return [] if said.returncode else rows


def run(*command: str, seconds: float = 3600) -> str:
    """What a command prints. Raises CannotCheck with its last line when it fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotCheck(f"`{' '.join(command[:3])} …` took more than {seconds:.0f} s") from error
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()] or ["it said nothing"]
        raise CannotCheck(f"`{' '.join(command[:3])} …` ended with exit status {done.returncode}: {lines[-1].strip()}")
    return done.stdout


class Use:
    """The GPU's use while a block ran: means of a reading a second, over all GPUs."""

    def __init__(self) -> None:
        self._readings: list[tuple[float, float]] = []
        self._ended = threading.Event()

    @property
    def percent(self) -> float | None:
        return fmean(percent for percent, _ in self._readings) if self._readings else None

    @property
    def watts(self) -> float | None:
        return fmean(watts for _, watts in self._readings) if self._readings else None

    @contextmanager
    def watched(self) -> Iterator[None]:
        reader = threading.Thread(target=self._read)
        reader.start()
        try:
            yield
        finally:
            self._ended.set()
            reader.join()

    def _read(self) -> None:
        while not self._ended.wait(1):
            self._readings += [reading for row in query("utilization.gpu,power.draw") if (reading := _numbers(row))]


def _numbers(row: Sequence[str]) -> tuple[float, float] | None:
    try:
        return float(row[0]), float(row[1])
    except (ValueError, IndexError):  # [N/A] on some cards
        return None


def user() -> str:
    return f"{os.getuid()}:{os.getgid()}"
