"""Has a model ready to serve: the one asked for, or the demo model where there are no weights to be had."""

import subprocess
import sys
from pathlib import Path

from local.errors import LocalError
from local.triton import ROOT, models

DEMO = ROOT / "tests" / "data" / "shapes.pt"
DEMO_NAME, DEMO_IMGSZ = "shapes", 320
NO_WEIGHTS = 3  # exit status of `python -m export`


def prepare(repository: Path, model: str, weights: Path | None) -> str:
    """Export `model` where `repository` has none, or one older than `weights`; the name of the model to serve.

    Raises LocalError when it cannot be exported; `python -m export` has said why then.
    """
    if model in models(repository) and not (weights and _is_newer(weights, repository / model)):
        return model
    source = ["--weights", str(weights)] if weights else ["--model", model]
    status = _export(repository, model, *source)
    if status == NO_WEIGHTS and not weights:
        return _demo(repository, model)
    if status:
        raise LocalError(f"the model {model} could not be exported (see above)")
    return model


def _demo(repository: Path, model: str) -> str:
    if DEMO_NAME not in models(repository) and _export(
        repository, DEMO_NAME, "--weights", str(DEMO), "--imgsz", str(DEMO_IMGSZ)
    ):
        raise LocalError("the demo model could not be exported (see above)")
    line = "=" * 100
    print(
        f"{line}\nTHIS IS THE DEMO MODEL. It finds drawn circles, squares and triangles, and nothing in photographs.\n"
        f"For COCO's 80 classes put {model}.pt or {model}u.pt into weights/, or connect to the network, then start\n"
        f"again; for a model of your own: make run WEIGHTS=path.pt\n{line}",
        flush=True,
    )
    return DEMO_NAME


def _export(repository: Path, name: str, *options: str) -> int:
    command = [sys.executable, "-m", "export", "--repository", str(repository), "--name", name, *options]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _is_newer(weights: Path, model: Path) -> bool:
    if not weights.is_file():
        raise LocalError(f"WEIGHTS={weights}: there is no such file")
    return weights.stat().st_mtime > max(file.stat().st_mtime for file in model.glob("*/model.*"))
