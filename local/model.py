"""Has a model ready to serve: the one asked for, or the demo model where there are no weights to be had."""

import contextlib
import hashlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from local.errors import LocalError
from local.triton import CONFIG, OUT_OF_SERVICE, models
from local.wheel import ROOT

DEMO = ROOT / "demo" / "shapes.pt"
DEMO_NAME, DEMO_IMGSZ = "shapes", 320
SOURCE = "weights.sha256"  # next to the model file of a version: digests of the weights, and of NAMES= if it was given
NO_WEIGHTS = 3  # exit status of `python -m export`


def prepare(repository: Path, model: str, weights: Path | None) -> str:
    """The name of the model to serve: `model`, exported where `repository` has none, or one of other weights or names.

    Raises LocalError when it cannot be exported; `python -m export` has said why then.
    """
    wanted, names = digest_of(weights) if weights else "", os.environ.get("EXPORT_NAMES") or ""
    if (repository / model / OUT_OF_SERVICE).is_file() and not weights:
        raise LocalError(
            f"{model} was taken out of service (UNLOAD=); `make export-model LIST=1` shows its versions, "
            f"USE= with NAME={shlex.quote(model)} brings one back"
        )
    named = digest_of_names(names) if names else ""
    if model in models(repository):
        of_weights, of_names = source(repository / model)
        if (not weights or of_weights == wanted) and (not names or of_names == named):
            return model
    given = ["--weights", str(weights)] if weights else ["--model", model]
    status = _export(repository, model, *given, *(["--names", names] if names else []))
    if status == NO_WEIGHTS and not weights and not names:
        return _demo(repository, model)
    if status:
        raise LocalError(f"the model {model} could not be exported (see above)")
    if weights or names:
        (in_use(repository / model) / SOURCE).write_text(f"{wanted} {named}")
    return model


def digest_of_names(names: str) -> str:
    """Of the value of NAMES=, and of the file that it names."""
    file, digest = Path(os.path.expanduser(names)), hashlib.sha256(os.fsencode(names))
    with contextlib.suppress(OSError, ValueError):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def digest_of(weights: Path) -> str:
    if weights.exists() and not weights.is_file() and not weights.is_dir():  # opening a pipe would wait
        raise LocalError(f"WEIGHTS={weights}: is a pipe or a device, not a file")
    try:
        with weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LocalError(f"WEIGHTS={weights}: {(error.strerror or str(error)).lower()}") from error


def source(model: Path) -> tuple[str, str]:
    """The digests of the weights and of the NAMES= that the version in use was exported of; empty where not known.

    A name says nothing: each training of YOLOv5 ends in a best.pt.
    """
    kept = in_use(model) / SOURCE
    weights, _, names = (kept.read_text(errors="replace") if kept.is_file() else "").partition(" ")
    return weights.strip(), names.strip()


def in_use(model: Path) -> Path:
    """The folder of the version with a model file that config.pbtxt selects, else of the latest."""
    versions = {file.parent for file in model.glob("*/*.onnx") if file.parent.name.isdecimal()}
    policy = re.search(r"specific\W+versions\W+(\d+)", (model / CONFIG).read_text(errors="replace"))
    if policy and model / policy[1] in versions:
        return model / policy[1]
    return max(versions, key=lambda version: int(version.name))


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
