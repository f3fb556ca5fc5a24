"""Builds a TensorRT engine. Only the TensorRT that will serve an engine can build it: the one in Triton's image."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from export.config import Serving
from export.errors import ExportError

IMAGE = "nvcr.io/nvidia/tritonserver:25.08-py3"  # the image that serves; TRITON_IMAGE names another
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"


def build(folder: Path, serving: Serving, report: Callable[[str], None]) -> None:
    """Build `folder`/model.plan from `folder`/model.onnx, with one profile from a batch of 1 to the largest.

    Raises ExportError where there is no Docker or no GPU, or TensorRT refuses the graph.
    """
    line = command(folder, serving)
    report(f"building the engine, which takes minutes: {shlex.join(line)}")
    if shutil.which(line[0]) is None:
        raise ExportError(
            "an engine is built inside Triton's image, and there is no docker here; "
            "run this export where Docker and the GPU are"
        )
    log = folder / "trtexec.log"
    with log.open("wb") as output:
        done = subprocess.run(line, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False)
    lines = [text.strip() for text in log.read_text(errors="replace").splitlines() if text.strip()]
    log.unlink()
    if done.returncode or not (folder / "model.plan").is_file():
        failures = [text for text in lines if "[E]" in text or text.startswith("docker:")]
        reason = (failures or lines or ["it said nothing"])[-1]
        raise ExportError(f"no engine was built (exit status {done.returncode}): {reason}")


def command(folder: Path, serving: Serving) -> list[str]:
    """The command that builds the engine; the precision is that of the ONNX file."""
    shapes = [f"--{kind}Shapes=images:{shape}" for kind, shape in serving.profile.items()]
    return [
        *("docker", "run", "--rm", "--gpus", "all", "--network", "none"),
        *("--volume", f"{folder.resolve()}:/engine", "--workdir", "/engine"),
        os.environ.get("TRITON_IMAGE") or IMAGE,
        *(TRTEXEC, "--onnx=model.onnx", "--saveEngine=model.plan", "--stronglyTyped", "--skipInference", *shapes),
    ]
